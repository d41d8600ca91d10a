"""Exact sums of many windows at once, from running totals that are exact themselves.

A running total of floats depends on where it began; one of whole numbers does not. The values of a morsel are written as whole numbers
of 96 bits, in three limbs of 32, scaled to the largest of them. Where each value fits (it nearly always does), a window's sum is the
difference of two totals, rounded once; where one does not, or a window is too long for the limbs, the kernel adds the window up.
"""

import math

import numpy as np

from asof.operators.sums import LIMB, rounded_limbs

LONGEST = 1 << 21
"""Events of the longest window whose highest limb, as a float, is exact."""


def running_totals(totals, x):
    """Fill the three rows of `totals`, one longer than `x`; the scale of the lowest limb, or 0 where a value does not fit."""
    largest = 0.0
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
    exponent = math.frexp(largest)[1]
    if not -900 < exponent < 900:
        return 0.0
    scale = math.ldexp(1.0, 32 - exponent)
    unfit = 0
    high_total, middle_total, low_total = np.int64(0), np.int64(0), np.int64(0)
    for row in range(3):
        totals[row, 0] = 0
    for i in range(len(x)):
        scaled = x[i] * scale
        high = math.trunc(scaled)
        rest = (scaled - high) * LIMB
        middle = math.trunc(rest)
        rest = (rest - middle) * LIMB
        low = math.trunc(rest)
        unfit |= (rest != low) | ((scaled == 0.0) & (x[i] != 0.0))
        high_total += high
        middle_total += middle
        low_total += low
        totals[0, i + 1], totals[1, i + 1], totals[2, i + 1] = high_total, middle_total, low_total
    return 0.0 if unfit else math.ldexp(1.0, exponent - 96)


def rounded_difference(totals, a, b):
    """The sum of values `a` to `b` in units of the lowest limb, rounded once."""
    return rounded_limbs(totals[0, b] - totals[0, a], totals[1, b] - totals[1, a], totals[2, b] - totals[2, a])
