"""`cross_v1`: well-known features across instruments, over all that have a bar: momentum, reversal, low volatility, and a few alphas.

`alpha_<n>` are those of Z. Kakushadze, "101 Formulaic Alphas", Wilmott 84 (2016), by their numbers. Returns and changes of prices are of
adjusted bars, ranks of prices and volumes of the bars as they were.
"""

from asof.features.across import across
from asof.features.expression import bars, where
from asof.features.feature_set import FeatureSet
from asof.features.library.quality import bar_flags


def build() -> FeatureSet:
    """`cross_v1`: bars alone, no events, and no memberships; a universe of one's own is a few lines like these."""
    all_of = across()
    rank, close = all_of.rank, bars.adjusted.close
    ret, change = close / close.lag(1) - 1, close.diff()
    strongest = where(ret < 0, ret.std(20), bars.close)
    weekly = bars.adjusted.open.sum(5) * ret.sum(5)
    features = {
        "momentum_12_1": rank(close.lag(21) / close.lag(252) - 1),
        "reversal_5": rank(1 - close / close.lag(5)),
        "low_volatility_60": rank(-ret.std(60)),
        "excess_1": all_of.demean(ret),
        "alpha_1": rank((strongest * strongest).argmax(5)) - 0.5,
        "alpha_2": -rank((bars.adjusted.volume / bars.adjusted.volume.lag(2)).log()).corr(rank((bars.close - bars.open) / bars.open), 6),
        "alpha_3": -rank(bars.open).corr(rank(bars.volume), 10),
        "alpha_4": -rank(bars.low).rank(9),
        "alpha_8": -rank(weekly - weekly.lag(10)),
        "alpha_10": rank(where((change.min(4) > 0) | (change.max(4) < 0), change, -change)),
    }
    return FeatureSet("cross_v1", features, bar_flags(features))
