"""Expressions: immutable trees of small nodes over bars and points. No data, no I/O.

Nodes are interned: equal trees are one object, so a node can be a dictionary key, is computed once, and `==` is free to build
a comparison, as `<` does. An expression's *domain* is what its rows are: bars, those of a higher timeframe, the points of one window, or
neither (a constant).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from asof.errors import DefinitionError, UnknownName, did_you_mean
from asof.features import decay
from asof.features.adjustment import ADJUSTED, ANY, FREE, NONE, PREFIX, Scale, rescales, scale_of
from asof.features.event_text import EVENT_TEXTS, EventText
from asof.features.label import WHY, Label
from asof.features.spoken import ARITHMETIC, NOT_THERE, fitting, refusing, spoken
from asof.features.streams import COLUMNS, EVENT_COLUMNS, EVENTS, NOWHERE, Reach, Window, further, last, together, window
from asof.operators import BAR_SHAPES, EVENT_SHAPES, OPERATORS, POINT_SHAPES, SECTION_SHAPES, Operator, Scaling, Shape
from asof.operators.known import KNOWN
from asof.operators.operator import of_chosen
from asof.operators.staged import HIGHER
from asof.timeframes import timeframe

BARS = "bars"
"""The domain of bar expressions; that of a higher timeframe's is the timeframe, that of an expression over points its window."""

Domain = str | Window | None
Number = int | float

BAR_COLUMNS = {
    "open": "first price of the bar",
    "high": "highest price of the bar",
    "low": "lowest price of the bar",
    "close": "last price of the bar",
    "volume": "traded volume of the bar",
    "grid_offset": "microseconds by which an `m` or `h` bar opens off its timeframe's grid; 0 for days",
    "time": "when the bar opens, in microseconds since 1970",
    "session": "when the session began that the bar opens in, in microseconds since 1970; missing outside of sessions",
    "unbroken": "1 where no bar that the instrument's calendar expects is absent between the one before and this; else missing",
}
"""What a bar offers. A price that is missing, zero or below is a missing value."""

COLUMN_REACH = {"unbroken": 1}
"""The columns of a bar that depend on bars before it, and on how many."""

LONGEST_SESSION = 1_440
"""Bars of the longest session, where nothing else is said: the minutes of a day."""

_interned: weakref.WeakValueDictionary[tuple[object, ...], Expr] = weakref.WeakValueDictionary()
_lock = threading.Lock()


