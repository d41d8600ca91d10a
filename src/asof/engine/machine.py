"""The machine: a compiled loop that takes a plan's steps through one morsel after the other, without the interpreter between them.

1. A morsel is a stretch of the panel's rows with the lookback of its first instrument in front; it may hold many instruments.
2. `evaluate` points the buffers of columns at its rows, and `cut_windows` finds the distinct windows of points that its bars see.
3. Each step runs over the morsel's bars, points or windows: an operator's is called by its address, the others are loops here.
4. What is wanted (not the lookback) is kept in its place among the results of all rows.
"""

from asof.engine.native import call, floats_at, ints_at

FRAME = 5
"""Words of a frame, which tells a step what its rows are; see `asof.engine.drivers`."""

APPLY, SPREAD, FEATURE, FLAG = range(4)
ON_STREAMS, ON_WINDOWS = 1, 5
"""As in `asof.engine.plan`, for compiled code, which knows no enumerations."""

STREAM = 9
"""Words of a stream: which it is, addresses of its times and of each instrument's first point and the one behind its last, how many points
and instruments these are, the address of where the windows of bars end, what is added to that, and how far back points are seen."""


def first_row(values, start, stop, limit):
    """The first of the sorted rows `start` to `stop` whose value is not below `limit`."""
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < limit:
            start = middle + 1
        else:
            stop = middle
    return start


def bars_of(offsets, lookback, start, stop):
    """Of the morsel that wants rows `start` to `stop`: its first row, its first and its last instrument."""
    first = first_row(offsets, 0, len(offsets), start + 1) - 1
    last = first_row(offsets, first, len(offsets), stop) - 1
    return max(offsets[first], start - lookback + 1), first, last


def points_of(stream, first, last, row, stop, rows):
    """The first point that the bars `row` to `stop` of these instruments see, and the one behind their last."""
    time, ends = ints_at(stream[1], stream[4]), ints_at(stream[6], rows)
    starts, stops = ints_at(stream[2], stream[5]), ints_at(stream[3], stream[5])
    a = first_row(time, starts[first], stops[first], ends[row] + stream[7] - stream[8])
    b = first_row(time, starts[last], stops[last], ends[stop - 1] + stream[7])
    return a, max(a, b)


def most_points(most, panel, streams, lookback, rows):
    """For each stream, the points of the morsel, of those that want `rows` rows each, that has the most."""
    offsets, total = ints_at(panel[0, 0], panel[0, 1]), panel[1, 1]
    for start in range(0, total, rows):
        stop = min(start + rows, total)
        row, first, last = bars_of(offsets, lookback, start, stop)
        for k in range(len(streams)):
            a, b = points_of(streams[k], first, last, row, stop, total)
            most[k] = max(most[k], b - a)


def cut_windows(low, high, which, offsets, starts, stops, ends, shift, time, length, most):
    """The distinct windows `[low, high)` of points in `[end - length, end)`, the newest `most`, and for each bar which of them is its own.

    `offsets` are where each instrument's bars begin, `starts` and `stops` where its points do and end; a bar's window ends at `ends` plus
    `shift`. Bars and points are sorted by time; neighbouring bars often see the same points. Returns how many windows there are.
    """
    count = 0
    for s in range(len(starts)):
        a = b = starts[s]
        stop = stops[s]
        changed = True
        for i in range(offsets[s], offsets[s + 1]):
            end = ends[i] + shift
            while b < stop and time[b] < end:
                b += 1
                changed = True
            while a < b and time[a] < end - length:
                a += 1
                changed = True
            if changed:
                low[count] = max(a, b - most)
                high[count] = b
                count += 1
                changed = False
            which[i] = count - 1
    return count


def spread(out, values, which):
    """Give each row the value of its window."""
    for i in range(len(out)):
        out[i] = values[which[i]]


def is_true(value):
    """Whether a flag is raised: a missing value, or an error, raises nothing."""
    return (value != 0.0) & (value - value == 0.0)


