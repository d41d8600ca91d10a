"""Exact sums without room for the parts: what they are in whole numbers, where the values fit, rounded once."""

import math

from asof.operators.windows import total

LIMB = 4294967296.0
MASK = 0xFFFFFFFF


def exact_sum(x):
    """The exact sum of the values, rounded once, whatever their order.

    Infinite where one of them is not finite. They are written as whole numbers of 96 bits, in three limbs of 32, scaled to the largest of
    them. Where one does not fit, which is rare, `total` adds them up.
    """
    largest, off = 0.0, 0.0
    for i in range(len(x)):
        largest = max(largest, abs(x[i]))
        off += x[i] - x[i]
    if off != 0.0:
        return math.inf
    exponent = math.frexp(largest)[1]
    if not -900 < exponent < 900 or len(x) >= 2097152:
        return total(x)
    scale = math.ldexp(1.0, 32 - exponent)
    unfit = False
    highs, middles, lows = 0, 0, 0
    for i in range(len(x)):
        scaled = x[i] * scale
        high = math.trunc(scaled)
        rest = (scaled - high) * LIMB
        middle = math.trunc(rest)
        rest = (rest - middle) * LIMB
        low = math.trunc(rest)
        unfit |= (rest != low) | ((scaled == 0.0) & (x[i] != 0.0))
        highs += high
        middles += middle
        lows += low
    return total(x) if unfit else rounded_limbs(highs, middles, lows) * math.ldexp(1.0, exponent - 96)


def rounded_limbs(high, middle, low):
    """The sum of three limbs in units of the lowest, rounded once: each of the two floats that are added is exact."""
    middle += low >> 32
    high += middle >> 32
    low &= MASK
    middle &= MASK
    if -2097152 <= high < 2097152:
        return float(high * 4294967296 + middle) * LIMB + float(low)
    below = 0.5 if low else 0.0  # what is below the middle limb is below half of the last place: only that it is there matters
    return (float(high) * LIMB + (float(middle) + below)) * LIMB
