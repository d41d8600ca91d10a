"""`fs_v1`: returns, volatility and the sentiment of the last hour's events."""

from asof.features.expression import bars, events
from asof.features.feature_set import FeatureSet
from asof.features.library.quality import quality_flags


def build(event_window: str = "1h", min_event_count: int = 3) -> FeatureSet:
    """`fs_v1` with events of the last `event_window`. The names keep their `_1h` whatever the window is."""
    ret_1 = bars.close / bars.close.lag(1) - 1
    news = events.window(event_window)
    features = {
        "ret_1": ret_1,
        "ret_5": bars.close / bars.close.lag(5) - 1,
        "vol_20": ret_1.std(20, ddof=0),
        "event_count_1h": news.count(),
        "sentiment_mean_1h": news.sentiment.mean(),
        "sentiment_conf_mean_1h": news.confidence.mean(),
        "sentiment_weighted_1h": news.sentiment.mean(weight=news.confidence),
        "sentiment_std_1h": news.sentiment.std(ddof=0),
    }
    return FeatureSet("fs_v1", features, quality_flags(features, news, min_event_count))


fs_v1 = build()
