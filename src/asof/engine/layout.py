"""Laying records out as a panel needs them: by instrument, then by time."""

from __future__ import annotations

import numpy as np

from asof.engine import finishing
from asof.engine.native import compile_loop
from asof.engine.panel import Ints

_lay_out = compile_loop(finishing.lay_out)
_list_flags = compile_loop(finishing.list_flags)
_hash_text = compile_loop(finishing.hash_text)
_carry_latest = compile_loop(finishing.carry_latest)
_group = compile_loop(finishing.group)


def offsets_of(codes: Ints, rank: Ints, ts: Ints) -> Ints | None:
    """Where each instrument begins, for rows of instruments `rank[codes]`; None unless sorted by it and strictly by time."""
    offsets = np.empty(len(rank) + 1, np.int64)
    return offsets if _lay_out(offsets, codes, rank, ts) else None


def order_of(codes: Ints, times: Ints) -> tuple[Ints, Ints]:
    """The order that sorts by code, then time; and those of its positions whose neighbours tie, which are in no set order."""
    order = np.empty(len(codes), np.int64)
    starts = np.zeros((int(codes.max()) if len(codes) else 0) + 2, np.int64)
    if not _group(order, starts, codes, times):  # events mostly come as they arrived, so sorting is the exception
        order = np.lexsort((times, codes))
    tied = (np.diff(times[order]) == 0) & (np.diff(codes[order]) == 0)
    return order, np.flatnonzero(np.append(tied, False) | np.append(False, tied)) if tied.any() else np.zeros(0, np.int64)


def flag_numbers(flags: Ints, bits: Ints) -> tuple[np.ndarray, np.ndarray]:
    """Bitmasks as the offsets and values of a list: `k` for every bit `bits[k]` that is set, in the order of `bits`."""
    offsets = np.empty(len(flags) + 1, np.int32)
    values = np.empty(len(flags) * len(bits), np.int8)
    filled = int(_list_flags(offsets, values, flags, bits))  # type: ignore[call-overload]
    return offsets, values[:filled].copy()


def surely_distinct(codes: Ints, offsets: np.ndarray, data: np.ndarray) -> bool:
    """Whether the pairs of code and text are all distinct; False may also mean that two of their hashes meet."""
    hashes = np.empty(len(codes), np.uint64)
    _hash_text(hashes, codes.astype(np.uint64), offsets, data)
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())


def known_since(known: Ints, offsets: Ints, lookback: int) -> Ints:
    """When each bar's vector can be known: as soon as the last of the `lookback` bars that it depends on is."""
    out = np.empty(len(known), np.int64)
    _carry_latest(out, known, offsets, lookback)
    return out
