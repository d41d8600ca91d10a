"""Drivers: the one loop of each operator shape, and their compilation by Numba.

A driver owns what every kernel of its shape would otherwise repeat: where instruments and windows begin and end, and what
missing values and errors do. Kernels stay plain Python; they are compiled into their driver here, strict IEEE (no fast-math, so no
reordering and no fused multiply-add), without the GIL, cached on disk so that a second process starts at full speed.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType

from numba import njit
from numba.extending import register_jitable

from asof.operators import Operator, Shape

Loop = Callable[..., object]
_lock = threading.Lock()


def settle(result, first, second, third):
    """What a row operator answers: missing before error before the result."""
    if math.isfinite(result) and math.isfinite(first) and math.isfinite(second) and math.isfinite(third):
        return result
    return math.nan if math.isnan(first) or math.isnan(second) or math.isnan(third) else math.inf


def row_1(kernel):
    def drive(out, x, *params):
        for i in range(len(out)):
            value = x[i]
            out[i] = settle(kernel(value, *params) if math.isfinite(value) else value, value, 0.0, 0.0)

    return drive


def row_2(kernel):
    def drive(out, x, y, *params):
        for i in range(len(out)):
            out[i] = settle(kernel(x[i], y[i], *params), x[i], y[i], 0.0)

    return drive


def row_3(kernel):
    def drive(out, x, y, z, *params):
        for i in range(len(out)):
            out[i] = settle(kernel(x[i], y[i], z[i], *params), x[i], y[i], z[i])

    return drive


def logic_1(kernel):
    def drive(out, x, *params):
        for i in range(len(out)):
            out[i] = kernel(x[i], *params)

    return drive


def logic_2(kernel):
    def drive(out, x, y, *params):
        for i in range(len(out)):
            out[i] = kernel(x[i], y[i], *params)

    return drive


def logic_3(kernel):
    def drive(out, x, y, z, *params):
        for i in range(len(out)):
            out[i] = kernel(x[i], y[i], z[i], *params)

    return drive


def mask(out, x, reach):
    """Missing where a whole window of `x` does not exist or holds a missing value; an error where it holds one or ends as one."""
    missing = -1
    wrong = -1
    for i in range(min(reach, len(x))):
        if not math.isfinite(x[i]):
            if x[i] != x[i]:
                missing = i
            else:
                wrong = i
        out[i] = math.nan
    for i in range(reach, len(x)):
        if not math.isfinite(x[i]):
            if x[i] != x[i]:
                missing = i
            else:
                wrong = i
        if missing >= i - reach:
            out[i] = math.nan
        elif wrong >= i - reach or not math.isfinite(out[i]):
            out[i] = math.inf


def series_1(kernel):
    def drive(out, offsets, reach, x, *params):
        for s in range(len(offsets) - 1):
            a, b = offsets[s], offsets[s + 1]
            kernel(out[a:b], x[a:b], *params)
            mask(out[a:b], x[a:b], reach)

    return drive


def series_2(kernel):
    def drive(out, offsets, reach, x, y, *params):
        for s in range(len(offsets) - 1):
            a, b = offsets[s], offsets[s + 1]
            kernel(out[a:b], x[a:b], y[a:b], *params)
            mask(out[a:b], x[a:b], reach)
            mask(out[a:b], y[a:b], reach)

    return drive


def raw_1(kernel):
    def drive(out, offsets, reach, x, *params):
        for s in range(len(offsets) - 1):
            a, b = offsets[s], offsets[s + 1]
            kernel(out[a:b], x[a:b], *params)

    return drive


def all_finite(x):
    for i in range(len(x)):  # noqa: SIM110 - Numba compiles no generator expressions
        if not math.isfinite(x[i]):
            return False
    return True


def worst(x):
    """NaN where one is missing, inf where one is an error, else 0."""
    found = 0.0
    for i in range(len(x)):
        if x[i] != x[i]:
            return math.nan
        if not math.isfinite(x[i]):
            found = math.inf
    return found


def window_1(kernel):
    def drive(out, low, high, minimum, x, *params):
        clean = all_finite(x)
        for i in range(len(out)):
            a, b = low[i], high[i]
            broken = 0.0 if clean else worst(x[a:b])
            if b - a < minimum or broken != broken:
                out[i] = math.nan
            elif broken != 0.0:
                out[i] = math.inf
            else:
                result = kernel(x[a:b], *params)
                out[i] = result if math.isfinite(result) else math.inf

    return drive


def window_2(kernel):
    def drive(out, low, high, minimum, x, y, *params):
        clean = all_finite(x) and all_finite(y)
        for i in range(len(out)):
            a, b = low[i], high[i]
            broken = 0.0 if clean else worst(x[a:b]) + worst(y[a:b])
            if b - a < minimum or broken != broken:
                out[i] = math.nan
            elif broken != 0.0:
                out[i] = math.inf
            else:
                result = kernel(x[a:b], y[a:b], *params)
                out[i] = result if math.isfinite(result) else math.inf

    return drive


def tally_1(kernel):
    def drive(out, low, high, minimum, x, *params):
        for i in range(len(out)):
            out[i] = kernel(x[low[i] : high[i]], *params)

    return drive


DRIVERS: dict[tuple[Shape, int], Callable[[Callable[..., object]], Loop]] = {
    (Shape.ROW, 1): row_1,
    (Shape.ROW, 2): row_2,
    (Shape.ROW, 3): row_3,
    (Shape.LOGIC, 1): logic_1,
    (Shape.LOGIC, 2): logic_2,
    (Shape.LOGIC, 3): logic_3,
    (Shape.SERIES, 1): series_1,
    (Shape.SERIES, 2): series_2,
    (Shape.RAW, 1): raw_1,
    (Shape.WINDOW, 1): window_1,
    (Shape.WINDOW, 2): window_2,
    (Shape.TALLY, 1): tally_1,
}
"""The driver of each shape and number of inputs."""


@cache
def compiled(operator: Operator) -> Loop:
    """The operator's kernel inside its driver, compiled when first called."""
    driver = DRIVERS[operator.shape, len(operator.inputs)]
    kernel = _versioned(operator.kernel)
    _register(kernel)
    loop: Loop = compile_loop(driver(kernel))
    return loop


