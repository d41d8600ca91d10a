"""`book_v1`: spread, depth, flow and impact from the trades, quotes and order books before each bar's close."""

from asof.features.expression import bars
from asof.features.feature_set import FeatureSet
from asof.features.library import microstructure as micro
from asof.features.library.quality import bar_flags
from asof.features.market import books, quotes, trades


def build(window: str = "1m", short: str = "10s", prevailing: str = "10s", levels: int = 5, amount: float = 1.0) -> FeatureSet:
    """`book_v1` with flows over `window` and `short`; the names keep their `_1m` and `_10s` whatever these are.

    What is said of one quote or book is said of the newest in `window`. A quote prevails for a trade that comes at most `prevailing` after
    it. `levels` of the book are added up, and `amount` is what could be bought or sold at once.
    """
    traded, quoted, booked = trades.window(window), quotes.window(window), books.window(window)
    quote, book = quotes.last(1, within=window), books.last(1, within=window)
    sign = micro.trade_sign(traded, quotes.window(prevailing), within=window)
    recent = trades.window(short)
    ret_1 = bars.close / bars.close.lag(1) - 1
    features = {
        "mid": quote.mid.last(),
        "spread": quote.spread.last(),
        "relative_spread": quote.relative_spread.last(),
        "microprice": quote.microprice.last(),
        "quote_imbalance": quote.imbalance.last(),
        "spread_mean_1m": micro.average(quoted.spread),
        "relative_spread_mean_1m": micro.average(quoted.relative_spread),
        "quote_count_1m": quoted.count(),
        "realised_volatility_1m": micro.realised_volatility(quoted),
        "order_flow_imbalance_10s": micro.order_flow_imbalance(quotes.window(short)),
        "order_flow_imbalance_1m": micro.order_flow_imbalance(quoted),
        "imbalance_5": book.imbalance(levels).last(),
        "depth_5": book.depth(levels).last(),
        "vwap_to_buy": book.vwap_to_depth(amount).last(),
        "vwap_to_sell": book.vwap_to_depth(-amount).last(),
        "imbalance_mean_5_1m": micro.average(booked.imbalance(levels)),
        "trade_count_1m": traded.count(),
        "volume_1m": traded.size.sum(),
        "vwap_1m": micro.vwap(traded),
        "signed_volume_10s": micro.signed_volume(recent, micro.trade_sign(recent, quotes.window(prevailing), within=window)),
        "signed_volume_1m": micro.signed_volume(traded, sign),
        "vpin_1m": micro.vpin(traded, sign, 10),
        "kyle_lambda_1m": micro.kyle_lambda(traded, sign),
        "effective_spread_1m": micro.effective_spread(traded, quotes.window(prevailing)),
        "roll_spread_1m": micro.roll_spread(traded),
        "amihud_20": micro.amihud(ret_1, traded.value.sum(), 20),
    }
    short_book = features["depth_5"].is_missing() | features["vwap_to_buy"].is_missing() | features["vwap_to_sell"].is_missing()
    flags = {
        "NO_TRADES": traded.count() == 0,
        "NO_QUOTES": quoted.count() == 0,
        "NO_BOOKS": booked.count() == 0,
        "CROSSED_BOOK": (micro.total(quoted.crossed) > 0) | (micro.total(booked.crossed) > 0),
        "BOOK_GAP": booked.gap.sum() > 0,
        "SHORT_BOOK": (booked.count() > 0) & short_book,
    }
    return FeatureSet("book_v1", features, flags | bar_flags(features))
