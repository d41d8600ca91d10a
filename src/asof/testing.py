"""`asof.testing`: holds an operator to the law that those which ship are held to.

`check_operator` tries an operator, with a few choices of its parameters, on made-up series with missing values and errors:

1. What it is made of: its kernel reads nothing that can change, and writes no global.
2. The kernel as plain Python: it stays inside its arrays, leaves its inputs alone, and answers for every row, whatever was in its
   room before. Compiled, it gives the same numbers.
3. One value of a series is changed, to a missing one and to an error as well: no row before it may change, and none that lies further
   behind than the operator says it looks.
4. The series begins later.
5. `asof.leakcheck` does all it does, with the engine around: cut, changed and late data, later starts, stretches, instruments alone,
   threads, and asking again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asof.engine.drivers import Drive, driver
from asof.engine.native import compile_loop
from asof.errors import DefinitionError
from asof.features import own
from asof.features.expression import BARS, Expr, bars, events
from asof.features.feature_set import FeatureSet
from asof.jobs.leakcheck import leakcheck
from asof.operators import BAR_SHAPES, EVENT_SHAPES, Operator, Param
from asof.operators.source import digest_of

Floats = NDArray[np.float64]
Given = tuple[int | float, ...]

MOST_CHOICES = 4
"""Choices of parameters that an operator is tried with."""
ROUNDING = 1e-9
"""How far plain Python and compiled code may be apart, of the larger value: NumPy's own sums add up in another order."""
GARBAGE = (0.0, math.nan, -7e77)
"""What may be in the room that a kernel fills."""


class LawBroken(AssertionError):
    """An operator that breaks the law; the message says which part of it, and on what."""


def check_operator(operator: Operator | Callable[..., object] | str, *, seed: int = 0, rounds: int = 8) -> None:
    """Hold an operator, or the function that was made one, to the law. Takes some seconds, most of them for compiling.

    `rounds` is how many series each choice of parameters is tried on; the same `seed` makes the same ones. Raises `LawBroken` where one
    breaks the law, `DefinitionError` where it is no operator, or cannot be compiled.
    """
    chosen = own.known(operator)
    try:
        digest_of(chosen.kernel)  # type: ignore[arg-type]  # a kernel is a plain function
    except DefinitionError as error:
        raise LawBroken(str(error)) from None
    choices = _parameters(chosen)
    for params in choices:
        trial = _Trial(chosen, params)
        for k in range(rounds):
            _check(trial, np.random.default_rng((seed, k)))
    found = leakcheck(_set_around(chosen, choices), *_market(chosen, choices, seed), timeframe="5m", cuts=8, seed=seed)
    if found.findings:
        first = found.findings[0]
        what = chosen.signature if not first.feature else f"{chosen.signature}, as {first.feature}"
        raise LawBroken(
            f"{what} {first.means} ({first.check}): at {first.ts} of {first.instrument} it gives {first.whole!r}, and {first.part!r}"
            " without what it must not depend on"
        )


@dataclass(frozen=True)
class _Trial:
    """An operator with parameters, as its driver runs it over arrays."""

    operator: Operator
    params: Given

    @property
    def reach(self) -> int:
        return self.operator.reach(self.params)

    @property
    def name(self) -> str:
        named = ", ".join(f"{p.name}={v!r}" for p, v in zip(self.operator.params, self.params, strict=True))
        return f"{self.operator.key}({named})"

    def rows(self, random: np.random.Generator) -> int:
        """How many rows a series has: none or a few at times, mostly enough for some windows."""
        return int(random.choice([0, 1, self.reach, self.reach + 1, *[2 * self.reach + 30] * 4]))

    def run(self, drive: Drive, inputs: list[Floats], room: float = 0.0, start: int = 0, *, guarded: bool = False) -> Floats:
        """The answers to a series without its first `start` rows; of events, to windows of up to five that end at each."""
        out = np.full(len(inputs[0]) - start, room)
        arrays = [out, *(x[start:] for x in inputs)]
        taken = [x.view(_Guarded) for x in arrays] if guarded else arrays
        more: tuple[object, ...] = (self.params,)
        if self.operator.shape in BAR_SHAPES:
            more = (self.params, np.array([0, len(out)]), self.reach)
        elif self.operator.shape in EVENT_SHAPES:
            high = np.arange(len(out)) + 1
            sums = tuple(np.linspace(1.0, 2.0, len(out)) for _ in self.operator.sums)
            more = (sums, self.params, np.maximum(high - 5, 0), high, self.operator.minimum)
        with np.errstate(all="ignore"):
            drive(taken[0], tuple(taken[1:]), *more)
        return out


