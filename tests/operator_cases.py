"""A case for every operator: what it answers in plain Python, and expressions that use it, made from its signature.

An oracle is an independent definition over lists, not a copy of the kernel. What it is given follows from the operator's shape:

- ROW: one finite number for each input; LOGIC: one number for each, `None` where missing, `ERROR` for an error;
- SERIES: the whole window of each input, oldest first; RAW: all values so far, missing ones and errors among them;
- PRESENT: the values of the window that are there (of bars that have all), oldest first, without its length and `min_count`;
- POINT: the points so far, missing ones and errors among them, and when each became known; AT: that, and when the point is that sees them;
- SUM, MOMENT and WINDOW: the events' values, oldest first; COUNT: the same, missing ones and errors among them.

The parameters follow. An answer is a number, `None` or `ERROR`; what overflows or divides by zero is an error.
"""

from __future__ import annotations

import itertools
import math
import operator as python
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asof.features.expression import Expr, apply, bars, events, where
from asof.operators import BAR_SHAPES, EVENT_SHAPES, OPERATORS, POINT_SHAPES, STAGED_SHAPES, Operator, Param, Shape
from asof.operators.operator import of_chosen
from asof.timeframes import UNITS, duration_text

ERROR = math.inf
"""How lists of the tests write an error, as the engine does."""

Answer = float | None
WINDOWS = ("1h", "10m")
"""The event windows that the expressions use."""


@dataclass(frozen=True)
class Case:
    """An oracle and how near it the operator must come.

    `bits` asks for the same bits; otherwise the difference may be 1e-12 of the answer, or of `scale` (of the same arguments as
    the oracle's) where digits cancel by the definition itself; `ulps` allows units in the last place instead.
    """

    oracle: Callable[..., Answer]
    bits: bool = False
    scale: Callable[..., float] | None = None
    ulps: int | None = None


def left_to_right(x: Sequence[float]) -> float:
    """The sum as a plain loop adds it up."""
    result = x[0]
    for value in x[1:]:
        result += value
    return result


def both(a: Answer, b: Answer) -> Answer:
    """AND of SQL."""
    if 0.0 in (a, b):
        return 0.0
    return None if None in (a, b) else ERROR if ERROR in (a, b) else 1.0


def either(a: Answer, b: Answer) -> Answer:
    """OR of SQL."""
    if any(v not in (0.0, None, ERROR) for v in (a, b)):
        return 1.0
    return None if None in (a, b) else ERROR if ERROR in (a, b) else 0.0


def weighted_mean(x: list[float], weight: list[float]) -> float:
    total = math.fsum(weight)
    return math.fsum(map(python.mul, x, weight)) / total if total else math.fsum(x) / len(x)


def weighted_std(x: list[float], weight: list[float]) -> float:
    total = math.fsum(weight)
    if not total:
        return statistics.pstdev(x)
    centre = weighted_mean(x, weight)
    return math.sqrt(math.fsum(w * (v - centre) ** 2 for v, w in zip(x, weight, strict=True)) / total)


def biggest(x: Sequence[float], *_: object) -> float:
    """The scale of answers that cancel: the largest magnitude among the values."""
    return max(map(abs, x), default=0.0)


def biggest_square(x: Sequence[float], *_: object) -> float:
    return biggest(x) ** 2


def _spread(x: Sequence[float], ddof: float) -> float:
    return statistics.variance(x) if ddof else statistics.pvariance(x)


def _spread_root(x: Sequence[float], ddof: float) -> float:
    return statistics.stdev(x) if ddof else statistics.pstdev(x)


def one(*_: object) -> float:
    """The scale of answers that are themselves relative, such as a correlation."""
    return 1.0


def products(x: Sequence[float], y: Sequence[float], *_: object) -> float:
    return biggest(x) * biggest(y)


