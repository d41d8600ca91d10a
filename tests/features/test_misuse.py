"""Whatever is asked of the language wrongly is answered by it, with what to write instead, and by no error of Python's own."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product

import numpy as np
import pytest

from asof import FeatureSet, across, bars, books, events, labels, quotes, trades, where
from asof.errors import DefinitionError
from asof.features.library import microstructure, news, technical

NEWS, HOURLY = events.window("1h"), bars.every("1h")
THINGS: dict[str, object] = {
    "bars.close": bars.close,
    "bars of an hour": HOURLY.close,
    "sentiment": NEWS.sentiment,
    "price": trades.window("1m").price,
    "bars": bars,
    "adjusted": bars.adjusted,
    "events": events,
    "news": NEWS,
    "category": NEWS.category,
    "trades": trades,
    "traded": trades.window("1m"),
    "quotes": quotes,
    "quoted": quotes.window("1m"),
    "books": books,
    "booked": books.window("1m"),
    "across": across("sp500"),
}
WRONG = (None, "x", "1h", "", 0, -1, 1.5, math.nan, math.inf, 10**400, True, [], {}, object(), bars, bars.close, HOURLY.close, NEWS)
WRONG += (NEWS.sentiment, NEWS.category, trades.window("1m").price, np.arange(3.0), labels.ahead(bars.close, 1), 3 + 0j, len)
NAMES = ("nobody", "where", "weight", "min_count", "span", "alpha", "half_life", "time", "within", "by", "n", "x")
FUNCTIONS: dict[str, Callable[..., object]] = {
    **{f.__name__: f for f in (where, across, labels.ahead, labels.forward_return, labels.direction, labels.triple_barrier)},
    "FeatureSet": FeatureSet,
    "LabelSet": labels.LabelSet,
    **{
        f"{module.__name__.rpartition('.')[2]}.{name}": f
        for module in (technical, microstructure, news)
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__ and not name.startswith("_")
    },
}


def methods() -> Iterator[tuple[str, Callable[..., object]]]:
    """Whatever can be called of the things, by name."""
    for name, thing in THINGS.items():
        for word in dir(thing):
            if not word.startswith("_") and callable(found := getattr(thing, word)):
                yield f"{name}.{word}", found


def answered(call: Callable[..., object], *args: object, **named: object) -> None:
    """A call that is either right, or refused by the language; what else it raises fails the test."""
    with suppress(DefinitionError):
        call(*args, **named)


CALLS = {**dict(methods()), **FUNCTIONS}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_wrong_says_how_it_is_right(name: str):
    call = CALLS[name]
    answered(call)
    for value in WRONG:
        for args in ((value,), (5, value), (bars.close, value), (value, 5), (NEWS.sentiment, value), (value,) * 3, (value,) * 9):
            answered(call, *args)
        for word in NAMES:
            answered(call, **{word: value})
            answered(call, 3, **{word: value})


@pytest.mark.parametrize("name", THINGS)
def test_what_python_can_be_asked_of_an_object_has_an_answer(name: str):
    thing = THINGS[name]
    asked = (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.floordiv, operator.xor, operator.lt)
    asked += (operator.ge, operator.eq, operator.ne, operator.and_, operator.or_)
    for ask, value in product(asked, WRONG):
        answered(ask, thing, value)
        if not isinstance(value, np.ndarray):
            answered(ask, value, thing)
    for ask in (operator.neg, operator.invert, abs):
        answered(ask, thing)
    with pytest.raises(DefinitionError):
        thing % 2  # type: ignore[operator]  # that is the question
    if name != "category":
        with pytest.raises(DefinitionError):
            thing["close"]  # type: ignore[index]  # that is the question


def test_a_sum_of_numpy_s_numbers_is_an_expression_and_one_of_its_arrays_no_feature():
    assert np.float64(2) * bars.close is 2 * bars.close
    with pytest.raises(DefinitionError, match="is not an expression over bars"):
        FeatureSet("arrays", {"x": np.arange(3.0) * bars.close})  # type: ignore[dict-item]  # that is the question


MENDED = {
    "a condition in its place": (
        lambda: NEWS.count(NEWS.is_repost),  # type: ignore[misc]  # that is the question
        r"count is called as count\(where=\): too many positional arguments",
    ),
    "nothing between": (lambda: bars.close.between(2, 1), r"low=2 is above high=1, and nothing lies between: write x.between\(1, 2\)"),
    "a power": (lambda: bars.close**2, r"there is no \*\*: write x \* x"),
    "a text for an expression": (lambda: technical.sma("close", 20), "sma: x='close' is not an expression, such as bars.close"),
    "half a bar": (lambda: technical.rsi(bars.close, 14.5), "rsi: n=14.5 is not a whole number"),
    "bars for a window": (lambda: microstructure.vwap(bars), r"vwap: trades=.* is not a window of trades, such as trades.window\('1m'\)"),
    "no length": (lambda: technical.sma(bars.close), r"sma is called as sma\(x, n\): missing a required argument: 'n'"),
    "no value across": (lambda: across().rank(), r"rank takes across\(...\).rank\(x\): x is not given"),
    "features in a list": (lambda: FeatureSet("v1", [bars.close]), "the features of v1 are list: give a dictionary from names to them"),
    "no features": (lambda: FeatureSet("v1"), r"FeatureSet is called as FeatureSet\(version, features, flags=None\): missing"),
    "bars themselves": (lambda: bars > 5, "this is no expression yet: take a column, such as bars.close"),
}


@pytest.mark.parametrize("what", MENDED)
def test_a_misuse_is_told_with_the_mend(what: str):
    build, said = MENDED[what]
    with pytest.raises(DefinitionError, match=said):
        build()  # type: ignore[no-untyped-call]  # so are all of them


def test_between_takes_equal_limits_and_expressions():
    assert bars.close.between(1, 1) is (bars.close >= 1) & (bars.close <= 1)
    assert bars.close.between(bars.low, 1) is (bars.close >= bars.low) & (bars.close <= 1)
