"""Sums over events are exact and rounded once, whether they come from running totals or are added up, as `math.fsum` has them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asof.engine.drivers import driver
from asof.engine.exact import LONGEST, running_totals
from asof.engine.native import compile_loop
from asof.operators import OPERATORS, Shape

(OPERATOR,) = (o for o in OPERATORS if o.shape is Shape.SUM)
SUM = compile_loop(driver(OPERATOR))
TOTALS = compile_loop(running_totals)

scores = st.one_of(st.floats(-1, 1), st.floats(-1, 1).map(lambda x: round(x, 4)), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, -0.1]))
spread = st.builds(math.ldexp, st.floats(-1, 1), st.integers(-150, 150))
halves = st.builds(
    lambda x, k, e: math.ldexp(x, k) * (1 + e), st.sampled_from([1, -1]), st.integers(-110, 60), st.sampled_from([0.0, 2**-52])
)
extreme = st.sampled_from([5e-324, -5e-324, 2.0**-1000, 1e300, -1e300, 2.0**1000, 3.5, 0.0])


def sums(values: list[float], low: list[int], high: list[int]) -> list[float]:
    """The sums of windows of values, by the operator as the engine runs it."""
    out = np.zeros(len(low))
    SUM(out, (np.array(values, np.float64),), (), (), np.array(low, np.int64), np.array(high, np.int64), 0)
    return out.tolist()


def fits(values: list[float]) -> bool:
    """Whether the running totals of these values are exact."""
    return TOTALS(np.empty((3, len(values) + 1), np.int64), np.array(values, np.float64)) != 0.0


@given(st.one_of(*(st.lists(kind, max_size=40) for kind in (scores, spread, halves, extreme))))
@settings(max_examples=400)
@example([1.0, 2.0**-53])
@example([1.0, 2.0**-53, 2.0**-95])
@example([-1.0, -(2.0**-53), -(2.0**-95)])
@example([2097152.0, 2.0**-32, 2.0**-64])
@example([1e16, 1.0, -1e16, 0.1])
def test_the_sum_of_every_window_is_the_exact_one_rounded_once(values: list[float]):
    windows = [(a, b) for a in range(len(values) + 1) for b in range(a, len(values) + 1, max(1, len(values) // 5))]
    found = sums(values, [a for a, _ in windows], [b for _, b in windows])
    for (a, b), answer in zip(windows, found, strict=True):
        assert answer == math.fsum(values[a:b])
        assert math.copysign(1, answer) == math.copysign(1, math.fsum(values[a:b]))


def test_scores_are_added_by_running_totals_and_far_apart_values_are_not():
    assert fits([0.1234567890123456, -0.9, 1e-9])
    assert not fits([1.0, 1e-20 / 3])
    assert not fits([1.0, 5e-324])
    assert not fits([1e300])


def test_a_window_that_is_too_long_for_the_totals_is_added_up():
    values = np.full(LONGEST + 5, 0.1).tolist()
    assert sums(values, [0, 2], [LONGEST + 5, LONGEST + 1]) == [math.fsum(values), math.fsum(values[2 : LONGEST + 1])]


def test_a_sum_beyond_all_floats_is_an_error():
    assert sums([1.7e308, 1.7e308, 1.0], [0, 2], [2, 3]) == [math.inf, 1.0]
