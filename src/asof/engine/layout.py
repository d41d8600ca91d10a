"""Laying records out as a panel needs them: by instrument, then by time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asof.engine import ordering, packing
from asof.engine.native import compile_loop
from asof.engine.panel import Floats, Ints

_find_runs = compile_loop(ordering.find_runs)
_strictly_sorted = compile_loop(ordering.strictly_sorted)
_in_order = compile_loop(ordering.in_order)
_off_grid = compile_loop(ordering.off_grid)
_group = compile_loop(ordering.group)
_hash_text = compile_loop(ordering.hash_text)
_carry_latest = compile_loop(ordering.carry_latest)
_find_newest = compile_loop(ordering.find_newest)
_roll_up = compile_loop(ordering.roll_up)
_list_flags = compile_loop(packing.list_flags)

Spans = NDArray[np.int32]
Bytes = NDArray[np.uint8]


def runs(offsets: Spans, data: Bytes) -> Ints | None:
    """Where each run of equal strings begins; None where runs are short, and another way is quicker."""
    starts = np.empty(1024 + len(offsets) // 16, np.int64)
    found = int(_find_runs(starts, offsets, data))  # type: ignore[call-overload]
    return starts[:found] if found >= 0 else None


def is_sorted(offsets: Ints, ts: Ints) -> bool:
    """Whether the times of each instrument increase from row to row."""
    return bool(_strictly_sorted(offsets, ts))


def in_order(offsets: Ints, first: Ints, second: Ints, third: Ints) -> bool:
    """Whether the rows of each instrument are sorted by the first, then the second, then the third."""
    return bool(_in_order(offsets, first, second, third))


def off_grid(ts: Ints, step: int) -> Floats:
    """By how many microseconds each time is later than the last multiple of `step`."""
    out = np.empty(len(ts))
    _off_grid(out, ts, step)
    return out


def grouped(codes: Ints, times: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """The order that sorts by code, then time; where each of `count` codes begins in it; and those of its positions that tie.

    Positions that tie with a neighbour are in no set order.
    """
    order = np.empty(len(codes), np.int64)
    offsets = np.zeros(count + 1, np.int64)
    state = int(_group(order, offsets, codes, times))  # type: ignore[call-overload]
    if state == 2:  # events mostly come as they arrived, so sorting is the exception
        order = np.lexsort((times, codes))
    if state == 0:
        return order, offsets, np.zeros(0, np.int64)
    tied = (np.diff(times[order]) == 0) & (np.diff(codes[order]) == 0)
    return order, offsets, np.flatnonzero(np.append(tied, False) | np.append(False, tied))


def flag_numbers(flags: Ints, bits: Ints) -> tuple[np.ndarray, np.ndarray]:
    """Bitmasks as the offsets and values of a list: `k` for every bit `bits[k]` that is set, in the order of `bits`."""
    offsets = np.empty(len(flags) + 1, np.int32)
    values = np.empty(len(flags) * len(bits), np.int8)
    filled = int(_list_flags(offsets, values, flags, bits))  # type: ignore[call-overload]
    return offsets, values[:filled].copy()


def surely_distinct(codes: Ints, offsets: Spans, data: Bytes) -> bool:
    """Whether the pairs of code and text are all distinct; False may also mean that two of their hashes meet."""
    hashes = np.empty(len(codes), np.uint64)
    _hash_text(hashes, codes.astype(np.uint64), offsets, data)
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())


def newest_known(offsets: Ints, known: Ints, ends: Ints, available: Ints) -> Ints:
    """For each bar, known at `known`, the row of the newest of other bars that was available by then; -1 where there is none.

    Bars and other bars are of the same instruments in the same order, which begin at `offsets` and at `ends`.
    """
    order = np.lexsort((available, np.repeat(np.arange(len(ends) - 1), np.diff(ends))))
    out = np.empty(len(known), np.int64)
    _find_newest(out, offsets, known, ends, available[order], np.maximum.accumulate(order))  # rows of later instruments are larger
    return out


def known_since(known: Ints, offsets: Ints, lookback: int) -> Ints:
    """When each bar's vector can be known: as soon as the last of the `lookback` bars that it depends on is."""
    out = np.empty(len(known), np.int64)
    _carry_latest(out, known, offsets, lookback)
    return out


def rolled_up(columns: tuple[Floats, ...], starts: Ints) -> Floats:
    """Open, high, low, close and volume of bars as those of longer ones, which begin at the rows `starts`; a row for each column."""
    out = np.empty((len(columns), len(starts)))
    _roll_up(out, columns, np.append(starts, len(columns[0])))
    return out