class _Guarded(np.ndarray):
    """An array that has no element beyond its ends, nor before its first: compiled code does not look."""

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401  # as NumPy has it
        return super().__getitem__(self._inside(index))

    def __setitem__(self, index: Any, value: Any) -> None:  # noqa: ANN401  # likewise
        super().__setitem__(self._inside(index), value)

    def _inside(self, index: Any) -> Any:  # noqa: ANN401  # likewise
        if isinstance(index, int | np.integer) and not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index


@cache
def _compiled(operator: Operator) -> Drive:
    """The operator's driver over arrays, compiled as its step is."""
    return compile_loop(driver(operator))


def _check(trial: _Trial, random: np.random.Generator) -> None:
    rows = trial.rows(random)
    inputs = [_series(random, rows) for _ in trial.operator.inputs]
    plain = _interpreted(trial, inputs)
    drive = _compiled(trial.operator)
    for room in GARBAGE:
        answers = trial.run(drive, inputs, room)
        for row in np.flatnonzero(~_near(answers, plain)):
            raise LawBroken(f"{trial.name}: compiled, row {row} is {answers[row]!r}; as plain Python it is {plain[row]!r}")
    if trial.operator.shape not in EVENT_SHAPES and len(answers):
        _check_reach(trial, drive, inputs, answers, random)
        _check_start(trial, drive, inputs, answers, random)


def _interpreted(trial: _Trial, inputs: list[Floats]) -> Floats:
    """What the kernel answers as plain Python, whatever was in its room."""
    before = [x.copy() for x in inputs]
    found = []
    for room in GARBAGE:
        try:
            found.append(trial.run(driver(trial.operator), inputs, room, guarded=True))
        except IndexError as error:
            raise LawBroken(f"{trial.name} leaves its arrays: {error}. Compiled, nothing would stop it") from error
        except ZeroDivisionError as error:
            raise LawBroken(f"{trial.name} divides by zero ({error}): answer math.inf, which is an error, where that may be") from error
    if any(not _same(x, y).all() for x, y in zip(before, inputs, strict=True)):
        raise LawBroken(f"{trial.name} writes into its inputs, which others read")
    for other in found[1:]:
        for row in np.flatnonzero(~_same(other, found[0])):
            raise LawBroken(f"{trial.name} leaves row {row} as it was, or reads it before it writes it: fill every row of out")
    return found[0]


def _check_reach(trial: _Trial, drive: Drive, inputs: list[Floats], answers: Floats, random: np.random.Generator) -> None:
    at, which = int(random.integers(len(answers))), int(random.integers(len(inputs)))
    for value in (math.nan, math.inf, 1e6, -0.5):
        others = [x.copy() for x in inputs]
        others[which][at] = value
        changed = trial.run(drive, others)
        for row in np.flatnonzero(~_same(changed, answers)):
            if at <= row <= at + trial.reach:
                continue
            what = "looks ahead" if row < at else f"looks further back than the {trial.reach + 1} bars that it says"
            raise LawBroken(
                f"{trial.name} {what}: row {row} was {answers[row]!r}, and is {changed[row]!r} when row {at} of"
                f" {trial.operator.inputs[which]} becomes {value!r}"
            )


def _check_start(trial: _Trial, drive: Drive, inputs: list[Floats], answers: Floats, random: np.random.Generator) -> None:
    start = int(random.integers(len(answers)))
    later = trial.run(drive, inputs, start=start)
    settled = slice(trial.reach, None)
    for row in np.flatnonzero(~_same(later[settled], answers[start:][settled])):
        place = start + trial.reach + int(row)
        raise LawBroken(
            f"{trial.name} depends on where the data begins: row {place} is {answers[place]!r}, and {later[place - start]!r} when the first"
            f" {start} rows are not there"
        )