def deviations(x: Sequence[float]) -> list[Fraction]:
    """The exact distances from the exact mean."""
    exact = [Fraction(v) for v in x]
    return [v - sum(exact) / len(exact) for v in exact]


def moment(x: Sequence[float], power: int) -> Fraction:
    return sum((d**power for d in deviations(x)), Fraction()) / len(x)


def skew(x: Sequence[float], n: int) -> float:
    return math.sqrt(n * (n - 1)) / (n - 2) * float(moment(x, 3)) / float(moment(x, 2)) ** 1.5


def kurt(x: Sequence[float], n: int) -> float:
    excess = moment(x, 4) / moment(x, 2) ** 2 - 3
    return float(Fraction(n - 1, (n - 2) * (n - 3)) * ((n + 1) * excess + 6))


def covariance(x: Sequence[float], y: Sequence[float], by: float) -> float:
    return float(sum(map(python.mul, deviations(x), deviations(y))) / Fraction(by))


def corr(x: Sequence[float], y: Sequence[float], n: int) -> float:
    return covariance(x, y, n) / (math.sqrt(moment(x, 2)) * math.sqrt(moment(y, 2)))


def line(x: Sequence[float]) -> tuple[Fraction, list[Fraction]]:
    """The slope of the straight line by least squares, and what is left of the values without it."""
    bars = deviations(range(len(x)))
    slope = sum(map(python.mul, bars, deviations(x)), Fraction()) / sum(b * b for b in bars)
    return slope, [v - slope * b for v, b in zip(deviations(x), bars, strict=True)]


def quantile(x: Sequence[float], q: float) -> float:
    ordered, place = sorted(x), q * (len(x) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place % 1)


def rank(x: Sequence[float], n: int) -> float:
    return statistics.mean(k for k, v in enumerate(sorted(x), 1) if v == x[-1]) / n


def place_of(value: float, x: Sequence[float], newest: int) -> float:
    return float(len(x) - 1 - x[::-1].index(value) if newest else x.index(value))


def faded(x: Sequence[float], alpha: float) -> float:
    weights = [(1 - alpha) ** k for k in reversed(range(len(x)))]
    return math.fsum(map(python.mul, x, weights)) / math.fsum(weights)


def fading(x: Sequence[float], time: Sequence[float], half_life: float) -> tuple[float, float]:
    weights = [2.0 ** ((at - time[-1]) / half_life) for at in time]
    return math.fsum(map(python.mul, x, weights)), math.fsum(weights)


def gained(x: Sequence[float], gain: Sequence[float], reach: int) -> float:
    answer = x[0]
    for value, share in zip(x[1:], gain[1:], strict=True):
        answer += share * (value - answer)
    return answer


def bars_since(x: Sequence[Answer], n: int) -> Answer:
    for k, value in enumerate(reversed(x[-n:])):
        if value in (None, ERROR):
            return value
        if value:
            return float(k)
    return None


def one_sided(x: Sequence[float], weight: Sequence[float], n: int) -> float:
    """With exact shares: what of each value's weight lies in each of `n` equal parts of all weight."""
    ends = [Fraction(0), *itertools.accumulate(map(Fraction, weight))]
    edges = [ends[-1] * k / n for k in range(n + 1)]
    sums = [
        sum((Fraction(v) * max(0, min(b, high) - max(a, low)) for v, a, b in zip(x, ends, ends[1:], strict=False)), Fraction())
        for low, high in itertools.pairwise(edges)
    ]
    return float(sum(map(abs, sums)) / ends[-1])


def previous(x: Sequence[Answer], known: Sequence[int], within: int) -> Answer:
    return x[-2] if len(x) > 1 and known[-1] - known[-2] <= within else None


def previous_other(x: Sequence[Answer], known: Sequence[int], within: int) -> Answer:
    if x[-1] is None:
        return None
    others = [k for k, v in enumerate(x) if v is not None and v != x[-1]]
    return x[others[-1]] if others and known[-1] - known[others[-1]] <= within else None