@spoken
@refusing(NOT_THERE)
class Expr:
    """A node: an operator applied to other nodes, a column, or a constant. Made by operators and methods, never directly."""

    __slots__ = ("__weakref__", "domain", "inputs", "lookback", "name", "operator", "params", "scale")

    operator: Operator | None
    inputs: tuple[Expr, ...]
    params: tuple[Number, ...]
    name: str
    domain: Domain
    lookback: int
    scale: Scale

    def __new__(cls, operator: Operator | None, inputs: tuple[Expr, ...], params: tuple[Number, ...], name: str, domain: Domain) -> Expr:
        """The one node of this content; `name` is a column's name, '' for the presence of a row."""
        key = (operator, inputs, tuple((type(p), repr(p)) for p in params), name, domain)
        with _lock:
            node = _interned.get(key)
            if node is None:
                node = object.__new__(cls)
                reach = operator.reach(params) if operator else COLUMN_REACH.get(name, 0) if isinstance(domain, str) else 0
                for slot, value in (
                    ("operator", operator),
                    ("inputs", inputs),
                    ("params", params),
                    ("name", name),
                    ("domain", domain),
                    ("lookback", max((i.lookback for i in inputs if i.domain == domain), default=1) + reach),
                    ("scale", scale_of(operator.scaling, [i.scale for i in inputs]) if operator else _leaf_scale(params, name)),
                ):
                    object.__setattr__(node, slot, value)
                _interned[key] = node
        return node

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("expressions are immutable")

    def __hash__(self) -> int:
        return id(self) >> 4

    def __bool__(self) -> bool:
        raise DefinitionError("an expression has no truth value: write `&`, `|`, `~` for and, or, not, and where(condition, a, b) for if")

    def __reduce__(self) -> tuple[Callable[[str], Expr], tuple[str]]:
        from asof.features.text import expression_text, parse_expression  # the text form is built on this module

        return parse_expression, (expression_text(self),)

    def __repr__(self) -> str:
        from asof.features.text import expression_text  # the text form is built on this module

        return expression_text(self)

    def __add__(self, other: Expr | Number) -> Expr:
        return apply("add", self, other)

    def __radd__(self, other: Number) -> Expr:
        return apply("add", other, self)

    def __sub__(self, other: Expr | Number) -> Expr:
        return apply("subtract", self, other)

    def __rsub__(self, other: Number) -> Expr:
        return apply("subtract", other, self)

    def __mul__(self, other: Expr | Number) -> Expr:
        return apply("multiply", self, other)

    def __rmul__(self, other: Number) -> Expr:
        return apply("multiply", other, self)

    def __truediv__(self, other: Expr | Number) -> Expr:
        return apply("divide", self, other)

    def __rtruediv__(self, other: Number) -> Expr:
        return apply("divide", other, self)

    def __neg__(self) -> Expr:
        return apply("negate", self)

    def __lt__(self, other: Expr | Number) -> Expr:
        return apply("less", self, other)

    def __le__(self, other: Expr | Number) -> Expr:
        return apply("less_equal", self, other)

    def __gt__(self, other: Expr | Number) -> Expr:
        return apply("greater", self, other)

    def __ge__(self, other: Expr | Number) -> Expr:
        return apply("greater_equal", self, other)

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]  # builds a comparison, as `<` does
        return apply("equal", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]  # builds a comparison, as `<` does
        return apply("not_equal", self, other)

    def __and__(self, other: Expr | Number) -> Expr:
        return apply("and", self, other)

    def __rand__(self, other: Number) -> Expr:
        return apply("and", other, self)

    def __or__(self, other: Expr | Number) -> Expr:
        return apply("or", self, other)

    def __ror__(self, other: Number) -> Expr:
        return apply("or", other, self)

    def __invert__(self) -> Expr:
        return apply("not", self)

    def at(self, points: PointWindow) -> Expr:
        """For each of other points, the value of the newest point that was known before it, if that is in the window that ends there.

        `quotes.window("10s").mid.at(trades.window("1m"))` has for each trade the middle of the quote that prevailed just before it,
        missing where there was none in the 10 seconds before the trade.
        """
        if not isinstance(points, PointWindow):
            raise DefinitionError(f"at takes a window of points, such as trades.window('1m'), not {points!r}")
        return apply("at", self, points.present)

    def diff(self, n: int = 1) -> Expr:
        """The change over `n` bars: `x - x.lag(n)`."""
        return self - self.lag(n)

    def between(self, low: Expr | Number, high: Expr | Number) -> Expr:
        """1 where the value lies between `low` and `high`, both included, else 0: `(x >= low) & (x <= high)`.

        Raises `DefinitionError` where both are numbers and the wrong way round: nothing lies between them.
        """
        if not isinstance(low, Expr) and not isinstance(high, Expr) and constant(low).params > constant(high).params:
            raise DefinitionError(
                f"between: low={low!r} is above high={high!r}, and nothing lies between: write x.between({high!r}, {low!r})"
            )
        return (self >= low) & (self <= high)

    def crossed_above(self, other: Expr | Number) -> Expr:
        """1 on the first bar that is above `other` after one that was not: `(x > y) & ~(x > y).lag(1)`."""
        above = self > other
        return above & ~above.lag(1)

    def crossed_below(self, other: Expr | Number) -> Expr:
        """1 on the first bar that is below `other` after one that was not: `(x < y) & ~(x < y).lag(1)`."""
        below = self < other
        return below & ~below.lag(1)

    def cumulative(self, within: Expr | None = None, n: int = LONGEST_SESSION) -> Expr:
        """The sum since the first bar of the session, this one included: of as many as `n` bars, which no session may be longer than.

        Missing outside of sessions, in a session that no bar is known before, and where a bar of it has no value. With `within` it is
        the sum since that last changed.
        """
        if within is None:
            if not isinstance(self.domain, str):
                raise DefinitionError("cumulative sums bars, from the first of their session on: bars.volume.cumulative()")
            within = column("session", self.domain)
        return apply("cumulative", self, within, n)

    def ewm(
        self,
        gain: Expr | None = None,
        *,
        span: Number | None = None,
        half_life: Number | None = None,
        wilder: Number | None = None,
        alpha: Number | None = None,
        reach: int | None = None,
        min_count: int | None = None,
    ) -> Expr:
        """The exponentially weighted mean: a finite sum, in which each value weighs `1 - alpha` times the next newer one.

        `alpha` is given as it is, as a `span` (2 / (span + 1)), as a `half_life` in bars, or as Wilder's n (1 / n). `reach` is how many
        bars are looked at; without it as many as hold all of the weight but 2**-53 of it, which a longer series would not add to. The
        value is missing where one of them is; `min_count` takes what there is of them, if that is so many. With a `gain` for each bar
        the mean goes that share of the way to the bar's value, from the oldest of `reach` bars on.
        """
        if gain is not None:
            if reach is None or any(other is not None for other in (span, half_life, wilder, alpha, min_count)):
                raise DefinitionError("ewm with a gain takes a reach beside it and nothing else: x.ewm(gain, reach=500)")
            return apply("ewm", self, gain, reach=reach)
        share = decay.alpha_of(span=span, half_life=half_life, wilder=wilder, alpha=alpha)
        least = {} if min_count is None else {"min_count": min_count}
        return apply("ewm", self, reach=decay.reach_of(share) if reach is None else reach, alpha=share, **least)

    def fading_mean(self, half_life: str, *, time: Expr | None = None, **more: Expr | Number) -> Expr:
        """The mean of a window's events, each weighing half as much as one that is a `half_life` (such as `"6h"`) newer.

        It does not fade until there is another event. Missing when there is no event, or one without a value.
        """
        return self._fading("fading_mean", half_life, time, more)

    def fading_sum(self, half_life: str, *, time: Expr | None = None, **more: Expr | Number) -> Expr:
        """The sum of a window's events with the weights of `fading_mean`: the newest weighs 1."""
        return self._fading("fading_sum", half_life, time, more)

    def _fading(self, name: str, half_life: str, time: Expr | None, more: dict[str, Expr | Number]) -> Expr:
        if not isinstance(self.domain, Window):
            raise DefinitionError(f"{name} works on the points of a window, not on bars: events.window('1d').sentiment.{name}('6h')")
        return apply(name, self, time=column("time", self.domain) if time is None else time, half_life=half_life, **more)

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in METHODS and not KNOWN.named(name):
            if name in _ACROSS:
                raise UnknownName(f"{name} looks across instruments: across(...).{name}(x)")
            hint = WRITTEN.get(name) or did_you_mean(name, [*METHODS, *COMPOSED, *KNOWN.own])
            raise UnknownName(f"no operator is called {name!r}{hint}")
        return lambda *args, **kwargs: apply(name, self, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return [*METHODS, *KNOWN.own, *object.__dir__(self)]


def _leaf_scale(params: tuple[Number, ...], name: str) -> Scale:
    """How a constant or a column is rescaled: 0 as one likes, adjusted columns by their factors, all others not at all."""
    if params:
        return ANY if params[0] == 0 else FREE
    return ADJUSTED[name.removeprefix(PREFIX)] if name.startswith(PREFIX) else FREE


_ACROSS = frozenset(o.name for o in OPERATORS if o.shape in SECTION_SHAPES)
"""The operators across instruments, which have a file of their own."""

METHODS = tuple(dict.fromkeys(o.name for o in OPERATORS if not o.symbol and o.name != "where" and o.shape not in SECTION_SHAPES))
"""The operators that ship and are written as methods."""

WRITTEN = {
    "greater": ": write x > y, or x.maximum(y) for the larger one",
    "less": ": write x < y, or x.minimum(y) for the smaller one",
    "where": ": write where(condition, a, b)",
    "shift": ": write x.lag(n)",
}
"""How those who come from elsewhere may call an operator, and how it is written here."""

COMPOSED = ("between", "crossed_above", "crossed_below", "diff")
"""The methods that are short for an expression."""


def constant(value: Number) -> Expr:
    """A number as an expression; it must be finite."""
    if isinstance(value, Label):
        raise DefinitionError(f"{value!r} is a label, and can be no part of an expression: {WHY}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DefinitionError(f"{value!r} ({type(value).__name__}) is neither an expression nor a number")
    try:
        number = float(value)
    except OverflowError:
        raise DefinitionError("a constant must be finite, not a whole number beyond 1.8e308") from None
    if number - number != 0.0:
        raise DefinitionError(f"a constant must be finite, not {value!r}")
    return Expr(None, (), (number,), "", None)


def column(name: str, domain: Domain, *params: Number) -> Expr:
    """A column of bars, or of the points of a window; '' is the presence of a row: 1 for each."""
    return Expr(None, (), params, name, domain)


def apply(name: str, /, *args: object, **named: object) -> Expr:
    """The operator `name` applied to expressions and numbers, given in order or by name.

    Raises `DefinitionError` where the operator does not exist for such inputs, or a parameter is out of its range.
    """
    first = args[0] if isinstance(args[0], Expr) else constant(args[0])  # type: ignore[arg-type]  # constant() checks
    kinds = ("events", "points") * isinstance(first.domain, Window) + ("present",) * ("min_count" in named) + ("",)
    if name == "negate" and len(args) == 1 and first.operator is None and first.domain is None:
        return constant(-first.params[0])  # as the text form reads it
    inputs_named = sum(key != "where" and (isinstance(v, Expr) or key in KNOWN.inputs) for key, v in named.items())
    operator = _find(name, kinds, 1 + sum(isinstance(a, Expr) for a in args[1:]) + inputs_named)
    if "where" in named:
        operator = _chosen(operator)
    bound = _bind(operator, args, named)
    inputs = tuple(v if isinstance(v, Expr) else constant(v) for v in (bound[i] for i in operator.inputs))  # type: ignore[arg-type]
    params = tuple(p.check(bound[p.name], name) for p in operator.params)
    _check_together(operator, dict(zip((p.name for p in operator.params), params, strict=True)))
    _check_scales(operator, inputs)
    return Expr(operator, inputs, params, "", _result_domain(operator, inputs))


def _chosen(operator: Operator) -> Operator:
    """The operator over chosen events."""
    if operator.shape not in EVENT_SHAPES:
        mend = "choose in what reduces them" if operator.shape in POINT_SHAPES else "of bars write where(condition, a, b)"
        raise DefinitionError(f"{operator.name}(where=...) chooses points of a window; {mend}")
    return of_chosen(operator)


def _check_scales(operator: Operator, inputs: tuple[Expr, ...]) -> None:
    """Refuse a window over what a split or a dividend does not simply multiply."""
    scaled = [i for i in inputs if rescales(i.scale)]
    if operator.shape not in (*BAR_SHAPES, Shape.STAGED) or operator.scaling is Scaling.PRESENCE or not scaled:
        return
    for x in inputs:
        if x.scale == NONE:
            mend = "make it a ratio of adjusted values first, such as bars.adjusted.close / bars.adjusted.close.lag(1)"
            raise DefinitionError(f"{operator.name} looks at earlier values of {x!r}, which a split does not simply multiply: {mend}")
    if operator.scaling is Scaling.UNKNOWN or (operator.scaling is Scaling.WEIGHTED and rescales(inputs[1].scale)):
        which = scaled[-1]
        raise DefinitionError(f"{operator.name} does not say what a split makes of {which!r}: give it a ratio of adjusted values")


def _check_together(operator: Operator, params: dict[str, Number]) -> None:
    """Refuse parameters that are right each for itself and not together."""
    if operator.name == "clip" and params["low"] > params["high"]:
        raise DefinitionError(f"clip: low={params['low']:g} is above high={params['high']:g}")
    length = params.get("n", params.get("reach", 0))
    if params.get("min_count", 0) > length:
        raise DefinitionError(f"{operator.name}: min_count={params['min_count']} is more than the {length} bars of the window")


def _find(name: str, kinds: tuple[str, ...], given: int) -> Operator:
    """The operator of this name, of the first of the kinds that has one: event operators on events, the others on anything."""
    for kind in kinds:
        for arity in (given, *range(1, 4)):
            if found := KNOWN.find(name, kind, arity):
                return found
    if name in KNOWN.names:
        raise DefinitionError(f"{name} works on the points of a window, not on bars: events.window('1h').sentiment.{name}()")
    raise DefinitionError(f"no operator is called {name!r}{did_you_mean(name, KNOWN.names)}")


def _bind(operator: Operator, args: tuple[object, ...], named: dict[str, object]) -> dict[str, object]:
    """Arguments by name, as Python would bind them to `operator.signature`."""
    by_name_only = [*operator.inputs[1:]] if operator.shape in EVENT_SHAPES else []
    order = [*(i for i in operator.inputs if i not in by_name_only), *(p.name for p in operator.params if not p.named)]
    by_name_only += [p.name for p in operator.params if p.named]
    if len(args) > len(order):
        raise DefinitionError(f"{operator.name} takes {operator.signature}, not {len(args)} values")
    bound = dict(zip(order, args, strict=False))
    for key, value in named.items():
        if key not in (*order, *by_name_only) or key in bound:
            raise DefinitionError(f"{operator.name} takes {operator.signature}, not {key}={value!r}")
        bound[key] = value
    for param in operator.params:
        if param.default is not None:
            bound.setdefault(param.name, param.kind(param.default))
    missing = [n for n in (*order, *by_name_only) if n not in bound]
    if missing:
        raise DefinitionError(f"{operator.name} takes {operator.signature}: {missing[0]} is not given")
    return bound


def _result_domain(operator: Operator, inputs: tuple[Expr, ...]) -> Domain:
    """What the rows of the result are; mixed rows are refused."""
    if operator.shape is Shape.AT:
        return _at_domain(*(i.domain for i in inputs))
    domains = list(dict.fromkeys(i.domain for i in inputs if i.domain is not None))
    if len(domains) > 1:
        points = next((d.stream for d in domains if isinstance(d, Window)), EVENTS)
        mend = f"reduce the {points} first, such as .mean()"
        if higher := next((d for d in domains if isinstance(d, str) and d != BARS), None):
            mend = f"take what was known of the {higher} bars first, with .latest()"
        raise DefinitionError(f"{operator.name} cannot mix rows of {' and '.join(map(_rows, domains))}: {mend}")
    domain = domains[0] if domains else None
    if operator.name in HIGHER:
        if not isinstance(domain, str) or domain == BARS:
            raise DefinitionError(f"{operator.name} is for the bars of a higher timeframe: bars.every('1h').close.{operator.name}()")
        return BARS
    if operator.shape in (*BAR_SHAPES, Shape.STAGED) and not isinstance(domain, str):
        points = domain.stream if isinstance(domain, Window) else EVENTS
        raise DefinitionError(f"{operator.name}(n) counts bars; {points} are cut by time: {points}.window('1h')....{operator.name}()")
    if operator.shape in POINT_SHAPES and not isinstance(domain, Window):
        raise DefinitionError(f"{operator.name} works on the points of a window, not on bars: those have .lag(n)")
    if operator.shape in EVENT_SHAPES:
        return BARS
    return domain


def _at_domain(seen: Domain, points: Domain) -> Domain:
    """The rows of `x.at(points)`. Windows of events end elsewhere than those of the market, so that they do not meet."""
    if not isinstance(seen, Window) or not isinstance(points, Window):
        raise DefinitionError("at works on the points of a window, not on bars: quotes.window('10s').mid.at(trades.window('1m'))")
    if seen.stream != points.stream and EVENTS in (seen.stream, points.stream):
        raise DefinitionError(
            f"{seen.stream} cannot be seen at {points.stream}: those of {EVENTS} end at the bar's open, others at its close"
        )
    return points


def _rows(domain: Domain) -> str:
    """How a message calls the rows of a domain."""
    if isinstance(domain, Window):
        return domain.rows
    return BARS if domain == BARS else f"{domain} bars"


@fitting
def where(condition: Expr | Number, a: Expr | Number, b: Expr | Number) -> Expr:
    """`a` where the condition is true, `b` where it is false, missing where the condition is missing."""
    return apply("where", condition, a, b)


NO_COLUMN = "this is no expression yet: take a column, such as bars.close, events.window('1h').sentiment or trades.window('1m').price"
as_no_expression = refusing(dict.fromkeys(ARITHMETIC, NO_COLUMN))
"""For what expressions are taken from."""


@as_no_expression
class AdjustedBars:
    """The bars as they are seen from the row that looks at them: earlier prices and volumes by the shares of then, dividends taken off.

    What an earlier bar's price is multiplied with is the product of `dividend_factor / split` of the actions whose ex-dates lie behind that
    bar and not behind the row's own; its volume is multiplied with their `split` alone. What comes after the row changes nothing.
    """

    def __init__(self, domain: str = BARS) -> None:
        self._domain = domain

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in ADJUSTED:
            raise UnknownName(f"bars.adjusted has no column {name!r}{did_you_mean(name, list(ADJUSTED))}")
        return column(PREFIX + name, self._domain)

    def __dir__(self) -> list[str]:
        return list(ADJUSTED)


@spoken
@as_no_expression
class Bars:
    """The bars of one instrument and timeframe: `bars.close` and its like, `bars.adjusted`, `bars.count(n)`, and `bars.every("1h")`."""

    def __init__(self, domain: str = BARS) -> None:
        self._domain = domain
        self.adjusted = AdjustedBars(domain)

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in BAR_COLUMNS:
            raise UnknownName(f"bars have no column {name!r}{did_you_mean(name, list(BAR_COLUMNS))}")
        return column(name, self._domain)

    def count(self, n: int) -> Expr:
        """How many of the last `n` bars exist; smaller than `n` near the first bar, never missing."""
        return apply("count", column("", self._domain), n)

    def every(self, higher: str) -> Bars:
        """The bars of a higher timeframe, such as `"1h"`; what is made of them meets these bars by `.latest()`."""
        timeframe(higher)
        if self._domain != BARS:
            raise DefinitionError(f"{self._domain} bars have no {higher} bars: write bars.every({higher!r})")
        return Bars(higher)

    def __dir__(self) -> list[str]:
        return [*BAR_COLUMNS, "adjusted", "count", "every"]


@spoken
@as_no_expression
class PointWindow:
    """The points of a stream in a window. `windows` says which stream has a class of its own, with what is made of its columns."""

    def __init__(self, domain: Window) -> None:
        self.domain = domain

    @property
    def present(self) -> Expr:
        """1 for each point."""
        return column("", self.domain)

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        known = COLUMNS[self.domain.stream]
        if name not in known:
            hint = "; only events have texts" if name in EVENT_TEXTS else did_you_mean(name, [*known, *self.made])
            raise UnknownName(f"{self.domain.stream} have no column {name!r}{hint}")
        return column(name, self.domain)

    made: ClassVar[tuple[str, ...]] = ("count",)
    """What there is beside the columns of the stream."""

    def count(self, *, where: Expr | Number | None = None) -> Expr:
        """The number of points in the window, or of those where `where` is true; 0 for none, never missing."""
        return apply("count", self.present, **({} if where is None else {"where": where}))

    def __dir__(self) -> list[str]:
        return [*COLUMNS[self.domain.stream], *self.made]


@spoken
class EventWindow(PointWindow):
    """The events enriched within a duration before each bar's open, both ends included."""

    made = ("count", *EVENT_TEXTS)

    @property
    def category(self) -> EventText:
        """What the event is about, such as `"earnings"`: `news.category == "earnings"`."""
        return EventText("category", self._equals)

    @property
    def source(self) -> EventText:
        """The kind of its source, such as `"twitter"`."""
        return EventText("source", self._equals)

    @property
    def source_name(self) -> EventText:
        """The source itself, by its name."""
        return EventText("source_name", self._equals)

    def _equals(self, comparison: str) -> Expr:
        return column(comparison, self.domain)


@spoken
@as_no_expression
class Events:
    """The scored events that name an instrument, cut into windows by the time they became known."""

    def window(self, length: str) -> EventWindow:
        """The events of the last `length` (such as `"1h"`), ending at the bar's open, both ends included."""
        return EventWindow(window(EVENTS, length))

    def last(self, most: int, within: str = "1d") -> EventWindow:
        """The newest `most` events of those `within` a duration, fewer where there are fewer."""
        return EventWindow(last(EVENTS, most, within))


bars = Bars()
events = Events()


def inputs_of(node: Expr) -> tuple[Expr, ...]:
    """What a node is made of."""
    return node.inputs


def walk(*roots: Expr, below: Callable[[Expr], tuple[Expr, ...]] = inputs_of) -> Iterator[Expr]:
    """Every node under the roots once, inputs before the nodes that use them; the order depends on the expressions alone."""
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if id(node) in seen:
            continue
        if ready:
            seen.add(id(node))
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(below(node)))


def lookback(*roots: Expr) -> int:
    """How many bars, the current one included, the expressions need."""
    return max((root.lookback for root in roots), default=1)


def windows(*roots: Expr) -> tuple[Window, ...]:
    """The windows that the expressions use, by stream, shortest first."""
    return tuple(sorted({n.domain for n in walk(*roots) if isinstance(n.domain, Window)}))


def reaches(*roots: Expr, below: Callable[[Expr], tuple[Expr, ...]] = inputs_of) -> Mapping[str, Reach]:
    """How far back the expressions see the points of each stream that they use.

    What is made of a point may see others before it, and bars may see points through the bars before them.
    """
    found: dict[Expr, Mapping[str, Reach]] = {}
    for node in walk(*roots, below=below):
        found[node] = _reach(node, [found[i] for i in below(node)])
    return together(*(found[root] for root in roots))


def _reach(node: Expr, inputs: list[Mapping[str, Reach]]) -> Mapping[str, Reach]:
    if node.operator is None:
        return {node.domain.stream: Reach(0, 1)} if isinstance(node.domain, Window) else NOWHERE
    shape = node.operator.shape
    if shape is Shape.AT:
        seen = node.inputs[0].domain
        assert isinstance(seen, Window)
        return together(further(inputs[0], seen.length), inputs[1])
    reach = together(*inputs) if any(inputs) else NOWHERE
    if shape in EVENT_SHAPES:
        return further(reach, next(i.domain.length for i in node.inputs if isinstance(i.domain, Window)))
    if shape in POINT_SHAPES:
        return further(reach, int(node.params[0]))
    return further(reach, bars=node.operator.reach(node.params)) if shape in BAR_SHAPES and reach else reach


def higher_timeframes(*roots: Expr) -> dict[str, int]:
    """The higher timeframes that the expressions use, in the order of their text, and how many bars of each they need."""
    found: dict[str, int] = {}
    for node in walk(*roots):
        if isinstance(node.domain, str) and node.domain != BARS:
            found[node.domain] = max(node.lookback, found.get(node.domain, 1))
    return dict(sorted(found.items()))


__all__ = [
    "BARS",
    "EVENT_COLUMNS",
    "Expr",
    "Shape",
    "apply",
    "bars",
    "column",
    "constant",
    "events",
    "higher_timeframes",
    "lookback",
    "reaches",
    "walk",
    "where",
    "windows",
]
