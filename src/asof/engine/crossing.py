"""The loops over sections of rows: the drivers of operators across instruments, and what sorts rows into sections. Compiled as kernels are.

A driver takes one section after the other: it gathers the values that are there, has the kernel look at them, and puts the answers back.
A member without a value takes no part and has none; one whose value is an error takes no part and stays one.
"""

import math
from collections.abc import Callable

import numpy as np

from asof.operators import Shape


def settled(inputs, i):
    """Missing where one of a row's values is, else an error where one is, else 0."""
    worst = 0.0
    for x in inputs:
        if x[i] != x[i]:
            return math.nan
        if math.isinf(x[i]):
            worst = math.inf
    return worst


def held_of(place, rooms, inputs, rows, out):
    """Gather what the rows of a section have of values, and where; the others are settled. Returns how many they are."""
    held = 0
    for i in rows:
        out[i] = settled(inputs, i)
        if out[i] == 0.0:
            place[held] = i
            for k in range(len(inputs)):
                rooms[k, held] = inputs[k][i]
            held += 1
    return held


def put_back(out, answers, place, held, minimum):
    """The answers to their rows: an error where one is not finite, missing where there were too few values."""
    for k in range(held):
        good = answers[k] - answers[k] == 0.0
        out[place[k]] = math.nan if held < minimum else answers[k] if good else math.inf


CUTS: dict[int, Callable[..., object]] = {
    1: lambda rooms, held: (rooms[0, :held],),
    2: lambda rooms, held: (rooms[0, :held], rooms[1, :held]),
}
"""The values of so many inputs, each as an array."""


def each(kernel, cut):
    def drive(out, inputs, params, order, starts, minimum):
        longest = np.diff(starts).max()
        place, rooms, answers = np.empty(longest, np.int64), np.empty((len(inputs), longest)), np.empty(longest)
        for s in range(len(starts) - 1):
            held = held_of(place, rooms, inputs, order[starts[s] : starts[s + 1]], out)
            if held >= minimum:
                kernel(answers[:held], *(cut(rooms, held) + params))
            put_back(out, answers, place, held, minimum)

    return drive


def ranked(kernel, cut):
    def drive(out, inputs, params, order, starts, minimum):
        longest = np.diff(starts).max()
        place, rooms, answers = np.empty(longest, np.int64), np.empty((len(inputs), longest)), np.empty(longest)
        for s in range(len(starts) - 1):
            held = held_of(place, rooms, inputs, order[starts[s] : starts[s + 1]], out)
            if held >= minimum:
                kernel(answers[:held], rooms[0, :held], np.argsort(rooms[0, :held]), *params)
            put_back(out, answers, place, held, minimum)

    return drive


def of_all(kernel, cut):
    def drive(out, inputs, params, order, starts, minimum):
        longest = np.diff(starts).max()
        place, rooms = np.empty(longest, np.int64), np.empty((len(inputs), longest))
        for s in range(len(starts) - 1):
            rows = order[starts[s] : starts[s + 1]]
            held = held_of(place, rooms, inputs, rows, out)
            answer = kernel(*(cut(rooms, held) + params)) if held >= minimum else math.nan
            if held >= minimum and answer - answer != 0.0:
                answer = math.inf
            for i in rows:
                if not math.isinf(out[i]):  # a member whose own value is an error keeps it
                    out[i] = answer

    return drive


DRIVERS: dict[Shape, Callable[..., Callable[..., object]]] = {Shape.ACROSS: each, Shape.RANKED: ranked, Shape.SECTION: of_all}


def code_times(codes, times, offsets, ts):
    """For each row which of the sorted `times` it opens at."""
    for s in range(len(offsets) - 1):
        k = 0
        for i in range(offsets[s], offsets[s + 1]):
            while times[k] < ts[i]:
                k += 1
            codes[i] = k


def count_keys(starts, order, keys):
    """The rows with a key, sorted by it, in `order`, those of each key where `starts` says; -1 is none. Returns how many there are."""
    for i in range(len(keys)):
        if keys[i] >= 0:
            starts[keys[i] + 1] += 1
    for k in range(1, len(starts)):
        starts[k] += starts[k - 1]
    fill = starts.copy()
    for i in range(len(keys)):
        if keys[i] >= 0:
            order[fill[keys[i]]] = i
            fill[keys[i]] += 1
    return starts[len(starts) - 1]


def carry_section(out, known, order, starts):
    """For each row of a section the latest of its rows' times."""
    for s in range(len(starts) - 1):
        latest = known[order[starts[s]]]
        for k in range(starts[s], starts[s + 1]):
            latest = max(latest, known[order[k]])
        for k in range(starts[s], starts[s + 1]):
            out[order[k]] = latest
