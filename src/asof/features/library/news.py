"""Features of events, each a few lines of the language: how the tone fades, what is new and what repeats, and what is unusual.

A window is that of `events.window(...)`; `where`, which is a condition over its events, takes some of them: those of a category, say.
"""

from __future__ import annotations

from asof.features.expression import EventWindow, Expr, bars
from asof.features.expression import where as either
from asof.features.spoken import composed
from asof.operators.windows import LN2
from asof.timeframes import duration

HOUR = 3_600_000_000


def _only(where: Expr | None) -> dict[str, Expr]:
    return {} if where is None else {"where": where}


@composed
def fading_sentiment(news: EventWindow, half_life: str = "6h", where: Expr | None = None) -> Expr:
    """The mean score, an event weighing its confidence and half as much as one that is a `half_life` newer.

    The plain fading mean where all confidences are 0; missing when there is no event.
    """
    some = _only(where)
    weights = news.confidence.fading_sum(half_life, **some)
    weighted = (news.sentiment * news.confidence).fading_sum(half_life, **some)
    return either(weights > 0, weighted / weights, news.sentiment.fading_mean(half_life, **some))


@composed
def sentiment_pressure(news: EventWindow, half_life: str = "6h", where: Expr | None = None) -> Expr:
    """The sum of the scores as faded until the bar opens: many events weigh more than few. Missing when there is no event."""
    some = _only(where)
    half_lives = (bars.time - news.time.last(**some)) / duration(half_life)
    return news.sentiment.fading_sum(half_life, **some) * (half_lives * -LN2).exp()


@composed
def hours_since(news: EventWindow, where: Expr | None = None) -> Expr:
    """How many hours before the bar opened the newest event became known; missing when the window has none."""
    return (bars.time - news.time.last(**_only(where))) / HOUR


@composed
def repeats(news: EventWindow, where: Expr | None = None) -> Expr:
    """How many events say what another of the window said before, word by word; missing where an event has no hash of its text."""
    return news.count(**_only(where)) - news.text.distinct(**_only(where))


@composed
def novelty(news: EventWindow, where: Expr | None = None) -> Expr:
    """The share of different texts among the events: 1 where none repeats another, and where there is no event."""
    return news.text.distinct(**_only(where)).maximum(1) / news.count(**_only(where)).maximum(1)


@composed
def reposts(news: EventWindow) -> Expr:
    """How many events repeat another one, as their sources say (`is_repost`); 0 for none, and where no source says so."""
    return news.count(where=news.is_repost)


@composed
def surprise(x: Expr, n: int, least: float, min_count: int | None = None) -> Expr:
    """By how many of its own deviations x differs from its mean over the `n` bars before, this one left out.

    The deviation counts as `least` where it is less, for a quiet history would make a surprise of anything. `min_count` takes
    histories that lack some values.
    """
    before = x.lag(1)
    some = {} if min_count is None else {"min_count": min_count}
    return (x - before.mean(n, **some)) / before.std(n, **some).maximum(least)
