"""`fs_v2`: all of `fs_v1`, to the bit, with technical indicators and more about events."""

from asof.features.expression import bars, events
from asof.features.feature_set import FeatureSet
from asof.features.library import news
from asof.features.library import technical as ta
from asof.features.library.fs_v1 import build as build_fs_v1
from asof.features.library.quality import PRICES, absent, quality_flags

TALK = ("twitter", "reddit")
"""The kinds of sources in which anybody writes."""
REACH = 150
"""Bars of the fading averages: what is left out weighs less than 0.002 %, and two years of days are enough for most of their vectors."""


def build() -> FeatureSet:
    """`fs_v2` with the windows of an hour, a day and a week. The features of `fs_v1` come first, and are those of its default form."""
    close, hour, day, week = bars.close, events.window("1h"), events.window("1d"), events.window("7d")
    bands, earnings, talk = ta.bollinger(close), day.category == "earnings", day.source.is_in(*TALK)
    features = {
        **build_fs_v1().features,
        "rsi_14": ta.rsi(close, reach=REACH),
        "ppo_12_26": ta.ppo(close, reach=REACH),
        "natr_14": ta.natr(reach=REACH),
        "bb_position_20": (close - bands.lower) / (bands.upper - bands.lower),
        "volume_z_20": ta.volume_z(),
        "parkinson_20": ta.parkinson(),
        "event_count_1d": day.count(),
        "event_surprise_20": news.surprise(day.count(), 20, least=1),
        "sentiment_fading_1d": news.fading_sentiment(day),
        "sentiment_pressure_1d": news.sentiment_pressure(day),
        "sentiment_surprise_20": news.surprise(day.sentiment.mean(), 20, least=0.05, min_count=5),
        "novelty_1d": news.novelty(day),
        "repeat_count_1d": news.repeats(day),
        "repost_count_1d": news.reposts(day),
        "earnings_count_1d": day.count(where=earnings),
        "earnings_sentiment_1d": day.sentiment.mean(where=earnings),
        "talk_count_1d": day.count(where=talk),
        "talk_sentiment_1d": day.sentiment.mean(where=talk),
        "hours_since_event": news.hours_since(week),
        "hours_since_earnings": news.hours_since(week, week.category == "earnings"),
    }
    flags = quality_flags(features, hour)
    need = max(feature.lookback for feature in features.values())
    return FeatureSet("fs_v2", features, flags | {"MISSING_OHLCV": absent(need, PRICES)})
