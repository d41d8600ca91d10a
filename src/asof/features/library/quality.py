"""The quality flags that every shipped feature set raises."""

from asof.features.expression import EventWindow, Expr, bars, lookback

PRICES = (bars.open, bars.high, bars.low, bars.close)


def absent(need: int, columns: tuple[Expr, ...]) -> Expr:
    """Whether one of the last `need` bars has no value in a column, or is absent though the instrument's calendar expects it."""
    found = columns[0].count(need) < bars.count(need)
    for column in columns[1:]:
        found |= column.count(need) < bars.count(need)
    if need > 1:
        found |= bars.unbroken.count(need - 1) < bars.count(need - 1)
    return found


def bar_flags(features: dict[str, Expr]) -> dict[str, Expr]:
    """The flags of the contract for features over bars alone. The bars looked at are those of the features' own lookback."""
    need = lookback(*features.values())
    return {
        "MISSING_OHLCV": absent(need, PRICES),
        "INSUFFICIENT_OHLCV": bars.count(need) < need,
        "TIMESTAMP_MISMATCH": bars.grid_offset > 0,
    }


def quality_flags(features: dict[str, Expr], news: EventWindow, min_event_count: int = 3, min_confidence: float = 0.5) -> dict[str, Expr]:
    """The six flags of the contract that are expressions, for features over closes and one event window.

    The bars looked at are those of the features' own lookback; one that is absent though a calendar expects it is missing, too.
    `COMPUTATION_ERROR`, the seventh, is the engine's.
    """
    need = lookback(*features.values())
    found = news.count()
    return {
        "MISSING_OHLCV": absent(need, (bars.close,)),
        "INSUFFICIENT_OHLCV": bars.count(need) < need,
        "NO_EVENTS": found == 0,
        "LOW_EVENT_COUNT": (found > 0) & (found < min_event_count),
        "LOW_SENTIMENT_CONFIDENCE": news.confidence.mean() < min_confidence,
        "TIMESTAMP_MISMATCH": (bars.grid_offset > 0) | (news.clock_skew.max() > 0),
    }
