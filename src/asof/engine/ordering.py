"""The loops that lay records out as a panel: by instrument, then by time. Compiled as the kernels are."""

import math

STRETCH = 256


def all_alike(offsets, data, first, last):
    """Whether the strings `first` to `last` are all the same as the one before them."""
    ends = offsets[first - 1 : last + 1]
    length = ends[1] - ends[0]
    others = 0
    for i in range(1, len(ends) - 1):
        others += ends[i + 1] - ends[i] != length
    if others:
        return False
    mine, before = data[ends[1] : ends[-1]], data[ends[0] : ends[-2]]
    for i in range(len(mine)):
        others += mine[i] != before[i]
    return others == 0


def find_runs(starts, offsets, data):
    """Where each run of equal strings of an Arrow column begins; how many there are, or -1 where `starts` has no room for them."""
    starts[0] = 0
    count = 1
    for first in range(1, len(offsets) - 1, STRETCH):
        last = min(first + STRETCH, len(offsets) - 1)
        if all_alike(offsets, data, first, last):
            continue
        for i in range(first, last):
            if not all_alike(offsets, data, i, i + 1):
                if count == len(starts):
                    return -1
                starts[count] = i
                count += 1
    return count


def strictly_sorted(offsets, ts):
    """Whether the times of each instrument increase from row to row."""
    for s in range(len(offsets) - 1):
        wrong = 0
        for i in range(offsets[s] + 1, offsets[s + 1]):
            wrong += ts[i] <= ts[i - 1]
        if wrong:
            return False
    return True


def in_order(offsets, first, second, third):
    """Whether the rows of each instrument are sorted by the first, then the second, then the third."""
    wrong = 0
    for s in range(len(offsets) - 1):
        for i in range(offsets[s] + 1, offsets[s + 1]):
            if first[i] <= first[i - 1]:
                tied = first[i] == first[i - 1]
                after = (second[i] > second[i - 1]) | ((second[i] == second[i - 1]) & (third[i] > third[i - 1]))
                wrong += not (tied & after)
    return wrong == 0


def off_grid(out, ts, step):
    """By how much each time is later than the last multiple of `step`; neighbours are mostly one step apart."""
    for i in range(len(ts)):
        out[i] = out[i - 1] if i and ts[i] - ts[i - 1] == step else ts[i] % step


def group(order, offsets, codes, times):
    """Rows by code, in the order they come within each. Returns 2 where that does not sort them by time, 1 where some tie, else 0."""
    for i in range(len(codes)):
        offsets[codes[i] + 1] += 1
    for k in range(1, len(offsets)):
        offsets[k] += offsets[k - 1]
    fill = offsets.copy()
    tied = 0
    for i in range(len(codes)):
        k = codes[i]
        if fill[k] > offsets[k]:
            before = times[order[fill[k] - 1]]
            if before > times[i]:
                return 2
            tied |= before == times[i]
        order[fill[k]] = i
        fill[k] += 1
    return tied


def hash_text(hashes, seeds, offsets, data):
    """A 64-bit hash (FNV-1a over words, finished by SplitMix64) of each string of an Arrow column, mixed with its seed."""
    for i in range(len(hashes)):
        h = (seeds[i] + 1) * 0x9E3779B97F4A7C15
        for k in range(offsets[i], offsets[i + 1]):
            h = (h ^ data[k]) * 0x100000001B3
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB
        hashes[i] = h ^ (h >> 31)


def find_newest(out, offsets, known, ends, available, newest):
    """For each bar the newest of other bars that was known when it was, as its row; -1 where there is none.

    The other bars of each instrument end at `ends`. They were known at the times `available`, which are sorted within it; `newest` is
    the newest of those that were known by then.
    """
    for s in range(len(offsets) - 1):
        k = ends[s]
        for i in range(offsets[s], offsets[s + 1]):
            while k < ends[s + 1] and available[k] <= known[i]:
                k += 1
            while k > ends[s] and available[k - 1] > known[i]:
                k -= 1
            out[i] = newest[k - 1] if k > ends[s] else -1


def rescale_newest(out, newest, ts, higher_ts, offsets, acted, times, factors):
    """Values of `newest` other bars as they are seen from the bars: times the factors of what acted in between, the latest first.

    What acted on each instrument is sorted by its time; it lies in between if it is after the one bar's open, and not after the other's.
    """
    for s in range(len(offsets) - 1):
        for i in range(offsets[s], offsets[s + 1]):
            product = 1.0
            for k in range(acted[s + 1] - 1, acted[s] - 1, -1):
                if newest[i] >= 0 and higher_ts[newest[i]] < times[k] <= ts[i]:
                    product = product * factors[k]
            out[i] = out[i] * product


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


def roll_up(out, columns, starts):
    """Rows `starts[g]` to `starts[g + 1]` of open, high, low, close and volume, as one: the first, highest, lowest, last, and the sum.

    A missing price is passed over, as a bar that is not there is; what no bar has is missing. Volumes are added from the oldest on.
    """
    opens, highs, lows, closes, volumes = columns
    for g in range(len(starts) - 1):
        first = high = low = last = volume = math.nan
        for i in range(starts[g], starts[g + 1]):
            first = opens[i] if first != first else first
            high = highs[i] if highs[i] > high or high != high else high
            low = lows[i] if lows[i] < low or low != low else low
            last = closes[i] if closes[i] == closes[i] else last
            if volumes[i] == volumes[i]:
                volume = volumes[i] if volume != volume else volume + volumes[i]
        out[0, g], out[1, g], out[2, g], out[3, g], out[4, g] = first, high, low, last, volume
