"""`book_v1` of one instrument in plain Python, from the definitions: loops over lists, and nothing shared with the engine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Answer = float | None
MINUTE, TEN_SECONDS = 60_000_000, 10_000_000


class Instrument:
    """The points of one instrument, as canonical rows, in the order in which they became known."""

    def __init__(self, trades: Sequence[Row], quotes: Sequence[Row], books: Sequence[Row]) -> None:
        self.trades, self.quotes, self.books = (_ordered(rows) for rows in (trades, quotes, books))
        self.mids = [_mid(q["bid"], q["ask"]) for q in self.quotes]
        self.signs = self._signs()
        self.flows = [self._flow(k) for k in range(len(self.quotes))]

    def prevailing(self, moment: int) -> Answer:
        """The middle of the last quote before a moment, at most ten seconds old."""
        before = _before(self.quotes, moment)
        if not before or moment - self.quotes[before - 1]["known"] > TEN_SECONDS:
            return None
        return self.mids[before - 1]

    def _signs(self) -> list[Answer]:
        """Lee and Ready, where the source does not say."""
        found: list[Answer] = []
        other: int | None = None  # the last trade before at another price
        for k, trade in enumerate(self.trades):
            if k and self.trades[k - 1]["price"] != trade["price"]:
                other = k - 1
            tick: Answer = None
            if other is not None and trade["known"] - self.trades[other]["known"] <= MINUTE:
                tick = math.copysign(1.0, trade["price"] - self.trades[other]["price"])
            mid = self.prevailing(trade["known"])
            if trade["side"] is not None:
                found.append(trade["side"])
            elif mid is None or trade["price"] == mid:
                found.append(tick)
            else:
                found.append(1.0 if trade["price"] > mid else -1.0)
        return found

    def _flow(self, k: int) -> Answer:
        """The order flow of one quote, against the one before."""
        if not k or self.quotes[k]["known"] - self.quotes[k - 1]["known"] > MINUTE:
            return None
        now, old = self.quotes[k], self.quotes[k - 1]
        if any(quote[name] is None for quote in (now, old) for name in ("bid", "bid_size", "ask", "ask_size")):
            return None
        flow = 0.0
        flow += now["bid_size"] if now["bid"] >= old["bid"] else 0.0
        flow -= old["bid_size"] if now["bid"] <= old["bid"] else 0.0
        flow -= now["ask_size"] if now["ask"] <= old["ask"] else 0.0
        flow += old["ask_size"] if now["ask"] >= old["ask"] else 0.0
        return flow

    def vector(self, close: int) -> dict[str, Answer]:
        """The features of a bar that closes then, but for `amihud_20`."""
        return self._of_quotes(close) | self._of_books(close) | self._of_trades(close)

    def _of_quotes(self, close: int) -> dict[str, Answer]:
        inside, short = _within(self.quotes, close, MINUTE), _within(self.quotes, close, TEN_SECONDS)
        last: Row = self.quotes[inside[-1]] if inside else dict.fromkeys(("bid", "bid_size", "ask", "ask_size"))
        bid, bid_size, ask, ask_size = last["bid"], last["bid_size"], last["ask"], last["ask_size"]
        both = bid is not None and ask is not None
        sized = bid_size is not None and ask_size is not None
        mid = (bid + ask) / 2 if both else None
        spreads = [(self.quotes[k]["ask"] - self.quotes[k]["bid"], self.mids[k]) for k in inside if self.mids[k] is not None]
        changes = [
            math.log(self.mids[k] / self.mids[k - 1])  # type: ignore[operator]
            for k in inside
            if k and None not in (self.mids[k], self.mids[k - 1]) and self.quotes[k]["known"] - self.quotes[k - 1]["known"] <= MINUTE
        ]
        return {
            "mid": mid,
            "spread": ask - bid if both else None,
            "relative_spread": (ask - bid) / mid if mid is not None else None,
            "microprice": (bid * ask_size + ask * bid_size) / (bid_size + ask_size) if both and sized else None,
            "quote_imbalance": (bid_size - ask_size) / (bid_size + ask_size) if sized else None,
            "spread_mean_1m": _mean([s for s, _ in spreads]),
            "relative_spread_mean_1m": _mean([s / m for s, m in spreads if m is not None]),
            "quote_count_1m": float(len(inside)),
            "realised_volatility_1m": math.sqrt(math.fsum(c * c for c in changes)) if changes else None,
            "order_flow_imbalance_10s": math.fsum(self.flows[k] or 0.0 for k in short),
            "order_flow_imbalance_1m": math.fsum(self.flows[k] or 0.0 for k in inside),
        }

    def _of_books(self, close: int) -> dict[str, Answer]:
        inside = [self.books[k] for k in _within(self.books, close, MINUTE)]
        last = inside[-1] if inside else {"bid_prices": [], "bid_sizes": [], "ask_prices": [], "ask_sizes": []}
        depths = [(sum(book["bid_sizes"][:5]), sum(book["ask_sizes"][:5])) for book in (*inside, last) if _deep(book)]
        imbalances = [(b - a) / (b + a) for b, a in depths]
        return {
            "imbalance_5": imbalances[-1] if _deep(last) else None,
            "depth_5": sum(depths[-1]) if _deep(last) else None,
            "vwap_to_buy": _cost(last["ask_prices"], last["ask_sizes"]),
            "vwap_to_sell": _cost(last["bid_prices"], last["bid_sizes"]),
            "imbalance_mean_5_1m": _mean([i for i, book in zip(imbalances, filter(_deep, inside), strict=False) if book]),
        }

    def _of_trades(self, close: int) -> dict[str, Answer]:
        inside, short = _within(self.trades, close, MINUTE), _within(self.trades, close, TEN_SECONDS)
        size, price = ([self.trades[k][name] for k in range(len(self.trades))] for name in ("size", "price"))
        flow = {k: (self.signs[k] or 0.0) * size[k] for k in inside}
        change = {k: price[k] - price[k - 1] for k in inside if k and self.trades[k]["known"] - self.trades[k - 1]["known"] <= MINUTE}
        earlier = {k + 1: c for k, c in self._changes(inside).items()}
        pairs = [(change[k], earlier[k]) for k in change if k in earlier]
        means = [_mean([pair[n] for pair in pairs]) or 0.0 for n in (0, 1)]
        covariance = _mean([(a - means[0]) * (b - means[1]) for a, b in pairs])
        impact = [(change[k], flow[k]) for k in change if self.signs[k] is not None]
        weight = math.fsum(f * f for _, f in impact)
        spreads = [2 * abs(price[k] - mid) for k in inside if (mid := self.prevailing(self.trades[k]["known"])) is not None]
        volume = math.fsum(size[k] for k in inside)
        return {
            "trade_count_1m": float(len(inside)),
            "volume_1m": volume,
            "vwap_1m": math.fsum(size[k] * price[k] for k in inside) / volume if inside else None,
            "signed_volume_10s": math.fsum((self.signs[k] or 0.0) * size[k] for k in short),
            "signed_volume_1m": math.fsum(flow.values()),
            "vpin_1m": _toxicity([(self.signs[k] or 0.0, size[k]) for k in inside], 10),
            "kyle_lambda_1m": math.fsum(c * f for c, f in impact) / weight if weight else None,
            "effective_spread_1m": _mean(spreads),
            "roll_spread_1m": None if covariance is None else 2 * math.sqrt(max(0.0, -covariance)),
        }

    def _changes(self, inside: list[int]) -> dict[int, float]:
        """The change of each trade before one of the window, where the one before is near enough."""
        found = {}
        for k in {j - 1 for j in inside}:
            near = k > 0 and self.trades[k]["known"] - self.trades[k - 1]["known"] <= MINUTE
            if near and self.trades[k + 1]["known"] - self.trades[k]["known"] <= MINUTE:
                found[k] = self.trades[k]["price"] - self.trades[k - 1]["price"]
        return found

    def flags(self, close: int) -> set[str]:
        """Those that are about trades, quotes and books."""
        quotes = [self.quotes[k] for k in _within(self.quotes, close, MINUTE)]
        books = [self.books[k] for k in _within(self.books, close, MINUTE)]
        tops = [(q["bid"], q["ask"]) for q in quotes]
        tops += [(b["bid_prices"][0], b["ask_prices"][0]) for b in books if b["bid_prices"] and b["ask_prices"]]
        found = {"NO_QUOTES"} if not quotes else set()
        found |= {"NO_BOOKS"} if not books else set()
        found |= {"NO_TRADES"} if not _within(self.trades, close, MINUTE) else set()
        found |= {"CROSSED_BOOK"} if any(None not in top and top[0] > top[1] for top in tops) else set()
        found |= {"BOOK_GAP"} if any(book["gap"] for book in books) else set()
        short = books and (not _deep(books[-1]) or None in (self._of_books(close)["vwap_to_buy"], self._of_books(close)["vwap_to_sell"]))
        return found | ({"SHORT_BOOK"} if short else set())


def amihud(bars: Sequence[Row], trades: Sequence[Row], step: int, n: int = 20) -> list[Answer]:
    """For each bar the mean of |return| / value over the last `n`, the value that of the minute before its close; None at first."""
    ratios: list[float] = []
    for old, new in itertools.pairwise(bars):
        close = _micros(new["ts"]) + step
        value = math.fsum(t["price"] * t["size"] for t in trades if close - MINUTE <= _micros(t["available_at"] or t["ts"]) < close)
        ratios.append(abs(new["close"] / old["close"] - 1) / value)
    return [None] * n + [_mean(ratios[k - n : k]) for k in range(n, len(bars))]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    timed = [row | {"known": _micros(row["available_at"] or row["ts"]), "happened": _micros(row["ts"])} for row in rows]
    return sorted(timed, key=lambda row: (row["known"], row["happened"], row["seq"]))


def _micros(moment: Any) -> int:
    return round(moment.timestamp() * 1_000_000)


def _before(rows: list[Row], moment: int) -> int:
    """How many rows became known before a moment."""
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if rows[middle]["known"] < moment else (low, middle)
    return low


def _within(rows: list[Row], close: int, length: int) -> list[int]:
    return list(range(_before(rows, close - length), _before(rows, close)))


def _mid(bid: Answer, ask: Answer) -> Answer:
    return None if bid is None or ask is None else (bid + ask) / 2


def _mean(values: list[float]) -> Answer:
    return math.fsum(values) / len(values) if values else None


def _deep(book: Row) -> bool:
    return len(book["bid_sizes"]) >= 5 and len(book["ask_sizes"]) >= 5


def _cost(prices: list[float], sizes: list[float], amount: float = 1.0) -> Answer:
    rest, paid = amount, 0.0
    for price, size in zip(prices, sizes, strict=True):
        paid += price * min(rest, size)
        rest -= min(rest, size)
    return paid / amount if rest <= 0 else None


def _toxicity(signed: list[tuple[float, float]], n: int) -> Answer:
    """The edges of `n` equal parts of the volume, and what each trade has in each."""
    volume = math.fsum(size for _, size in signed)
    if not signed:
        return None
    parts, start = [0.0] * n, 0.0
    for sign, size in signed:
        for k in range(max(0, int(start / volume * n) - 1), n):
            low, high = volume * k / n, volume * (k + 1) / n
            if low >= start + size:
                break
            parts[k] += sign * max(0.0, min(high, start + size) - max(low, start))
        start += size
    return math.fsum(map(abs, parts)) / volume