def compile_loop(function: Callable[..., object]) -> Loop:
    """`function` and what it calls, compiled."""
    _register(function)
    loop: Loop = njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return loop


def _versioned(kernel: Callable[..., object]) -> Callable[..., object]:
    """The kernel under a name that changes with its source.

    Numba's cache watches the driver's file and tells kernels apart by their names: an edited kernel would run as it was before.
    """
    digest = hashlib.sha256(b"".join(sorted({_source(f) for f in _called(kernel)}))).hexdigest()
    assert isinstance(kernel, FunctionType)
    copy = FunctionType(kernel.__code__, kernel.__globals__, f"{kernel.__name__}_{digest[:16]}", kernel.__defaults__, kernel.__closure__)
    copy.__qualname__ = copy.__name__
    copy.__doc__ = kernel.__doc__
    named: Callable[..., object] = kernel.__globals__.setdefault(copy.__name__, copy)
    return named


def _source(function: FunctionType) -> bytes:
    """The file that a function is in; its code where there is no file."""
    path = Path(function.__code__.co_filename)
    return path.read_bytes() if path.is_file() else function.__code__.co_code + repr(function.__code__.co_consts).encode()


def _called(function: object, seen: tuple[FunctionType, ...] = ()) -> tuple[FunctionType, ...]:
    """A plain function and the plain functions of its module that it calls, and that those call."""
    if not isinstance(function, FunctionType) or function in seen:
        return seen
    seen = (*seen, function)
    for name in function.__code__.co_names:
        seen = _called(function.__globals__.get(name), seen)
    return seen


def _register(function: Callable[..., object]) -> None:
    """Tell Numba that a plain function, and the plain functions that it calls, may be compiled into others."""
    with _lock:
        for called in _called(function):
            _register_one(called)


@cache
def _register_one(function: FunctionType) -> None:
    register_jitable(error_model="numpy")(function)
