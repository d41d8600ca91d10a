"""The quality flags that every shipped feature set raises."""

from asof.features.expression import EventWindow, Expr, bars, lookback


def quality_flags(features: dict[str, Expr], news: EventWindow, min_event_count: int = 3, min_confidence: float = 0.5) -> dict[str, Expr]:
    """The six flags of the contract that are expressions, for features over closes and one event window.

    The bars looked at are those of the features' own lookback; one that is absent though a calendar expects it is missing, too.
    `COMPUTATION_ERROR`, the seventh, is the engine's.
    """
    need = lookback(*features.values())
    existing = bars.count(need)
    found = news.count()
    missing = bars.close.count(need) < existing
    if need > 1:
        missing |= bars.unbroken.count(need - 1) < bars.count(need - 1)
    return {
        "MISSING_OHLCV": missing,
        "INSUFFICIENT_OHLCV": existing < need,
        "NO_EVENTS": found == 0,
        "LOW_EVENT_COUNT": (found > 0) & (found < min_event_count),
        "LOW_SENTIMENT_CONFIDENCE": news.confidence.mean() < min_confidence,
        "TIMESTAMP_MISMATCH": (bars.grid_offset > 0) | (news.clock_skew.max() > 0),
    }
