"""Windows over the market: trades, quotes and order books, with what is made of one of them alone.

A window ends at the close of the bar and leaves it out: a point that becomes known at that moment is the next bar's. What is made of
several points, or of several streams, is in `asof.features.library.microstructure`.
"""

from __future__ import annotations

from typing import ClassVar

from asof.errors import DefinitionError
from asof.features.expression import Expr, Number, PointWindow, as_no_expression, column
from asof.features.spoken import spoken
from asof.features.streams import BOOKS, LONGEST_LEVEL, QUOTES, TRADES, VWAP_TO_DEPTH, last, window


class TradeWindow(PointWindow):
    """The trades that became known within a duration before each bar's close."""

    made: ClassVar[tuple[str, ...]] = ("count", "value")

    @property
    def value(self) -> Expr:
        """What was paid: price times size."""
        return self.price * self.size


class TwoSided(PointWindow):
    """What follows from a best bid and a best ask. All of it is missing where a side is empty.

    A crossed quote (a bid above the ask) is taken as it is: its spread is negative. A locked one has a spread of 0.
    """

    made: ClassVar[tuple[str, ...]] = ("count", "crossed", "imbalance", "microprice", "mid", "relative_spread", "spread")

    @property
    def mid(self) -> Expr:
        """The middle between bid and ask."""
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> Expr:
        """The ask less the bid: the quoted spread."""
        return self.ask - self.bid

    @property
    def relative_spread(self) -> Expr:
        """The spread as a share of the middle."""
        return self.spread / self.mid

    @property
    def microprice(self) -> Expr:
        """The middle, weighted by the size of the other side: (bid * ask_size + ask * bid_size) / (bid_size + ask_size).

        Gatheral and Oomen 2010, "Zero-intelligence realized variance estimation".
        """
        return (self.bid * self.ask_size + self.ask * self.bid_size) / (self.bid_size + self.ask_size)

    @property
    def crossed(self) -> Expr:
        """1 where the bid is above the ask, else 0."""
        return self.bid > self.ask


class QuoteWindow(TwoSided):
    """The quotes that became known within a duration before each bar's close: the best bid and offer as they are after each."""

    @property
    def imbalance(self) -> Expr:
        """(bid_size - ask_size) / (bid_size + ask_size), -1 to 1.

        Cao, Hansch and Wang 2009, "The information content of an open limit-order book".
        """
        return (self.bid_size - self.ask_size) / (self.bid_size + self.ask_size)


@spoken
class BookWindow(TwoSided):
    """The order books that became known within a duration before each bar's close, each as it is after an update."""

    made: ClassVar[tuple[str, ...]] = (*TwoSided.made, "bid", "bid_size", "ask", "ask_size", "depth", "vwap_to_depth")

    @property
    def bid(self) -> Expr:
        """The best bid."""
        return self.bid_price(1)

    @property
    def ask(self) -> Expr:
        """The best ask."""
        return self.ask_price(1)

    def bid_price(self, n: int) -> Expr:
        """The price of the `n`th best bid, the best being the first; missing where there are fewer."""
        return self._level("bid_price", n)

    def ask_price(self, n: int) -> Expr:
        """The price of the `n`th best ask; missing where there are fewer."""
        return self._level("ask_price", n)

    def bid_size(self, n: int = 1) -> Expr:
        """The size of the `n`th best bid; missing where there are fewer."""
        return self._level("bid_size", n)

    def ask_size(self, n: int = 1) -> Expr:
        """The size of the `n`th best ask; missing where there are fewer."""
        return self._level("ask_size", n)

    def bid_depth(self, n: int) -> Expr:
        """The sum of the sizes of the `n` best bids; missing where there are fewer."""
        return self._level("bid_depth", n)

    def ask_depth(self, n: int) -> Expr:
        """The sum of the sizes of the `n` best asks; missing where there are fewer."""
        return self._level("ask_depth", n)

    def depth(self, n: int) -> Expr:
        """The sum of the sizes of the `n` best levels of both sides; missing where a side has fewer."""
        return self.bid_depth(n) + self.ask_depth(n)

    def imbalance(self, n: int = 1) -> Expr:
        """(bid_depth - ask_depth) / (bid_depth + ask_depth) of `n` levels, -1 to 1; missing where a side has fewer.

        Cao, Hansch and Wang 2009, "The information content of an open limit-order book".
        """
        return (self.bid_depth(n) - self.ask_depth(n)) / (self.bid_depth(n) + self.ask_depth(n))

    @property
    def microprice(self) -> Expr:
        """As for quotes, of the best level."""
        sizes = self.bid_size(1), self.ask_size(1)
        return (self.bid * sizes[1] + self.ask * sizes[0]) / (sizes[0] + sizes[1])

    def vwap_to_depth(self, size: Number) -> Expr:
        """The mean price at which `size` could be bought at once, or sold where it is negative; missing where the book is too short."""
        if isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 < abs(size) < 1e300:
            raise DefinitionError(f"vwap_to_depth({size!r}) must be of an amount: above 0 to buy, below 0 to sell")
        return column(VWAP_TO_DEPTH, self.domain, float(size))

    def _level(self, name: str, n: int) -> Expr:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LONGEST_LEVEL:
            raise DefinitionError(f"{name}({n!r}) must be of a level from 1 to {LONGEST_LEVEL:,}, the best being the first")
        return column(name, self.domain, n)


@spoken
@as_no_expression
class Trades:
    """The trades of an instrument."""

    def window(self, length: str) -> TradeWindow:
        """The trades of the last `length` (such as `"1m"`) before the bar's close, which is left out."""
        return TradeWindow(window(TRADES, length))

    def last(self, most: int, within: str = "1d") -> TradeWindow:
        """The newest `most` trades of those `within` a duration before the bar's close, fewer where there are fewer."""
        return TradeWindow(last(TRADES, most, within))


@spoken
@as_no_expression
class Quotes:
    """The quotes of an instrument."""

    def window(self, length: str) -> QuoteWindow:
        """The quotes of the last `length` before the bar's close, which is left out."""
        return QuoteWindow(window(QUOTES, length))

    def last(self, most: int, within: str = "1d") -> QuoteWindow:
        """The newest `most` quotes of those `within` a duration before the bar's close, fewer where there are fewer."""
        return QuoteWindow(last(QUOTES, most, within))


@spoken
@as_no_expression
class Books:
    """The order books of an instrument."""

    def window(self, length: str) -> BookWindow:
        """The books of the last `length` before the bar's close, which is left out."""
        return BookWindow(window(BOOKS, length))

    def last(self, most: int, within: str = "1d") -> BookWindow:
        """The newest `most` books of those `within` a duration before the bar's close, fewer where there are fewer."""
        return BookWindow(last(BOOKS, most, within))


trades = Trades()
quotes = Quotes()
books = Books()
