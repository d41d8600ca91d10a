"""`asof.operator`: people's own operators, plain Python functions that Numba compiles, under the same law as those that ship."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TypeVar

from asof.errors import DefinitionError, did_you_mean
from asof.features.expression import COMPOSED, METHODS, Expr
from asof.operators import BAR_SHAPES, Operator, Param, Scaling, Shape
from asof.operators.known import KNOWN
from asof.operators.operator import LONGEST
from asof.operators.source import digest_of

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MOST_INPUTS = {
    Shape.ROW: 3,
    Shape.LOGIC: 3,
    Shape.SERIES: 2,
    Shape.RAW: 2,
    Shape.PRESENT: 1,
    Shape.COUNT: 1,
    Shape.MOMENT: 2,
    Shape.WINDOW: 2,
}
"""How many inputs an own operator of each shape may take; sums of events are the engine's own."""
MOST_SUMS, MOST_PARAMS = 3, 4

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def operator(
    *,
    shape: str | Shape,
    params: Iterable[Param] = (),
    version: int = 1,
    name: str | None = None,
    sums: Iterable[tuple[str, ...]] = (),
    minimum: int = 0,
    scaling: str | Scaling = Scaling.UNKNOWN,
) -> Callable[[Kernel], Kernel]:
    """Make a plain function an operator of the language, called as a method under its name; the function stays what it is.

    `shape` says how the engine calls it (see `asof.operators.operator`), `params` are the numbers that it takes behind its inputs, with
    their ranges; of an operator over bars the first one is how many bars it looks at, its own included. `version` is its meaning: raise it
    when the function changes, and give the feature sets that use it a new version, too. `sums` and `minimum` are for operators over the
    events of a window. `scaling` says what it makes of adjusted prices; without it they are refused in its windows.

    Raises `DefinitionError` where the name is taken, the function has no docstring, its arguments do not fit, or it uses what may change.
    """

    def register(kernel: Kernel) -> Kernel:
        if not isinstance(kernel, FunctionType) or kernel.__name__ == "<lambda>":
            raise DefinitionError(f"an operator is a plain function, not {kernel!r}: define it with def")
        called = kernel.__name__ if name is None else name
        _check_name(called)
        if not inspect.getdoc(kernel):
            raise DefinitionError(f"operator {called} has no docstring: say what it is, and when it is missing")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise DefinitionError(f"operator {called}: version={version!r} is not a whole number from 1 on")
        form, given, totals = _one_of(Shape, shape, called), tuple(params), tuple(map(tuple, sums))
        _check_params(called, form, given)
        inputs = _inputs(called, form, kernel, given, totals)
        scales = _one_of(Scaling, scaling, called)
        made = Operator(called, form, kernel, inputs, given, totals, None, minimum, version, scales, digest_of(kernel))
        KNOWN.add(made)
        return kernel

    return register


def known(operator: Operator | Callable[..., object] | str) -> Operator:
    """The operator that a function was made, or that a name stands for. Raises `DefinitionError` where there is none."""
    if isinstance(operator, Operator):
        return operator
    if isinstance(operator, str):
        if there := KNOWN.named(operator):
            return there
        raise DefinitionError(f"no operator of anybody's own is called {operator!r}{did_you_mean(operator, list(KNOWN.own))}")
    for there in KNOWN.own.values():
        if there.kernel is operator or (isinstance(operator, FunctionType) and _same(there.kernel, operator)):
            return there
    raise DefinitionError(f"{operator!r} is no operator: put @asof.operator(...) above it")


def _same(kernel: Callable[..., object], function: FunctionType) -> bool:
    """Whether two functions are the same one, loaded twice."""
    return isinstance(kernel, FunctionType) and kernel.__code__ == function.__code__ and kernel.__module__ == function.__module__


Kind = TypeVar("Kind", Shape, Scaling)


def _one_of(kinds: type[Kind], value: str | Kind, called: str) -> Kind:
    names = [kind.value for kind in kinds if kind is not Shape.SUM]
    said = value if isinstance(value, str) else value.value
    if said not in names:
        raise DefinitionError(
            f"operator {called}: {kinds.__name__.lower()} {said!r} is not one of {', '.join(names)}{did_you_mean(said, names)}"
        )
    return kinds(said)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise DefinitionError(f"operator {name!r}: a name is a small letter, then up to 62 small letters, digits or underscores")
    if name in KNOWN.shipped_names or name in METHODS or name in COMPOSED or hasattr(Expr, name):
        raise DefinitionError(f"operator {name!r} has the name of one that ships with asof: choose another, such as my_{name}")


def _check_params(name: str, shape: Shape, params: tuple[Param, ...]) -> None:
    if len(params) > MOST_PARAMS:
        raise DefinitionError(f"operator {name} has {len(params)} params; at most {MOST_PARAMS} fit")
    if len({p.name for p in params}) < len(params):
        raise DefinitionError(f"operator {name} has two params of one name")
    if shape in BAR_SHAPES:
        first = params[0] if params else None
        if first is None or first.kind is not int or not (first.minimum or 0) >= 1:
            raise DefinitionError(
                f'operator {name} looks at bars: its first param is how many, such as Param("n", minimum=1, maximum={LONGEST})'
            )
    if shape is Shape.PRESENT and (len(params) < 2 or params[-1].name != "min_count" or not params[-1].named):
        raise DefinitionError(
            f'operator {name} takes what is there of a window: its last param is Param("min_count", minimum=1, named=True)'
        )


def _inputs(name: str, shape: Shape, kernel: FunctionType, params: tuple[Param, ...], sums: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The inputs of a kernel: what it takes beside `out`, the sums and the params."""
    takes = [p.name for p in params[1:-1]] if shape is Shape.PRESENT else [p.name for p in params]
    signature = inspect.signature(kernel)
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in signature.parameters.values()):
        raise DefinitionError(f"operator {name}: a kernel takes plain arguments without defaults; those of params are said in Param")
    words = list(signature.parameters)
    lead, rest = words[: len(words) - len(takes)], words[len(words) - len(takes) :]
    if rest != takes:
        raise DefinitionError(f"operator {name}{signature} does not end with its params {', '.join(takes)}")
    if shape in (Shape.SERIES, Shape.RAW):
        if not lead:
            raise DefinitionError(f"operator {name}{signature}: the first argument of a {shape.value} is the array `out`, which it fills")
        lead = lead[1:]
    if sums and (shape not in (Shape.MOMENT, Shape.WINDOW) or len(sums) > MOST_SUMS):
        raise DefinitionError(f"operator {name}: sums are for moments and windows of events, at most {MOST_SUMS}")
    if shape is Shape.MOMENT:
        found = tuple(dict.fromkeys(word for one in sums for word in one))
        fits = len(lead) == 1 + len(sums)
    else:
        found = tuple(lead[: len(lead) - len(sums)])
        fits = {word for one in sums for word in one} <= set(found)
    if not fits or not 1 <= len(found) <= MOST_INPUTS[shape]:
        most = MOST_INPUTS[shape]
        raise DefinitionError(
            f"operator {name}{signature} is no {shape.value}: it takes 1 to {most} inputs, then its sums, then its params"
        )
    return found


__all__ = ["known", "operator"]