def _same(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Where two arrays have the same bits; missing values are the same."""
    same: NDArray[np.bool_] = (a.view(np.int64) == b.view(np.int64)) | (np.isnan(a) & np.isnan(b))
    return same


def _near(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Where two arrays are equal but for rounding."""
    with np.errstate(invalid="ignore"):
        apart, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
        near: NDArray[np.bool_] = _same(a, b) | (apart <= ROUNDING * np.maximum(size, 1.0))
    return near


def _series(random: np.random.Generator, rows: int) -> Floats:
    """Values with ties, and some missing ones, errors and zeros."""
    values = np.round(random.normal(0, 2, rows), int(random.integers(0, 4)))
    others = random.choice([0.0, 0.0, math.nan, math.inf], rows)
    return np.where(random.random(rows) < random.choice([0.0, 0.1]), others, values)


def _parameters(operator: Operator) -> list[Given]:
    """A few choices of parameters, within their ranges and fit for one another."""
    choices = [c for c in itertools.product(*map(_values, operator.params)) if _fit(operator, c)]
    return choices[:: -(-len(choices) // MOST_CHOICES)]


def _values(param: Param) -> list[int | float]:
    low = -0.5 if param.minimum is None else param.minimum
    high = math.inf if param.maximum is None else param.maximum
    usual = (low, low + 1, 7) if param.kind is int else (low, low + 0.3, 1.5)
    return sorted({param.kind(min(max(value, low), high)) for value in usual})


def _fit(operator: Operator, params: Given) -> bool:
    named = dict(zip((p.name for p in operator.params), params, strict=True))
    enough = named.get("min_count", 0) <= params[0] if operator.shape in BAR_SHAPES else True
    return enough and named.get("low", 0) <= named.get("high", 0)


def _set_around(operator: Operator, choices: list[Given]) -> FeatureSet:
    """A feature set that applies the operator to prices and to what is often missing, or to the events of two windows."""
    return FeatureSet("under_law", dict(_features(operator, choices)))


def _features(operator: Operator, choices: list[Given]) -> Iterator[tuple[str, Expr]]:
    change = bars.close / bars.close.lag(1) - 1
    given: dict[str, tuple[Expr, ...]] = {
        "on_prices": (bars.close, bars.open, bars.volume),
        "on_changes": (change, events.window("1h").sentiment.mean(), bars.volume),
    }
    if operator.shape in EVENT_SHAPES:
        windows = {length: events.window(length) for length in ("1h", "1d")}
        given = {f"window_{length}": (w.sentiment, w.confidence, w.clock_skew) for length, w in windows.items()}
    for name, inputs in given.items():
        for k, params in enumerate(choices):
            yield f"{name}_{k}", Expr(operator, inputs[: len(operator.inputs)], params, "", BARS)


def _market(operator: Operator, choices: list[Given], seed: int) -> tuple[pa.Table, pa.Table]:
    """Five-minute bars of two instruments, with gaps and missing prices, and events about them."""
    random = np.random.default_rng(seed)
    rows, step = 60 + 2 * max(operator.reach(params) for params in choices), 300_000_000
    tables, times = [], []
    for name in ("ALFA", "BRAVO"):
        ts = 1_600_000_200_000_000 + step * np.cumsum(random.choice([1, 1, 1, 2, 9], rows))
        close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.01, rows))), 2)
        prices = {"open": np.roll(close, 1), "close": close, "volume": random.integers(0, 4, rows) * 100.0}
        missing = {n: pa.array(v, mask=random.random(rows) < 0.05) for n, v in prices.items()}
        tables.append(pa.table({"instrument_id": [name] * rows, "ts": pa.array(ts, pa.timestamp("us", "UTC")), **missing}))
        times.append(random.choice(ts, rows) - random.choice([0, 1, step], rows))
    known = np.concatenate(times)
    scored = {
        "event_id": [f"event {k}" for k in range(len(known))],
        "instrument_id": ["ALFA"] * rows + ["BRAVO"] * rows,
        "enriched_at_utc": pa.array(known, pa.timestamp("us", "UTC")),
        "event_time_utc": pa.array(known + random.integers(-2, 2, len(known)) * step, pa.timestamp("us", "UTC")),
        "score": np.round(random.uniform(-1, 1, len(known)), 1),
        "confidence": np.round(random.uniform(0, 1, len(known)), 1),
    }
    return pa.concat_tables(tables), pa.table(scored)


__all__ = ["LawBroken", "check_operator"]