def seen_at(x: Sequence[Answer], known: Sequence[int], moment: int, within: int) -> Answer:
    before = [k for k, at in enumerate(known) if at < moment]
    return x[before[-1]] if before and moment - known[before[-1]] <= within else None


def cumulative(x: Sequence[Answer], within: Sequence[Answer], n: int) -> Answer:
    now, run = within[-1], 0
    while run < len(x) and within[-1 - run] == now:
        run += 1
    if now is None or run == len(x) or run > n or None in x[-run:]:
        return None
    return ERROR if now == ERROR or ERROR in map(abs, x[-run:]) else left_to_right(x[-run:])  # type: ignore[arg-type]  # none is None


RUN = tuple(o for o in OPERATORS if o.shape not in STAGED_SHAPES)
"""The operators that the machine runs; the staged ones have tests of their own."""

CASES: dict[str, Case] = {
    "add/2": Case(python.add, bits=True),
    "subtract/2": Case(python.sub, bits=True),
    "multiply/2": Case(python.mul, bits=True),
    "divide/2": Case(python.truediv, bits=True),
    "negate/1": Case(python.neg, bits=True),
    "less/2": Case(lambda a, b: float(a < b), bits=True),
    "less_equal/2": Case(lambda a, b: float(a <= b), bits=True),
    "greater/2": Case(lambda a, b: float(a > b), bits=True),
    "greater_equal/2": Case(lambda a, b: float(a >= b), bits=True),
    "equal/2": Case(lambda a, b: float(a == b), bits=True),
    "not_equal/2": Case(lambda a, b: float(a != b), bits=True),
    "abs/1": Case(abs, bits=True),
    "sign/1": Case(lambda x: float((x > 0) - (x < 0)), bits=True),
    "sqrt/1": Case(math.sqrt, bits=True),
    "exp/1": Case(math.exp, ulps=2),
    "log/1": Case(math.log, ulps=2),
    "maximum/2": Case(max, bits=True),
    "minimum/2": Case(min, bits=True),
    "clip/1": Case(lambda x, low, high: sorted((low, x, high))[1], bits=True),
    "and/2": Case(both, bits=True),
    "or/2": Case(either, bits=True),
    "not/1": Case(lambda x: x if x in (None, ERROR) else float(not x), bits=True),
    "where/3": Case(lambda condition, a, b: condition if condition in (None, ERROR) else (a if condition else b), bits=True),
    "when/2": Case(lambda x, condition: ERROR if condition == ERROR else (x if condition else None), bits=True),
    "is_missing/1": Case(lambda x: float(x is None), bits=True),
    "lag/1": Case(lambda x, n: x[-1 - n] if len(x) > n else None, bits=True),
    "count/1": Case(lambda x, n: float(sum(v is not None for v in x[-n:])), bits=True),
    "sum/1": Case(lambda x, n: left_to_right(x), bits=True),
    "mean/1": Case(lambda x, n: left_to_right(x) / n, bits=True),
    "var/1": Case(lambda x, n, ddof: _spread(x, ddof), scale=biggest_square),
    "std/1": Case(lambda x, n, ddof: _spread_root(x, ddof), scale=biggest),
    "min/1": Case(lambda x, n: min(x), bits=True),
    "max/1": Case(lambda x, n: max(x), bits=True),
    "cumulative/2": Case(cumulative, bits=True),
    "bars_since/1": Case(bars_since, bits=True),
    "median/1": Case(lambda x, n: statistics.median(x) + 0.0, bits=True),
    "quantile/1": Case(lambda x, n, q: quantile(x, q), scale=biggest),
    "rank/1": Case(rank, bits=True),
    "argmax/1": Case(lambda x, n, newest: place_of(max(x), x, newest), bits=True),
    "argmin/1": Case(lambda x, n, newest: place_of(min(x), x, newest), bits=True),
    "mad/1": Case(lambda x, n: float(sum(map(abs, deviations(x))) / n), scale=biggest),
    "skew/1": Case(skew, scale=one),
    "kurt/1": Case(kurt, scale=one),
    "cov/2": Case(lambda x, y, n, ddof: covariance(x, y, n - ddof), scale=products),
    "corr/2": Case(corr, scale=one),
    "wma/1": Case(lambda x, n: math.fsum(map(python.mul, x, range(1, n + 1))) / (n * (n + 1) / 2), scale=biggest),
    "ewm/1": Case(lambda x, reach, alpha: faded(x, alpha), scale=biggest),
    "ewm/2": Case(gained, bits=True),
    "slope/1": Case(lambda x, n: float(line(x)[0]), scale=biggest),
    "resid/1": Case(lambda x, n: float(line(x)[1][-1]), scale=biggest),
    "rsquare/1": Case(lambda x, n: float(1 - sum(v * v for v in line(x)[1]) / (n * moment(x, 2))), scale=one),
    "present.sum/1": Case(left_to_right, bits=True),
    "present.mean/1": Case(lambda x: left_to_right(x) / len(x), bits=True),
    "present.var/1": Case(_spread, scale=biggest_square),
    "present.std/1": Case(_spread_root, scale=biggest),
    "present.cov/2": Case(lambda x, y, ddof: covariance(x, y, len(x) - ddof), scale=products),
    "present.corr/2": Case(lambda x, y: corr(x, y, len(x)), scale=one),
    "present.min/1": Case(min, bits=True),
    "present.max/1": Case(max, bits=True),
    "present.median/1": Case(lambda x: statistics.median(x) + 0.0, bits=True),
    "present.quantile/1": Case(quantile, scale=biggest),
    "present.ewm/1": Case(faded, scale=biggest),
    "events.count/1": Case(lambda x: float(sum(v is not None for v in x)), bits=True),
    "events.sum/1": Case(math.fsum, bits=True),
    "events.sum/2": Case(lambda x, weight: math.fsum(map(python.mul, x, weight)), bits=True),
    "events.mean/1": Case(lambda x: math.fsum(x) / len(x), bits=True),
    "events.mean/2": Case(weighted_mean, bits=True),
    "events.var/1": Case(_spread, scale=biggest_square),
    "events.std/1": Case(_spread_root, scale=biggest),
    "events.std/2": Case(weighted_std, scale=biggest),
    "events.min/1": Case(min, bits=True),
    "events.max/1": Case(max, bits=True),
    "events.last/1": Case(lambda x: x[-1], bits=True),
    "events.distinct/1": Case(lambda x: float(len(set(x))), bits=True),
    "events.fading_sum/2": Case(lambda x, time, half_life: fading(x, time, half_life)[0], scale=biggest),
    "events.fading_mean/2": Case(lambda x, time, half_life: python.truediv(*fading(x, time, half_life)), scale=biggest),
    "events.first/1": Case(lambda x: x[0], bits=True),
    "events.buckets/2": Case(one_sided, scale=one),
    "points.previous/1": Case(previous, bits=True),
    "points.previous_other/1": Case(previous_other, bits=True),
    "points.at/2": Case(seen_at, bits=True),
}
"""The case of each operator, by its key."""