def keep_of_bars(kind, place, values, features, flags, counts):
    if kind == FEATURE:
        out = floats_at(features[place], len(flags))
        for i in range(len(flags)):
            out[i] = values[i]
    elif kind == FLAG:
        for i in range(len(flags)):
            flags[i] |= is_true(values[i]) << place
    else:
        for i in range(len(flags)):
            counts[place, i] = int(values[i])


def keep_of_windows(kind, place, values, which, features, flags, counts):
    if kind == FEATURE:
        spread(floats_at(features[place], len(flags)), values, which)
    elif kind == FLAG:
        for i in range(len(flags)):
            flags[i] |= is_true(values[which[i]]) << place
    else:
        for i in range(len(flags)):
            counts[place, i] = int(values[which[i]])


def evaluate(start, stop, rows, lookback, program, panel, streams, buffers, scratch, results):
    """Rows `start` to `stop` of the results, in morsels that want `rows` each."""
    kinds, on, at, params, addresses, lengths, leaves = program
    offsets, total = ints_at(panel[0, 0], panel[0, 1]), panel[1, 1]
    cuts, low, high, which, firsts, frames = scratch
    features, flags, counts = results
    for begin in range(start, stop, rows):
        end = min(begin + rows, stop)
        row, first, last = bars_of(offsets, lookback, begin, end)
        instruments, bars, warm = last - first + 1, end - row, begin - row
        for s in range(instruments):
            cuts[0, s] = max(offsets[first + s] - row, 0)
        cuts[0, instruments] = bars
        frames[0, 0], frames[0, 1], frames[0, 2] = bars, cuts.ctypes.data, instruments + 1
        firsts[0] = row
        for k in range(len(streams)):
            stream = streams[k]
            a, b = points_of(stream, first, last, row, end, total)
            starts, stops = ints_at(stream[2], stream[5]), ints_at(stream[3], stream[5])
            for s in range(instruments):
                cuts[1 + 2 * k, s] = min(max(starts[first + s], a), b) - a
                cuts[2 + 2 * k, s] = min(max(stops[first + s], a), b) - a
            mine = frames[stream[0]]
            mine[0], mine[1], mine[2], mine[3] = b - a, cuts[1 + 2 * k].ctypes.data, cuts[2 + 2 * k].ctypes.data, instruments
            mine[4] = stream[1] + 8 * a
            firsts[stream[0]] = a
        for w in range(len(lengths)):
            k = lengths[w, 0]
            of, mine, a = streams[k], frames[ON_WINDOWS + w], firsts[streams[k, 0]]
            points = frames[of[0], 0]
            starts, stops = cuts[1 + 2 * k, :instruments], cuts[2 + 2 * k, :instruments]
            ends, time = ints_at(of[6], total)[row:end], ints_at(of[1], of[4])[a : a + points]
            length, most = lengths[w, 1], lengths[w, 2]
            mine[0] = cut_windows(low[w], high[w], which[w], cuts[0], starts, stops, ends, of[7], time, length, most)
            mine[1], mine[2], mine[3] = low[w].ctypes.data, high[w].ctypes.data, points
        for k in range(len(leaves)):
            buffers[leaves[k, 0]] = leaves[k, 1] + 8 * firsts[leaves[k, 2]]
        for s in range(len(kinds)):
            kind, window, rows_of_value = kinds[s], on[s] - ON_WINDOWS, frames[on[s], 0]
            if kind == APPLY:
                call(addresses[s], buffers.ctypes.data, at[s].ctypes.data, params[s].ctypes.data, frames[on[s]].ctypes.data)  # type: ignore[call-arg]
            elif kind == SPREAD:
                spread(floats_at(buffers[at[s, 0]], bars), floats_at(buffers[at[s, 1]], rows_of_value), which[window])
            else:
                values, place = floats_at(buffers[at[s, 1]], rows_of_value), at[s, 0]
                wanted = features + 8 * begin, flags[begin - start : end - start], counts[:, begin:end]
                if window < 0:
                    keep_of_bars(kind, place, values[warm:], *wanted)
                else:
                    keep_of_windows(kind, place, values, which[window, warm:bars], *wanted)
