"""Compiled code: how loops are compiled, and how compiled steps call one another by address, without the interpreter between them.

Everything is compiled in strict IEEE arithmetic (no fast-math, so no reordering and no fused multiply-add), without the GIL, and cached
on disk, so that a second process starts at full speed.
"""

import hashlib
import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic, register_jitable
from numba.np.numpy_support import carray

from asof.errors import DefinitionError

ADDRESS = types.intp
Loop = Callable[..., object]

_STEP = types.void(ADDRESS, ADDRESS, ADDRESS, ADDRESS)
_lock = threading.Lock()
_kept: list[object] = []


@intrinsic
def call(typing_context, step, where, at, params, frame):
    """Call the step at an address (see `compile_step`)."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [word] * 4)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[ADDRESS] * 5), generate


def _pointer_to(kind):
    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(ADDRESS), generate

    return pointer


_float_pointer = _pointer_to(types.float64)
_int_pointer = _pointer_to(types.int64)


def floats_at(address, rows):
    """The float64 array of so many rows at an address."""
    return carray(_float_pointer(address), rows)


def ints_at(address, rows):
    """The int64 array of so many rows at an address."""
    return carray(_int_pointer(address), rows)


def compile_loop(function: Callable[..., object]) -> Loop:
    """`function` and what it calls, compiled when first called."""
    register(function)
    loop: Loop = njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return loop


def compile_step(step: Callable[..., object], operator: str) -> int:
    """The address of a compiled function of four addresses, for `call`. It stays valid as long as the process lives.

    Raises `DefinitionError` where Numba cannot compile the operator's kernel.
    """
    register(step)
    try:
        compiled = cfunc(_STEP, cache=True, fastmath=False, error_model="numpy")(step)
    except NumbaError as error:
        raise DefinitionError(f"operator {operator} cannot be compiled by Numba: {error}") from error
    assert compiled.address is not None
    _kept.append(compiled)
    return compiled.address


def named(function: Callable[..., object], name: str) -> Callable[..., object]:
    """A copy of the function under a name of its own, which changes with its source and that of what it calls.

    Compiled code is kept on disk and linked by name. A file is watched only for the function that was compiled itself, and closures of
    one place share its name: without this an edited kernel would run as it was, or another's in its stead.
    """
    assert isinstance(function, FunctionType)
    digest = hashlib.sha256(b"".join(sorted({_source(f) for f in _called(function)}))).hexdigest()[:16]
    name = f"{re.sub('[^A-Za-z0-9]', '_', name)}_{digest}"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__qualname__ = name
    copy.__doc__ = function.__doc__
    return copy


def _source(function: FunctionType) -> bytes:
    """The file that a function is in; its code where there is no file."""
    path = Path(function.__code__.co_filename)
    return path.read_bytes() if path.is_file() else function.__code__.co_code + repr(function.__code__.co_consts).encode()


def _called(function: object, seen: tuple[FunctionType, ...] = ()) -> tuple[FunctionType, ...]:
    """A plain function and the plain functions that it calls, of its module or closed over, and that those call."""
    if not isinstance(function, FunctionType) or function in seen or function.__module__.startswith("numba."):
        return seen
    seen = (*seen, function)
    for name in function.__code__.co_names:
        seen = _called(function.__globals__.get(name), seen)
    for cell in function.__closure__ or ():
        seen = _called(cell.cell_contents, seen)
    return seen


def register(function: Callable[..., object]) -> None:
    """Tell Numba that a plain function, and the plain functions that it calls, may be compiled into others."""
    with _lock:
        for called in _called(function):
            _register_one(called)


@cache
def _register_one(function: FunctionType) -> None:
    register_jitable(error_model="numpy")(function)
