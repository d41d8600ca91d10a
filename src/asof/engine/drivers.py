"""Drivers: the one loop of each operator shape, and the steps that the morsel's loop calls by address.

A driver owns what every kernel of its shape would otherwise repeat: where instruments and windows begin and end, and what missing
values and errors do. It takes arrays, so it can be called as the plain Python that it is. A step finds a driver's arrays by their
addresses: `where` holds those of all buffers, `at` which of them are the step's, and `frame` what its rows are:

========= ================================================================== ===============================================
operator  driver                                                             frame
========= ================================================================== ===============================================
by row    `drive(out, inputs, params)`                                       rows
by bar    `drive(out, inputs, params, offsets, reach)`                       rows, address and number of the offsets
rescaled  `drive(out, inputs, factors, params, offsets, reach)`              as by bar
by window `drive(out, inputs, sums, params, low, high, minimum)`             windows, addresses of their first points and of
                                                                             those behind their last, points
by point  `drive(out, inputs, params, time, starts, stops)`                  points, addresses of the first of each instrument
                                                                             and of the one behind its last, instruments,
                                                                             address of their times
at points `drive(out, inputs, within, (time, starts, stops), (...))`         as by point, and that of the points that are seen
========= ================================================================== ===============================================
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from asof.engine.exact import LONGEST, rounded_difference, running_totals
from asof.engine.machine import FRAME
from asof.engine.native import compile_step, floats_at, ints_at, named
from asof.engine.tuples import ACTS, BUFFERS, CUT, PICK, RESCALE, TAKE, TAME, buffer
from asof.operators import Operator, Shape

Drive = Callable[..., object]

AT = 8
"""Words of a step's `at`: its output, its inputs, its sums; the last one is the operator's `reach` or `minimum`, or by how many frames that
of the points that are seen stands behind its own."""
PARAMS = 4
"""The most parameters of an operator."""


def settle(result, values):
    """What a row operator answers: missing before error before the result."""
    off = result - result
    missing = False
    for value in values:
        off += value - value
        missing |= value != value
    return result if off == 0.0 else (math.nan if missing else math.inf)


def row(kernel, inputs, sums):
    pick, tame = PICK[inputs], TAME[inputs]

    def drive(out, inputs, params):
        for i in range(len(out)):
            values = pick(inputs, i)
            out[i] = settle(kernel(*(tame(values) + params)), values)

    return drive


def logic(kernel, inputs, sums):
    pick = PICK[inputs]

    def drive(out, inputs, params):
        for i in range(len(out)):
            out[i] = kernel(*(pick(inputs, i) + params))

    return drive


def clean(arrays):
    """Whether no value is missing or an error."""
    others = 0
    for x in arrays:
        for i in range(len(x)):
            others += x[i] - x[i] != 0.0
    return others == 0


def mark(out, x, reach, missing):
    """Give every row whose window of `x` holds a missing value (or, if not `missing`, an error) that as its result."""
    marked = reach
    for i in range(len(x)):
        if x[i] != x[i] if missing else math.isinf(x[i]):
            for k in range(max(i, marked), min(i + reach + 1, len(out))):
                out[k] = math.nan if missing else math.inf
            marked = max(marked, i + reach + 1)


def series(kernel, inputs, sums):
    cut = CUT[inputs]

    def drive(out, inputs, params, offsets, reach):
        for s in range(len(offsets) - 1):
            mine = out[offsets[s] : offsets[s + 1]]
            parts = cut(inputs, offsets[s], offsets[s + 1])
            kernel(mine, *(parts + params))
            mine[:reach] = math.nan
            for i in range(reach, len(mine)):
                mine[i] = mine[i] if mine[i] - mine[i] == 0.0 else math.inf
            if not clean(parts):
                for part in parts:
                    mark(mine, part, reach, False)
                for part in parts:
                    mark(mine, part, reach, True)

    return drive


def raw(kernel, inputs, sums):
    cut = CUT[inputs]

    def drive(out, inputs, params, offsets, reach):
        for s in range(len(offsets) - 1):
            kernel(out[offsets[s] : offsets[s + 1]], *(cut(inputs, offsets[s], offsets[s + 1]) + params))

    return drive


def gather(room, x):
    """Move what `x` has of values into `room`. Returns how many they are, an error among them as a negative number."""
    held, broken = 0, False
    for i in range(len(x)):
        if x[i] == x[i]:
            room[held] = x[i]
            held += 1
            broken |= math.isinf(x[i])
    return -held if broken else held


def gather_pairs(room, x, y):
    """Move the pairs that x and y both have into the rows of `room`. Returns how many, with an error among them as a negative number."""
    held, broken = 0, False
    for i in range(len(x)):
        if (x[i] == x[i]) & (y[i] == y[i]):
            room[0, held], room[1, held] = x[i], y[i]
            held += 1
            broken |= math.isinf(x[i]) | math.isinf(y[i])
    return -held if broken else held


def present_pairs(kernel):
    def drive(out, inputs, params, offsets, reach):
        x, y = inputs
        room = np.empty((2, reach + 1))
        for s in range(len(offsets) - 1):
            for i in range(offsets[s], offsets[s + 1]):
                first = max(offsets[s], i - reach)
                held = gather_pairs(room, x[first : i + 1], y[first : i + 1])
                if abs(held) < params[-1]:
                    out[i] = math.nan
                elif held < 0:
                    out[i] = math.inf
                else:
                    result = kernel(room[0, :held], room[1, :held], *params[1:-1])
                    out[i] = result if math.isfinite(result) else math.inf

    return drive


def present(kernel, inputs, sums):
    if inputs == 2:
        return present_pairs(kernel)

    def drive(out, inputs, params, offsets, reach):
        (x,) = inputs
        room = np.empty(reach + 1)
        for s in range(len(offsets) - 1):
            for i in range(offsets[s], offsets[s + 1]):
                held = gather(room, x[max(offsets[s], i - reach) : i + 1])
                if abs(held) < params[-1]:
                    out[i] = math.nan
                elif held < 0:
                    out[i] = math.inf
                else:
                    result = kernel(room[:held], *params[1:-1])
                    out[i] = result if math.isfinite(result) else math.inf

    return drive


def rescaled(drive, inputs):
    """A driver by bar whose windows are rescaled, value by value, to the bar that they are seen from.

    Actions are rare, so all rows are driven as they are. Those with an action inside their windows are driven again, the rows from one
    action to the next at a time: they see the bars before it alike, and what lies between them is not rescaled.
    """
    rescale, acts = RESCALE[inputs], ACTS[inputs]

    def drive_rescaled(out, inputs, factors, params, offsets, reach):
        drive(out, inputs, params, offsets, reach)
        ends = np.zeros(2, np.int64)
        for s in range(len(offsets) - 1):
            i, last = offsets[s] + 1, offsets[s + 1]
            while i < last:
                end = i + 1
                if acts(factors, i):
                    while end < min(last, i + reach) and not acts(factors, end):
                        end += 1
                    start = max(offsets[s], i - reach)
                    ends[1] = end - start
                    answers = np.empty(ends[1])
                    drive(answers, rescale(inputs, factors, start, end), params, ends, reach)
                    out[i:end] = answers[i - start :]
                i = end

    return drive_rescaled


def worst(arrays):
    """NaN where a value is missing, inf where one is an error, else 0."""
    found = 0.0
    for x in arrays:
        for i in range(len(x)):
            if x[i] != x[i]:
                return math.nan
            if math.isinf(x[i]):
                found = math.inf
    return found


def window(kernel, inputs, sums):
    cut, pick = CUT[inputs], PICK[sums]

    def drive(out, inputs, sums, params, low, high, minimum):
        whole = clean(inputs)
        for i in range(len(out)):
            parts = cut(inputs, low[i], high[i])
            broken = 0.0 if whole else worst(parts)
            if high[i] - low[i] < minimum or broken != broken:
                out[i] = math.nan
            elif broken != 0.0:
                out[i] = math.inf
            else:
                result = kernel(*(parts + pick(sums, i) + params))
                out[i] = result if math.isfinite(result) else math.inf

    return drive


def moment(kernel, inputs, sums):
    pick, tame = PICK[sums], TAME[sums]

    def drive(out, inputs, sums, params, low, high, minimum):
        for i in range(len(out)):
            values, n = pick(sums, i), high[i] - low[i]
            result = settle(kernel(float(max(n, 1)), *(tame(values) + params)), values)
            out[i] = result if n >= minimum else math.nan

    return drive


def count(kernel, inputs, sums):
    def drive(out, inputs, sums, params, low, high, minimum):
        (x,) = inputs
        totals = np.empty(len(x) + 1, np.int64)
        totals[0] = 0
        for i in range(len(x)):
            totals[i + 1] = totals[i] + (1 if kernel(x[i]) else 0)
        for i in range(len(out)):
            out[i] = totals[high[i]] - totals[low[i]]

    return drive


def exact_sum(kernel, inputs, sums):
    def drive(out, inputs, sums, params, low, high, minimum):
        (x,) = inputs
        whole = clean(inputs)
        totals = np.empty((3, len(x) + 1), np.int64)
        unit = running_totals(totals, x) if whole else 0.0
        for i in range(len(out)):
            if unit != 0.0 and high[i] - low[i] < LONGEST:
                out[i] = rounded_difference(totals, low[i], high[i]) * unit
            else:
                broken = 0.0 if whole else worst((x[low[i] : high[i]],))
                out[i] = broken if broken != 0.0 else kernel(x[low[i] : high[i]])
            if math.isinf(out[i]) or (whole and out[i] != out[i]):
                out[i] = math.inf

    return drive


def blank(out, starts, stops):
    """Put something where rows are of no instrument of the morsel: what reads them does not count."""
    end = 0
    for s in range(len(starts)):
        out[end : starts[s]] = 0.0
        end = max(end, stops[s])
    out[end:] = 0.0


def point(kernel, inputs, sums):
    cut = CUT[inputs]

    def drive(out, inputs, params, time, starts, stops):
        blank(out, starts, stops)
        for s in range(len(starts)):
            a, b = starts[s], stops[s]
            kernel(out[a:b], *cut(inputs, a, b), time[a:b], *params)

    return drive


def at_points(kernel, inputs, sums):
    def drive(out, inputs, within, points, seen):
        (x,), (time, starts, stops), (seen_time, seen_starts, seen_stops) = inputs, points, seen
        blank(out, starts, stops)
        for s in range(len(starts)):
            a, b, c, d = starts[s], stops[s], seen_starts[s], seen_stops[s]
            kernel(out[a:b], time[a:b], x[c:d], seen_time[c:d], within)

    return drive


def by_row(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, rows = ints_at(at, AT), ints_at(frame, FRAME)[0]
        drive(buffer(where, words[0], rows), inputs(where, words[1:], rows), take(floats_at(params, PARAMS)))

    return step


def by_bar(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, frame = ints_at(at, AT), ints_at(frame, FRAME)
        rows, offsets = frame[0], ints_at(frame[1], frame[2])
        given = inputs(where, words[1:], rows)
        drive(buffer(where, words[0], rows), given, take(floats_at(params, PARAMS)), offsets, words[AT - 1])

    return step


def by_bar_rescaled(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, frame = ints_at(at, AT), ints_at(frame, FRAME)
        rows, offsets = frame[0], ints_at(frame[1], frame[2])
        given = inputs(where, words[1:], rows)
        factors = inputs(where, words[1 + len(given) :], rows)
        drive(buffer(where, words[0], rows), given, factors, take(floats_at(params, PARAMS)), offsets, words[AT - 1])

    return step


def by_window(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, frame = ints_at(at, AT), ints_at(frame, FRAME)
        windows, low, high = frame[0], ints_at(frame[1], frame[0]), ints_at(frame[2], frame[0])
        given = inputs(where, words[1:], frame[3])
        totals = sums(where, words[1 + len(given) :], windows)
        drive(buffer(where, words[0], windows), given, totals, take(floats_at(params, PARAMS)), low, high, words[AT - 1])

    return step


def points(frame):
    """The times of points, and where each instrument's begin and end."""
    return ints_at(frame[4], frame[0]), ints_at(frame[1], frame[3]), ints_at(frame[2], frame[3])


