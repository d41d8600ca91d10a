"""The kernels as they run: the compiled loops give the bits of the interpreted ones, and `exp` and `log` are as near as they say."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.engine.drivers import driver
from asof.engine.native import compile_loop, register
from asof.operators import BAR_SHAPES, EVENT_SHAPES, POINT_SHAPES, Operator, Shape
from tests.operator_cases import CASES, RUN, parameters

BY_KEY = {operator.key: operator for operator in RUN}


def compiled(operator: Operator) -> Callable[..., object]:
    """The operator's driver over arrays, compiled as the steps are."""
    loop = driver(operator)
    register(loop)
    return compile_loop(loop)


@pytest.mark.parametrize("operator", RUN, ids=lambda o: o.key)
@given(seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([0, 1, 2, 9, 600]), scale=st.sampled_from([1.0, 1e-3, 1e160]))
@settings(max_examples=8)
def test_the_compiled_loop_gives_the_bits_of_the_interpreted_one(operator: Operator, seed: int, rows: int, scale: float):
    rng = np.random.default_rng(seed)
    inputs = [rng.choice([0.0, -0.0, 1.0, math.nan, math.inf], rows, p=[0.03, 0.03, 0.9, 0.02, 0.02]) for _ in operator.inputs]
    inputs = [np.where(values == 1.0, rng.normal(0, scale, rows), values) for values in inputs]
    for params in parameters(operator):
        more: tuple[object, ...] = (params,)
        if operator.shape in BAR_SHAPES:
            more = params, np.array([0, rows // 3, rows // 3, rows]), operator.reach(params)
        elif operator.shape in EVENT_SHAPES:
            low = np.sort(rng.integers(0, rows + 1, rows))
            sums = tuple(rng.normal(0, scale, rows) for _ in operator.sums)
            more = sums, params, low, np.minimum(low + rng.integers(0, 6, rows), rows), operator.minimum
        elif operator.shape in POINT_SHAPES:
            of = np.sort(rng.integers(0, 10**9, rows)), np.array([0, rows // 3]), np.array([rows // 4, rows])
            more = (10_000_000, of, of) if operator.shape is Shape.AT else (params, *of)
        outs = np.zeros(rows), np.zeros(rows)
        inputs = inputs[:1] if operator.shape is Shape.AT else inputs
        compiled(operator)(outs[0], tuple(inputs), *more)
        with np.errstate(all="ignore"):
            driver(operator)(outs[1], tuple(inputs), *more)
        bits = [np.where(np.isnan(out), np.nan, out).view(np.int64).tolist() for out in outs]
        assert bits[0] == bits[1]


def test_an_edited_kernel_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    answers = []
    for number in (1, 2):
        (tmp_path / "kernels_of_mine.py").write_text(f"def shift(x):\n    return x + offset()\n\n\ndef offset():\n    return {number}.0\n")
        sys.modules.pop("kernels_of_mine", None)
        module = importlib.import_module("kernels_of_mine")
        out = np.zeros(1)
        compiled(Operator("shift", Shape.ROW, module.shift))(out, (np.array([10.0]),), ())
        answers.append(out[0])
    assert answers == [11.0, 12.0]


def test_a_kernel_may_be_called_as_a_function_that_it_uses():
    out = np.zeros(1)
    compiled(BY_KEY["sqrt/1"])(out, (np.array([9.0]),), ())  # its name is also that of `math.sqrt`
    assert out[0] == 3.0


def wide() -> np.ndarray:
    """Numbers over the whole range of floats: random bits, the extremes, and what lies close to 0 and 1."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 2**63, 40_000, dtype=np.uint64).view(np.float64)
    near = 1 + rng.normal(0, 1, 20_000) * 10.0 ** rng.uniform(-16, 0, 20_000)
    edges = [5e-324, 1e-320, 2.2250738585072014e-308, 2.225073858507201e-308, 1.7976931348623157e308, 0.5, 1.0, math.e, 2**0.5, 0.5**0.5]
    return np.concatenate([bits[np.isfinite(bits)], near[near > 0], edges, np.nextafter(edges, 0)[1:], np.nextafter(edges, 10)])


def assert_within_two_ulps(operator: Operator, arguments: np.ndarray) -> None:
    """The compiled kernel is within 2 units of Python's function, and has the bits of the interpreted kernel."""
    found = np.zeros(len(arguments))
    compiled(operator)(found, (arguments,), ())
    oracle = CASES[operator.key].oracle
    for x, y in zip(arguments.tolist(), found.tolist(), strict=True):
        expected = oracle(x)
        assert expected is not None
        assert abs(y - expected) <= 2 * math.ulp(expected), f"{operator.name}({x!r}) = {y!r}, not {expected!r}"
    interpreted = [operator.kernel(x) for x in arguments[::17].tolist()]
    assert np.array(interpreted).view(np.int64).tolist() == found[::17].view(np.int64).tolist()


def test_log_is_within_two_units_in_the_last_place_over_all_floats():
    assert_within_two_ulps(BY_KEY["log/1"], wide())


def test_exp_is_within_two_units_in_the_last_place_over_all_floats():
    rng = np.random.default_rng(9)
    tiny = rng.normal(0, 1, 10_000) * 10.0 ** rng.uniform(-320, 0, 10_000)
    edges = np.array([0.0, -0.0, 709.782712893384, 709.78, 709.7, -708.4, -708.5, -744.4400719213812, -745.1, -745.13, 1.0, -1.0])
    assert_within_two_ulps(BY_KEY["exp/1"], np.concatenate([rng.uniform(-745.1, 709.78, 40_000), tiny, edges]))
