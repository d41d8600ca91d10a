"""The loops around the operators: cutting event windows, raising flags, packing results for Arrow. Compiled as the kernels are."""

import math


def cut_windows(low, high, offsets, ts, event_offsets, event_time, length):
    """For each bar: the first event at or after `ts - length`, and the first after `ts`. Bars and events are sorted by time."""
    for s in range(len(offsets) - 1):
        a = event_offsets[s]
        b = a
        end = event_offsets[s + 1]
        for i in range(offsets[s], offsets[s + 1]):
            while b < end and event_time[b] <= ts[i]:
                b += 1
            while a < b and event_time[a] < ts[i] - length:
                a += 1
            low[i] = a
            high[i] = b


def raise_flag(flags, values, bit):
    """Set `bit` where the value is true; a missing one, or an error, raises nothing."""
    for i in range(len(flags)):
        if values[i] != 0.0 and math.isfinite(values[i]):
            flags[i] |= bit


def pack_column(out, bitmap, values, flags, error):
    """Copy a feature, missing where it is not finite, with its validity bitmap; raise `error` for an infinite one.

    Returns how many values are missing.
    """
    missing = 0
    for i in range(len(out)):
        value = values[i]
        if math.isfinite(value):
            out[i] = value
            bitmap[i >> 3] |= 1 << (i & 7)
        else:
            missing += 1
            out[i] = math.nan
            if value == value:
                flags[i] |= error
    return missing
