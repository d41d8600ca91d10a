"""The tuples that drivers hand to kernels: one function for each length, since compiled code unrolls only what has a fixed one."""

import math
from functools import cache

import numpy as np

from asof.engine.native import floats_at, ints_at, named


def pick_0(arrays, i):
    return ()


def pick_1(arrays, i):
    return (arrays[0][i],)


def pick_2(arrays, i):
    return arrays[0][i], arrays[1][i]


def pick_3(arrays, i):
    return arrays[0][i], arrays[1][i], arrays[2][i]


PICK = (pick_0, pick_1, pick_2, pick_3)
"""Row `i` of each array."""


def cut_1(arrays, a, b):
    return (arrays[0][a:b],)


def cut_2(arrays, a, b):
    return arrays[0][a:b], arrays[1][a:b]


CUT = {1: cut_1, 2: cut_2}
"""Rows `a` to `b` of each array."""


def rescale(x, factors, a, b):
    """Rows `a` to `b` as they are seen from the last of them: each times the factors behind it, the newest first."""
    out = x[a:b].copy()
    product = 1.0
    for i in range(b - 1, a, -1):
        product = product * factors[i]
        out[i - 1 - a] = out[i - 1 - a] * product
    return out


def rescale_1(arrays, factors, a, b):
    return (rescale(arrays[0], factors[0], a, b),)


def rescale_2(arrays, factors, a, b):
    return rescale(arrays[0], factors[0], a, b), rescale(arrays[1], factors[1], a, b)


RESCALE = {1: rescale_1, 2: rescale_2}
"""Rows `a` to `b` of each array, rescaled by its factors."""


def acts_1(factors, i):
    return factors[0][i] != 1.0


def acts_2(factors, i):
    return (factors[0][i] != 1.0) | (factors[1][i] != 1.0)


ACTS = {1: acts_1, 2: acts_2}
"""Whether row `i` of any array of factors rescales what is before it."""


def tame(value):
    return value if math.isfinite(value) else 1.0


def tame_1(values):
    return (tame(values[0]),)


def tame_2(values):
    return tame(values[0]), tame(values[1])


def tame_3(values):
    return tame(values[0]), tame(values[1]), tame(values[2])


TAME = {1: tame_1, 2: tame_2, 3: tame_3}
"""The values, with a finite number in place of what a kernel must not see; its answer then does not count."""


def buffer(where, word, rows):
    return floats_at(ints_at(where, word + 1)[word], rows)


def buffers_0(where, words, rows):
    return ()


def buffers_1(where, words, rows):
    return (buffer(where, words[0], rows),)


def buffers_2(where, words, rows):
    return buffer(where, words[0], rows), buffer(where, words[1], rows)


def buffers_3(where, words, rows):
    return buffer(where, words[0], rows), buffer(where, words[1], rows), buffer(where, words[2], rows)


BUFFERS = (buffers_0, buffers_1, buffers_2, buffers_3)
"""The buffers that `words` name, by their addresses in `where`."""


def choose(x, where, ends):
    """The values where `where` is true, of which there are `ends[i]` before row `i`; an error where that is one."""
    out = np.empty(ends[len(where)])
    for i in range(len(where)):
        if ends[i + 1] > ends[i]:
            out[ends[i]] = x[i] if math.isfinite(where[i]) else math.inf
    return out


def choose_1(arrays, where, ends):
    return (choose(arrays[0], where, ends),)


def choose_2(arrays, where, ends):
    return choose(arrays[0], where, ends), choose(arrays[1], where, ends)


CHOOSE = {1: choose_1, 2: choose_2}
"""The chosen values of each array."""


@cache
def take(kinds):
    """What takes parameters of these kinds out of an array of floats, as a tuple."""
    if not kinds:
        return none
    before, place = take(kinds[:-1]), len(kinds) - 1

    def whole(params):
        return (*before(params), int(params[place]))

    def fraction(params):
        return (*before(params), params[place])

    return named(whole if kinds[-1] is int else fraction, f"take_{'_'.join(kind.__name__ for kind in kinds)}")


def none(params):
    return ()
