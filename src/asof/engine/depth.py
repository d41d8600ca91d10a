"""Columns of order books: what their levels come to, a number for each book. Arrays in, arrays out.

The levels of a side lie end to end, the best first, those of book `i` from `begins[i]` to `begins[i + 1]`. A book that is too short for
what is asked has no value.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asof.engine.native import compile_loop

Floats = NDArray[np.float64]
Begins = NDArray[np.int32]


def pick_level(out: Floats, begins: Begins, values: Floats, n: int) -> None:
    """The value of the `n`th level."""
    for i in range(len(out)):
        place = begins[i] + n - 1
        out[i] = values[place] if place < begins[i + 1] else math.nan


def add_levels(out: Floats, begins: Begins, values: Floats, n: int) -> None:
    """The sum of the first `n` levels, the best first."""
    for i in range(len(out)):
        first = begins[i]
        if first + n > begins[i + 1]:
            out[i] = math.nan
            continue
        total = values[first]
        for place in range(first + 1, first + n):
            total += values[place]
        out[i] = total


def mean_price(out: Floats, begins: Begins, prices: Floats, sizes: Floats, wanted: float) -> None:
    """The mean price of `wanted`, taken from the best level on."""
    for i in range(len(out)):
        rest, paid = wanted, 0.0
        for place in range(begins[i], begins[i + 1]):
            taken = min(rest, sizes[place])
            paid += taken * prices[place]
            rest -= taken
            if rest <= 0.0:
                break
        out[i] = paid / wanted if rest <= 0.0 else math.nan


_pick_level = compile_loop(pick_level)
_add_levels = compile_loop(add_levels)
_mean_price = compile_loop(mean_price)


def level(begins: Begins, values: Floats, n: int) -> Floats:
    """The value of the `n`th level of each book, NaN where there are fewer."""
    out = np.empty(len(begins) - 1)
    _pick_level(out, begins, values, n)
    return out


def depth(begins: Begins, sizes: Floats, n: int) -> Floats:
    """The sum of the sizes of the first `n` levels of each book, NaN where there are fewer."""
    out = np.empty(len(begins) - 1)
    _add_levels(out, begins, sizes, n)
    return out


def vwap_to_depth(begins: Begins, prices: Floats, sizes: Floats, wanted: float) -> Floats:
    """The mean price of an amount above 0, taken from the best level of each book on, NaN where it has less."""
    out = np.empty(len(begins) - 1)
    _mean_price(out, begins, prices, sizes, wanted)
    return out
