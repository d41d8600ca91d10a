"""Order books from level 2 updates: arrays in, arrays out.

A side is two arrays, its levels in the order of their prices with the best at the end, where most updates are: little has to be moved. The
updates of one id are applied together; then the best levels are copied out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from asof.engine.native import compile_loop

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

APPLIED, OLD, TOO_EARLY = 1, 0, -1
"""What became of an update: it made a book; the book had it already; it came before there was one."""


@dataclass
class Levels:
    """One instrument's book so far: `prices` and `sizes` of bids and of asks (asks by their negative prices), `count` of each."""

    prices: Floats = field(default_factory=lambda: np.zeros((2, 0)))
    sizes: Floats = field(default_factory=lambda: np.zeros((2, 0)))
    count: Ints = field(default_factory=lambda: np.zeros(2, np.int64))
    state: Ints = field(default_factory=lambda: np.zeros(3, np.int64))
    """The id of the last update, whether there is a book, and whether updates are missing."""

    def make_room(self, more: int) -> None:
        """For so many more levels on each side."""
        need = int(self.count.max()) + more
        if self.prices.shape[1] < need:
            self.prices, self.sizes = (np.pad(a, ((0, 0), (0, need - a.shape[1]))) for a in (self.prices, self.sizes))


@dataclass(frozen=True)
class Updates:
    """Updates of one instrument in the order they came; those of `rows[k]:rows[k + 1]` belong to update k.

    `side` is 0 for bids and 1 for asks; a `size` of 0 takes a level away. An update has all that changed since `first - 1`, and leaves the
    book at `last`; one that is `whole` is a snapshot, and one that is `broken` lacks a level.
    """

    side: Ints
    price: Floats
    size: Floats
    rows: Ints
    first: Ints
    last: Ints
    whole: Bools
    broken: Bools


@dataclass(frozen=True)
class Made:
    """For each update what became of it, its book's id and `gap`, and how many levels of each side; the levels of all, side by side."""

    became: Ints
    seq: Ints
    gap: Bools
    depth: Ints
    prices: Floats
    sizes: Floats


def books(levels: Levels, updates: Updates, depth: int) -> Made:
    """The books that updates make, `depth` levels deep; `levels` goes on to where they end."""
    levels.make_room(len(updates.price))
    n = len(updates.last)
    made = Made(
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.bool_),
        np.zeros((n, 2), np.int64),
        np.zeros((n, 2, depth)),
        np.zeros((n, 2, depth)),
    )
    _build(
        *(levels.prices, levels.sizes, levels.count, levels.state),
        *(updates.side, updates.price, updates.size, updates.rows, updates.first, updates.last, updates.whole, updates.broken),
        *(made.became, made.seq, made.gap, made.depth, made.prices, made.sizes),
    )
    return made


def _loop(prices, sizes, count, state, side, price, size, rows, first, last, whole, broken, became, seq, gap, depth, out_prices, out_sizes):
    """Go through the updates. Those from `held` on are kept for a snapshot, which may be older than they are."""
    held = 0
    for k in range(len(last)):
        sound = state[1] and not state[2]
        if (state[1] or whole[k]) and last[k] <= state[0] and (sound or not whole[k]):
            became[k] = OLD
            continue
        if not (state[1] or whole[k]):
            became[k] = TOO_EARLY
            continue
        if whole[k]:
            count[:] = 0
            state[0], state[1], state[2] = first[k] - 1, 1, 0
        elif sound:
            held = k
        _update(prices, sizes, count, state, side, price, size, rows, first, last, broken, k)
        if whole[k]:
            for j in range(held, k):
                if not whole[j] and last[j] > state[0]:
                    _update(prices, sizes, count, state, side, price, size, rows, first, last, broken, j)
                    became[j] = max(became[j], OLD)
            held = k + 1
        became[k], seq[k], gap[k] = APPLIED, state[0], state[2]
        _best(prices, sizes, count, depth[k], out_prices[k], out_sizes[k])


def _update(prices, sizes, count, state, side, price, size, rows, first, last, broken, k):
    """Apply one update; where others are missing before it, the book has a gap."""
    if first[k] > state[0] + 1 or broken[k]:
        state[2] = 1
    _apply(prices, sizes, count, side, price, size, rows[k], rows[k + 1])
    state[0] = last[k]


def _best(prices, sizes, count, depth, out_prices, out_sizes):
    """The best levels of both sides."""
    for s in range(2):
        depth[s] = min(count[s], out_prices.shape[1])
        for i in range(depth[s]):
            at = count[s] - 1 - i
            out_prices[s, i] = prices[s, at] if s == 0 else -prices[s, at]
            out_sizes[s, i] = sizes[s, at]


def _apply(prices, sizes, count, side, price, size, start, stop):
    """Put levels in, change them or take them away."""
    for row in range(start, stop):
        s = side[row]
        key = price[row] if s == 0 else -price[row]
        low, high = 0, count[s]
        while low < high:
            middle = (low + high) // 2
            if prices[s, middle] < key:
                low = middle + 1
            else:
                high = middle
        there = low < count[s] and prices[s, low] == key
        if size[row] == 0:
            if there:
                count[s] -= 1
                for i in range(low, count[s]):
                    prices[s, i] = prices[s, i + 1]
                    sizes[s, i] = sizes[s, i + 1]
            continue
        if not there:
            for i in range(count[s], low, -1):
                prices[s, i] = prices[s, i - 1]
                sizes[s, i] = sizes[s, i - 1]
            count[s] += 1
            prices[s, low] = key
        sizes[s, low] = size[row]


_build = compile_loop(_loop)