MOST_CHOICES = 6
"""Choices of parameters that an operator is tried with."""


def parameters(operator: Operator) -> list[tuple[float, ...]]:
    """A few choices of an operator's parameters, within their limits and fit for one another."""
    choices = [c for c in itertools.product(*map(_choices, operator.params)) if _fit(operator, c)]
    return choices[:: -(-len(choices) // MOST_CHOICES)]


def _choices(param: Param) -> list[float]:
    """Values that a parameter may have: the least, one that is hardly more, and one that is usual."""
    low = -0.5 if param.minimum is None else param.minimum
    high = math.inf if param.maximum is None else param.maximum
    if param.span:
        return [10 * UNITS["s"], UNITS["m"], 7 * UNITS["m"]]
    usual = (low, low + 1, 7) if param.kind is int else (low, low + 0.3, 99.5)
    return sorted({param.kind(min(value, high)) for value in usual})


def _fit(operator: Operator, params: tuple[float, ...]) -> bool:
    given = dict(zip((p.name for p in operator.params), params, strict=True))
    length = given.get("n", given.get("reach", math.inf))
    return given.get("low", 0) <= given.get("high", 0) and given.get("min_count", 0) <= length


def called(operator: Operator, inputs: Sequence[Expr], params: tuple[float, ...], where: Expr | None = None) -> Expr:
    """The operator applied to as many of the inputs as it takes, and with `where` to some of the events."""
    first, *more = (*inputs[: len(operator.values)], *([] if where is None else [where]))
    params = tuple(duration_text(int(v)) if p.span else v for p, v in zip(operator.params, params, strict=True))  # type: ignore[misc]
    in_order = [value for p, value in zip(operator.params, params, strict=True) if not p.named]
    named = {p.name: value for p, value in zip(operator.params, params, strict=True) if p.named}
    if operator.shape in EVENT_SHAPES:
        return apply(operator.name, first, *in_order, **dict(zip(operator.inputs[1:], more, strict=True)), **named)
    return apply(operator.name, first, *more, *in_order, **named)


def expressions(operator: Operator) -> dict[str, Expr]:
    """Expressions that use the operator on prices, on returns, on events, on what missing data does, and inside others."""
    made: dict[str, Expr] = {}
    ret = bars.close / bars.close.lag(1) - 1
    for k, params in enumerate(parameters(operator)):
        if operator.shape in EVENT_SHAPES:
            for window in WINDOWS:
                news = events.window(window)
                made[f"window_{window}_{k}"] = called(operator, (news.sentiment, news.confidence), params)
                made[f"other_{window}_{k}"] = called(operator, (news.clock_skew / news.confidence, news.sentiment.abs()), params)
                some = (news.category == "earnings") | news.is_repost
                made[f"where_{window}_{k}"] = called(
                    of_chosen(operator), (news.sentiment, news.confidence)[: len(operator.inputs)], params, some
                )
            made[f"later_{k}"] = (made[f"window_1h_{k}"] + ret).lag(2)
            continue
        if operator.shape in POINT_SHAPES:
            news = events.window(WINDOWS[k % 2])
            for name, of in (("all", news), ("few", events.last(3, within="1h"))):
                one, broken = (called(operator, (x, of.present), params) for x in (of.sentiment, of.sentiment / of.confidence))
                made[f"{name}_{k}"] = one.last()
                made[f"sum_{name}_{k}"] = where(one.is_missing(), 0, one).sum() + broken.count()
                made[f"nested_{name}_{k}"] = called(operator, (one * of.confidence, events.window("2m").present), params).mean()
            made[f"later_{k}"] = (made[f"sum_all_{k}"] + ret).lag(2)
            continue
        news = events.window(WINDOWS[k % 2])
        made[f"price_{k}"] = called(operator, (bars.close, bars.open, bars.volume), params)
        made[f"broken_{k}"] = called(operator, (ret / bars.volume, bars.high - bars.low, ret), params)
        made[f"news_{k}"] = called(operator, (news.sentiment.mean(), news.confidence.sum(), news.count()), params)
        if operator.shape in BAR_SHAPES:
            made[f"nested_{k}"] = called(operator, (made[f"broken_{k}"], made[f"price_{k}"]), params)
        else:
            made[f"events_{k}"] = called(operator, (news.sentiment, news.confidence, news.clock_skew), params).mean()
    if operator.shape in (Shape.ROW, Shape.LOGIC) and len(operator.inputs) == 2:
        made["constant_right"] = apply(operator.name, ret, 0.0)
        made["constant_left"] = apply(operator.name, -0.0, ret)
    return made