def by_point(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, mine = ints_at(at, AT), ints_at(frame, FRAME)
        time, starts, stops = points(mine)
        given = inputs(where, words[1:], mine[0])
        drive(buffer(where, words[0], mine[0]), given, take(floats_at(params, PARAMS)), time, starts, stops)

    return step


def by_at(drive, inputs, sums, take):
    def step(where, at, params, frame):
        words, mine = ints_at(at, AT), ints_at(frame, FRAME)
        other = ints_at(frame + 8 * FRAME * words[AT - 1], FRAME)
        given = (buffer(where, words[1], other[0]),)
        within = int(floats_at(params, PARAMS)[0])
        drive(buffer(where, words[0], mine[0]), given, within, points(mine), points(other))

    return step


DRIVERS: dict[Shape, tuple[Callable[..., Drive], Callable[..., Callable[..., None]]]] = {
    Shape.ROW: (row, by_row),
    Shape.LOGIC: (logic, by_row),
    Shape.SERIES: (series, by_bar),
    Shape.RAW: (raw, by_bar),
    Shape.PRESENT: (present, by_bar),
    Shape.COUNT: (count, by_window),
    Shape.SUM: (exact_sum, by_window),
    Shape.MOMENT: (moment, by_window),
    Shape.WINDOW: (window, by_window),
    Shape.POINT: (point, by_point),
    Shape.AT: (at_points, by_at),
}
"""What makes the driver of each shape, and the step around it."""


def driver(operator: Operator) -> Drive:
    """The operator's kernel inside its driver, not compiled."""
    kernel = named(operator.kernel, f"kernel_{operator.key}")
    return named(DRIVERS[operator.shape][0](kernel, len(operator.inputs), len(operator.sums)), f"drive_{operator.key}")


@cache
def compiled(operator: Operator, rescales: bool = False) -> int:
    """The address of the operator's step, compiled; of one that rescales its windows if so said."""
    take = TAKE[tuple(param.kind for param in operator.params)]
    drive, step_of = driver(operator), DRIVERS[operator.shape][1]
    if rescales:
        drive, step_of = named(rescaled(drive, len(operator.inputs)), f"rescaled_{operator.key}"), by_bar_rescaled
    step = step_of(drive, BUFFERS[len(operator.inputs)], BUFFERS[len(operator.sums)], take)
    return compile_step(named(step, f"step_{'rescaled_' if rescales else ''}{operator.key}"))
