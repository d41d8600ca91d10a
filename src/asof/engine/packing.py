"""The loops that pack results for Arrow. Compiled as the kernels are."""

import math

BLOCK = 512


def pack(values, bitmap, flags, error):
    """The validity bitmap of a feature: missing where it is not finite. Raises `error` for an infinite one, which becomes missing.

    Returns how many values are missing.
    """
    missing = 0
    for first in range(0, len(values), BLOCK):
        part = values[first : first + BLOCK]
        missing += pack_block(part, bitmap[first // 8 :], flags[first:], error)
    return missing


def pack_block(values, bitmap, flags, error):
    """`pack` for a few values, which mostly are all there."""
    others = 0
    for i in range(len(values)):
        others += values[i] - values[i] != 0.0
    if not others:
        for byte in range((len(values) + 7) // 8):
            bitmap[byte] = 255
        return 0
    missing = 0
    for byte in range((len(values) + 7) // 8):
        first = 8 * byte
        count = min(8, len(values) - first)
        valid = 0
        for k in range(count):
            valid |= (values[first + k] - values[first + k] == 0.0) << k
        bitmap[byte] = valid
        if valid != (1 << count) - 1:
            for i in range(first, first + count):
                if not math.isfinite(values[i]):
                    missing += 1
                    if values[i] == values[i]:
                        flags[i] |= error
                    values[i] = math.nan
    return missing


def list_flags(offsets, values, flags, bits):
    """Bitmasks as Arrow lists: where bit `bits[k]` of `flags[i]` is set, `k` is in `values[offsets[i]:offsets[i + 1]]`.

    Returns how many there are in all.
    """
    filled = 0
    offsets[0] = 0
    for i in range(len(flags)):
        if flags[i]:
            for k in range(len(bits)):
                if flags[i] >> bits[k] & 1:
                    values[filled] = k
                    filled += 1
        offsets[i + 1] = filled
    return filled
