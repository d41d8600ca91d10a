"""Streams of points: what happens between bars, and the windows in which expressions see it.

An event, a trade, a quote and an order book are points: each happens at one moment, and may become known at a later one. A window is cut by
when its points became known. Where it ends is a matter of its stream: those of events at the open of the bar, its open included, those
of the market at the close of the bar, which is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from asof.errors import DefinitionError
from asof.timeframes import duration, duration_text

EVENTS, TRADES, QUOTES, BOOKS = "events", "trades", "quotes", "books"

TIME = "time"
"""The column of every stream that tells when a point became known."""

EVENT_COLUMNS = {
    "sentiment": "sentiment score, -1 to 1",
    "confidence": "confidence of the score, 0 to 1",
    "clock_skew": "microseconds by which the event claims to have happened after it was enriched; 0 where it does not",
    TIME: "when the event became known, in microseconds since 1970",
    "text": "a number that tells its text from others, made of its hash; missing where the source gives none",
    "is_repost": "1 where the source says that the event repeats another one, 0 where it says not; else missing",
}
"""What a scored event offers. Beside these there are texts, which can be compared: `asof.features.event_text`."""

TRADE_COLUMNS = {
    "price": "price of the trade",
    "size": "how much was traded",
    "side": "1 where the buyer was the aggressor, -1 where the seller was, missing where the source does not say",
    TIME: "when the trade became known, in microseconds since 1970",
}
"""What a trade offers."""

QUOTE_COLUMNS = {
    "bid": "best bid; missing where nobody bids",
    "bid_size": "how much is bid for there; missing with the bid, and where the source says 0 or nothing",
    "ask": "best ask; missing where nobody offers",
    "ask_size": "how much is offered there; missing as the bid's",
    TIME: "when the quote became known, in microseconds since 1970",
}
"""What a quote offers: the best bid and offer as they are after it."""

BOOK_COLUMNS = {
    "gap": "1 where updates before this book are known to be lost, else 0",
    TIME: "when the book became known, in microseconds since 1970",
}
"""What an order book offers without being asked for a level."""

LEVEL_COLUMNS = {
    "bid_price": "price of the `n`th best bid; missing where there are fewer",
    "bid_size": "size of the `n`th best bid",
    "ask_price": "price of the `n`th best ask",
    "ask_size": "size of the `n`th best ask",
    "bid_depth": "sum of the sizes of the `n` best bids; missing where there are fewer",
    "ask_depth": "sum of the sizes of the `n` best asks",
}
"""What an order book offers of its first `n` levels, the best being the first."""

VWAP_TO_DEPTH = "vwap_to_depth"
"""The column of an order book that tells at what mean price an amount could be bought, or sold where it is negative."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    EVENTS: EVENT_COLUMNS,
    TRADES: TRADE_COLUMNS,
    QUOTES: QUOTE_COLUMNS,
    BOOKS: BOOK_COLUMNS,
}
"""Every stream of points, with its columns."""

STREAMS = tuple(COLUMNS)
MARKET = (TRADES, QUOTES, BOOKS)
"""The streams whose windows end at the close of the bar."""

MOST_POINTS = 1_000_000
"""The most points that a window can be told to hold."""
LONGEST_LEVEL = 1_000


class Window(NamedTuple):
    """The points of a stream within `length` microseconds before the end of a window; of those the newest `most`, where it is not 0."""

    stream: str
    length: int
    most: int = 0

    @property
    def text(self) -> str:
        """How a definition writes it."""
        if self.most:
            return f'{self.stream}.last({self.most}, within="{duration_text(self.length)}")'
        return f'{self.stream}.window("{duration_text(self.length)}")'

    @property
    def rows(self) -> str:
        """What a message calls its rows."""
        return f"{self.stream} of {duration_text(self.length)}" if self.length else self.stream


def window(stream: str, length: str) -> Window:
    """All points within a duration such as `"1h"`."""
    return Window(stream, duration(length))


def last(stream: str, most: object, within: str) -> Window:
    """The newest `most` points within a duration. Raises `DefinitionError` for what is no such number."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_POINTS:
        raise DefinitionError(f"{stream}.last({most!r}) must be of a whole number from 1 to {MOST_POINTS:,}")
    return Window(stream, duration(within), most)


class Reach(NamedTuple):
    """How far back vectors see the points of a stream: `length` microseconds before the end of a bar's window, of the last `bars` bars."""

    length: int
    bars: int

    def __or__(self, other: Reach) -> Reach:
        return Reach(max(self.length, other.length), max(self.bars, other.bars))


NOWHERE: Mapping[str, Reach] = {}


def together(*reaches: Mapping[str, Reach]) -> dict[str, Reach]:
    """What reaches as far as each of them."""
    found: dict[str, Reach] = {}
    for reach in reaches:
        for stream, one in reach.items():
            found[stream] = found[stream] | one if stream in found else one
    return found


def further(reaches: Mapping[str, Reach], length: int = 0, bars: int = 0) -> dict[str, Reach]:
    """What reaches further back by so much."""
    return {stream: Reach(one.length + length, one.bars + bars) for stream, one in reaches.items()}
