"""The machine: a compiled loop that takes a plan's steps through one morsel after the other, without the interpreter between them.

1. A morsel is a stretch of the panel's rows with the lookback of its first instrument in front; it may hold many instruments.
2. `evaluate` points the buffers of columns at its rows, and `cut_windows` finds the distinct windows of events that its bars see.
3. Each step runs over the morsel's bars, events or windows: an operator's is called by its address, the others are loops here.
4. What is wanted (not the lookback) is kept in its place among the results of all rows.
"""

from asof.engine.native import call, floats_at, ints_at

FRAME = 4
"""Words of a frame, which tells a step what its rows are; see `asof.engine.drivers`."""

APPLY, SPREAD, FEATURE, FLAG = range(4)
ON_EVENTS, ON_WINDOWS = 1, 2
"""As in `asof.engine.plan`, for compiled code, which knows no enumerations."""


def first_row(values, start, stop, limit):
    """The first of the sorted rows `start` to `stop` whose value is not below `limit`."""
    while start < stop:
        middle = (start + stop) // 2
        if values[middle] < limit:
            start = middle + 1
        else:
            stop = middle
    return start


def span(panel, lookback, longest, start, stop):
    """Of the morsel that wants rows `start` to `stop`: its first row, first and last instrument, first event and the one after its last."""
    offsets, ts, event_starts, event_stops, event_time = panel
    first = first_row(offsets, 0, len(offsets), start + 1) - 1
    last = first_row(offsets, first, len(offsets), stop) - 1
    row = max(offsets[first], start - lookback + 1)
    a = first_row(event_time, event_starts[first], event_stops[first], ts[row] - longest)
    b = first_row(event_time, event_starts[last], event_stops[last], ts[stop - 1] + 1)
    return row, first, last, a, max(a, b)


def arrays_of(panel):
    """The panel's arrays of whole numbers (offsets, ts, event starts, event stops, event times), by their addresses and lengths."""
    a, b, c, d, e = panel[0], panel[1], panel[2], panel[3], panel[4]
    return ints_at(a[0], a[1]), ints_at(b[0], b[1]), ints_at(c[0], c[1]), ints_at(d[0], d[1]), ints_at(e[0], e[1])


def most_events(panel, lookback, longest, rows):
    """The events of the morsel, of those that want `rows` rows each, that has the most."""
    arrays = arrays_of(panel)
    most = 0
    for start in range(0, len(arrays[1]), rows):
        _, _, _, a, b = span(arrays, lookback, longest, start, min(start + rows, len(arrays[1])))
        most = max(most, b - a)
    return most


def cut_windows(low, high, which, cuts, ts, event_time, length):
    """The distinct windows `[low, high)` of events between `ts - length` and `ts`, and for each bar which of them is its own.

    `cuts` are where each instrument's bars begin, and its events begin and end. Bars and events are sorted by time; neighbouring bars
    often see the same events. Returns how many windows there are.
    """
    count = 0
    for s in range(cuts.shape[1] - 1):
        a = b = cuts[1, s]
        end = cuts[2, s]
        changed = True
        for i in range(cuts[0, s], cuts[0, s + 1]):
            while b < end and event_time[b] <= ts[i]:
                b += 1
                changed = True
            while a < b and event_time[a] < ts[i] - length:
                a += 1
                changed = True
            if changed:
                low[count] = a
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


def evaluate(start, stop, rows, lookback, program, panel, buffers, scratch, results):
    """Rows `start` to `stop` of the results, in morsels that want `rows` each."""
    kinds, on, at, params, addresses, lengths, leaves = program
    arrays = arrays_of(panel)
    offsets, ts, event_starts, event_stops, event_time = arrays
    cuts, low, high, which, frames = scratch
    features, flags, counts = results
    longest = lengths.max() if len(lengths) else 0
    for begin in range(start, stop, rows):
        end = min(begin + rows, stop)
        row, first, last, a, b = span(arrays, lookback, longest, begin, end)
        instruments, bars, warm = last - first + 1, end - row, begin - row
        for s in range(instruments):
            cuts[0, s] = max(offsets[first + s] - row, 0)
            cuts[1, s] = min(max(event_starts[first + s], a), b) - a
            cuts[2, s] = min(max(event_stops[first + s], a), b) - a
        cuts[0, instruments] = bars
        frames[0, 0], frames[0, 1], frames[0, 2] = bars, cuts.ctypes.data, instruments + 1
        frames[ON_EVENTS, 0] = b - a
        for k in range(len(lengths)):
            mine = frames[ON_WINDOWS + k]
            mine[0] = cut_windows(low[k], high[k], which[k], cuts[:, : instruments + 1], ts[row:end], event_time[a:b], lengths[k])
            mine[1], mine[2], mine[3] = low[k].ctypes.data, high[k].ctypes.data, b - a
        for k in range(len(leaves)):
            buffers[leaves[k, 0]] = leaves[k, 1] + 8 * (a if leaves[k, 2] else row)
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
