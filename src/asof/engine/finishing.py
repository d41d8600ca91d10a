"""The loops around the operators: packing results for Arrow, and laying records out as a panel. Compiled as the kernels are."""

import math


def pack(values, bitmap, flags, error):
    """The validity bitmap of a feature: missing where it is not finite. Raises `error` for an infinite one, which becomes missing.

    Returns how many values are missing.
    """
    missing = 0
    for byte in range(len(bitmap)):
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


def lay_out(offsets, codes, rank, ts):
    """Fill `offsets` for rows whose instruments are `rank[codes]`; False unless they are sorted by instrument and strictly by time."""
    instrument = -1
    for i in range(len(codes)):
        new = rank[codes[i]]
        if new == instrument:
            if ts[i] <= ts[i - 1]:
                return False
        elif new < instrument:
            return False
        else:
            for k in range(instrument + 1, new + 1):
                offsets[k] = i
            instrument = new
    for k in range(instrument + 1, len(offsets)):
        offsets[k] = len(codes)
    return True


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


def hash_text(hashes, seeds, offsets, data):
    """A 64-bit hash (FNV-1a over words, finished by SplitMix64) of each string of an Arrow column, mixed with its seed."""
    for i in range(len(hashes)):
        h = (seeds[i] + 1) * 0x9E3779B97F4A7C15
        for k in range(offsets[i], offsets[i + 1]):
            h = (h ^ data[k]) * 0x100000001B3
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB
        hashes[i] = h ^ (h >> 31)


def carry_latest(out, known, offsets, lookback):
    """For each bar the latest time at which one of its last `lookback` bars became known: before it, a vector would tell the future."""
    for s in range(len(offsets) - 1):
        best = offsets[s]
        for i in range(offsets[s], offsets[s + 1]):
            if known[i] >= known[best]:
                best = i
            elif best <= i - lookback:
                best = i - lookback + 1
                for k in range(best + 1, i + 1):
                    if known[k] >= known[best]:
                        best = k
            out[i] = known[best]


def group(order, starts, codes, times):
    """Rows by code, in the order they come within each; False unless that leaves every code's rows sorted by time."""
    for i in range(len(codes)):
        starts[codes[i] + 1] += 1
    for k in range(1, len(starts)):
        starts[k] += starts[k - 1]
    fill = starts.copy()
    for i in range(len(codes)):
        k = codes[i]
        if fill[k] > starts[k] and times[order[fill[k] - 1]] > times[i]:
            return False
        order[fill[k]] = i
        fill[k] += 1
    return True
