"""How the language answers where Python would: to calls that do not fit, and to operators that expressions do not have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import NoReturn, ParamSpec, TypeVar

from asof.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

NOUNS = {
    "Expr": "an expression, such as bars.close",
    "int": "a whole number",
    "EventWindow": "a window of events, such as events.window('1h')",
    "TradeWindow": "a window of trades, such as trades.window('1m')",
    "QuoteWindow": "a window of quotes, such as quotes.window('1m')",
    "BookWindow": "a window of books, such as books.window('1m')",
}
"""What a parameter asks for, by the word that its annotation says it with."""


def fitting(call: Callable[P, R]) -> Callable[P, R]:
    """The call, which answers arguments that do not fit its parameters with a `DefinitionError` that says how it is called."""

    @functools.wraps(call)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except TypeError:
            refuse_unfit(call, args, kwargs)
            raise

    return answered


def refuse_unfit(call: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Raise `DefinitionError` where a call does not take such arguments."""
    try:
        inspect.signature(call).bind(*args, **kwargs)
    except TypeError as error:
        name = call.__qualname__.split(".")[0] if call.__name__ == "__init__" else call.__name__
        raise DefinitionError(f"{name} is called as {name}({', '.join(_shown(call))}): {error}") from None


def _shown(call: Callable[..., object]) -> list[str]:
    """The parameters as messages show them: those that are given by name with `=`."""
    parameters = [p for p in inspect.signature(call).parameters.values() if p.name != "self"]
    return [f"{p.name}=" if p.kind is p.KEYWORD_ONLY else p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]


def spoken(cls: C) -> C:
    """A class whose public methods are `fitting`."""
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and not name.startswith("_"):
            setattr(cls, name, fitting(member))
    return cls


def composed(call: Callable[P, R]) -> Callable[P, R]:
    """A function that makes expressions of others: `fitting`, and it refuses what is no expression, window or whole number in place of one.

    The kinds of parameters are read off their annotations, which are texts, so that this needs to know none of the classes.
    """
    asked = {
        name: words
        for name, p in inspect.signature(call).parameters.items()
        if set(words := str(p.annotation).split(" | ")) <= {*NOUNS, "None"}
    }

    @functools.wraps(call)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unfit(call, args, kwargs)
        for name, value in inspect.signature(call).bind(*args, **kwargs).arguments.items():
            if name in asked and not any(_is(value, word) for word in asked[name]):
                raise DefinitionError(f"{call.__name__}: {name}={value!r} is not {NOUNS[asked[name][0]]}")
        return call(*args, **kwargs)

    return answered


def _is(value: object, word: str) -> bool:
    if word == "None":
        return value is None
    return not isinstance(value, bool) and word in (kind.__name__ for kind in type(value).__mro__)


POWERS = "there is no {}: write x * x or x.sqrt(), and for others (x.log() * power).exp()"
REST = "there is no {}: the language has no remainders and does not round"
NOT_THERE = {
    **dict.fromkeys(("__pow__", "__rpow__"), POWERS.format("**")),
    **dict.fromkeys(("__xor__", "__rxor__"), POWERS.format("^")),
    **dict.fromkeys(("__mod__", "__rmod__"), REST.format("%")),
    **dict.fromkeys(("__floordiv__", "__rfloordiv__"), REST.format("//")),
    "__getitem__": "an expression has no rows yet: its value of n bars before is x.lag(n)",
    "__abs__": "there is no abs(x): write x.abs()",
    "__float__": "an expression has no value yet: choose between values with where(condition, a, b)",
}
"""What Python can be asked of an object and an expression does not answer, with the mend."""

ARITHMETIC = (
    *(f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "and", "or") for side in ("", "r")),
    *("__lt__", "__le__", "__gt__", "__ge__", "__neg__", "__invert__"),
    *(name for name in NOT_THERE if name != "__float__"),
)
"""What is asked of expressions, and sometimes of what they are taken from."""


def refusing(mends: Mapping[str, str]) -> Callable[[C], C]:
    """A class whose objects refuse what Python can ask of them, each with its mend."""

    def with_refusals(cls: C) -> C:
        for name, mend in mends.items():
            setattr(cls, name, _refusal(mend))
        return cls

    return with_refusals


def _refusal(mend: str) -> Callable[..., NoReturn]:
    def refused(*_: object) -> NoReturn:
        raise DefinitionError(mend)

    return refused


__all__ = ["ARITHMETIC", "NOT_THERE", "composed", "fitting", "refusing", "spoken"]
