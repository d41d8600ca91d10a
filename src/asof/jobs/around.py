"""Feature sets around one operator each, so that it can be checked for leaks as sets are: with small parameters, on what it works on."""

from __future__ import annotations

from asof.features.across import across
from asof.features.expression import BARS, Expr, apply, bars, events, where
from asof.features.feature_set import FeatureSet
from asof.operators import EVENT_SHAPES, FORMS, POINT_SHAPES, SECTION_SHAPES, Operator, Param
from asof.operators.staged import HIGHER
from asof.timeframes import UNITS, duration_text
from asof.timeframes import timeframe as timeframe_micros

NEWS = {name: events.window(name) for name in ("2h", "3d")}
RETURNS = bars.close / bars.close.lag(1) - 1
UNIVERSE, GROUPING = "universe", "grouping"
"""What a made-up world has memberships of."""
HIGHER_BY = 5
"""How many bars make one of the higher timeframe that is looked at, unless that is more than a day."""
DAY = UNITS["d"]
HALF_LIFE = 6 * UNITS["h"]


def tried_on(timeframe: str | None) -> tuple[Operator, ...]:
    """The operators that can be tried on bars of a timeframe, or on made-up ones: of days no higher bars are made."""
    below = timeframe is None or 2 * timeframe_micros(timeframe) <= DAY
    return tuple(operator for operator in FORMS if below or operator.name not in HIGHER)


def set_around(operator: Operator, timeframe: str | None = None) -> FeatureSet:
    """A feature set that applies an operator to prices and returns, the events of two windows, higher bars, or across instruments.

    `timeframe` is that of the bars that it will be computed on. Without it they are made up: lower ones than days, with memberships.
    """
    if operator.shape in POINT_SHAPES:
        made = _of_points(operator)
    elif operator.shape in EVENT_SHAPES:
        made = _of_windows(operator)
    elif operator.shape in SECTION_SHAPES:
        made = _of_sections(operator, members=timeframe is None)
    elif operator.name in HIGHER:
        made = _of_higher(operator, timeframe)
    else:
        mood = NEWS["3d"].sentiment.mean()
        inputs = {"on_prices": (bars.close, bars.open, bars.volume), "on_returns": (RETURNS, mood, bars.volume)}
        made = {name: _applied(operator, given[: len(operator.inputs)]) for name, given in inputs.items()}
    return FeatureSet("operator", made)


def _applied(operator: Operator, inputs: tuple[Expr, ...]) -> Expr:
    return Expr(operator, inputs, _numbers(operator.params), "", BARS)


def _of_windows(operator: Operator) -> dict[str, Expr]:
    """Over the events of two windows, or those of them whose score is not 0."""
    inputs = {n: (w.sentiment, w.confidence, w.clock_skew)[: len(operator.values)] for n, w in NEWS.items()}
    some = {n: (w.sentiment != 0,) * operator.chosen for n, w in NEWS.items()}
    return {f"window_{n}": _applied(operator, (*inputs[n], *some[n])) for n in NEWS}


def _of_points(operator: Operator) -> dict[str, Expr]:
    """From point to point of the events of two windows, added up."""
    spans = ("1d",) * len(operator.params)
    made = {n: apply(operator.name, *(w.sentiment, w.present)[: len(operator.inputs)], *spans) for n, w in NEWS.items()}
    return {f"window_{name}": where(x.is_missing(), 0, x).sum() for name, x in made.items()}


def _of_sections(operator: Operator, *, members: bool) -> dict[str, Expr]:
    """Across all instruments, and where there are memberships across the groups of a universe."""
    sections = {"all": across(), **({"groups": across(UNIVERSE, by=GROUPING)} if members else {})}
    values = {"on_prices": (bars.close, bars.volume), "on_returns": (RETURNS, bars.volume)}
    count = len(operator.inputs) - 2
    return {
        f"{name}_of_{of}": getattr(section, operator.name)(*given[:count], *_numbers(operator.params))
        for of, section in sections.items()
        for name, given in values.items()
    }


def _of_higher(operator: Operator, timeframe: str | None) -> dict[str, Expr]:
    """Of the bars of a higher timeframe, and of a mean of them."""
    base = DAY if timeframe is None else timeframe_micros(timeframe)
    above = bars.every(duration_text(max(1, min(HIGHER_BY, DAY // base)) * base))
    return {name: _applied(operator, (x,)) for name, x in (("price", above.close), ("mean", above.close.mean(3)))}


def _numbers(params: tuple[Param, ...]) -> tuple[int | float, ...]:
    """Small values that parameters may have, and that a window can hold; between them where they are bounded."""
    return tuple(p.kind(_number(p, place, len(params))) for place, p in enumerate(params))


def _number(param: Param, place: int, count: int) -> float:
    if param.default is not None:
        return param.default
    if param.span:
        return HALF_LIFE
    if param.kind is float and param.minimum is not None and param.maximum is not None:
        return param.minimum + (param.maximum - param.minimum) * (place + 1) / (count + 1)
    if param.kind is float:
        return 0.01 * (place + 0.5 - count / 2)
    wanted = 2 if param.name == "min_count" else 3 + place
    return min(max(wanted, param.minimum or 0), param.maximum or wanted)
