"""The checks for leaks: each varies a world in one way, and tells which rows of the answer must keep their bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from asof.engine.panel import Ints
from asof.jobs.subjects import Answer, Grid, Subject
from asof.jobs.worlds import World
from asof.records import Bools

STARTS = 6
"""Beginnings of the data that are tried."""
DELAYED = ((0.0, 0.2), (0.2, 0.0), (0.1, 0.1))
"""The shares of bars and of events that arrive late: events, bars, both."""


@dataclass(frozen=True)
class Pair:
    """Two answers that must agree on `rows`, where `both` only where both have a value; `moment` is when the world was cut."""

    whole: Answer
    part: Answer
    rows: Bools
    moment: int | None = None
    both: bool = False
    tolerance: float = 0.0


@dataclass(frozen=True)
class Inquiry:
    """One subject in one world, with its answer to all of it, and the moments at which the world is cut or begins."""

    subject: Subject
    world: World
    grid: Grid
    whole: Answer
    cuts: tuple[int, ...]
    starts: tuple[int, ...]
    seed: int

    def random(self, place: int = 0) -> np.random.Generator:
        """The numbers of one variation: the same for the same seed."""
        return np.random.default_rng((self.seed, place))

    def ask(self, world: World) -> Answer:
        """The subject's answer to another world."""
        return self.subject.answer(world, self.grid)


def _again(inquiry: Inquiry) -> Iterator[Pair]:
    yield Pair(inquiry.whole, inquiry.ask(inquiry.world), np.ones(inquiry.grid.rows, np.bool_))


def _future(vary: Callable[[World, int, np.random.Generator], World]) -> Callable[[Inquiry], Iterator[Pair]]:
    """At each moment, the world as it came beside one whose future is another."""

    def pairs(inquiry: Inquiry) -> Iterator[Pair]:
        for place, at in enumerate(inquiry.cuts):
            world = inquiry.world.with_holes(at) if place % 2 else inquiry.world
            other = vary(world, at, inquiry.random(place))
            if len(other.bars):
                whole = inquiry.ask(world) if place % 2 else inquiry.whole
                yield Pair(whole, inquiry.ask(other), usable_since(whole, world, inquiry.grid) <= at, at)

    return pairs


def _late(inquiry: Inquiry) -> Iterator[Pair]:
    """The world as it came, late, beside what had arrived of it just before something did."""
    for place, (bars, events) in enumerate(DELAYED):
        random = inquiry.random(place)
        world = inquiry.world.delayed(random, bars, events)
        whole = inquiry.ask(world)
        since = usable_since(whole, world, inquiry.grid)
        arrivals = np.setdiff1d(world.arrivals, inquiry.world.arrivals)
        for at in random.permutation(arrivals)[: (len(inquiry.cuts) + 1) // 2] - 1:
            known = world.known(at)
            if len(known.bars):
                yield Pair(whole, inquiry.ask(known), since <= at, at)


def _start(inquiry: Inquiry) -> Iterator[Pair]:
    for start in inquiry.starts:
        yield from _begun(inquiry, start, inquiry.world)
    if inquiry.subject.event_window is None:  # nothing tells how far back events reach: a quarter of the data is granted
        times = inquiry.grid.times
        quarter, half = int(times[len(times) // 4]), int(times[len(times) // 2])
        later = inquiry.ask(inquiry.world.without_events_before(quarter))
        yield Pair(inquiry.whole, later, inquiry.world.opens >= half, quarter, tolerance=inquiry.subject.tolerance)


def _begun(inquiry: Inquiry, start: int, world: World) -> Iterator[Pair]:
    """The whole beside a world that begins at `start`, where the bars that a row depends on are there; nothing where there are none."""
    subject, later = inquiry.subject, world.since(start)
    rows = inquiry.world.opens >= start
    if subject.event_window is not None:
        later = later.without_events_before(start - subject.event_window)
    if subject.lookback is not None:
        for _, mine in inquiry.world.series():
            rows[mine] &= np.cumsum(rows[mine]) >= subject.lookback
    if subject.across:
        rows &= inquiry.world.opens > _whole_since(inquiry.world, start, subject.across)
    if len(later.bars):
        yield Pair(inquiry.whole, inquiry.ask(later), rows, start, subject.lookback is None, subject.tolerance)


def _whole_since(world: World, start: int, bars: int) -> int:
    """The open of the last bar that may miss some of the `bars` before it where the world begins at `start`."""
    last = start - 1
    for _, mine in world.series():
        opens = world.opens[mine]
        kept = opens[opens >= start]
        if len(kept) and len(kept) < len(opens):
            last = max(last, int(kept[min(bars, len(kept)) - 1]))
    return last


def _stretch(inquiry: Inquiry) -> Iterator[Pair]:
    since = usable_since(inquiry.whole, inquiry.world, inquiry.grid)
    last = np.sort(inquiry.world.available)
    for place, start in enumerate(inquiry.starts):
        until = int(last[len(last) // 2 + place * len(last) // (2 * STARTS)])
        for pair in _begun(inquiry, start, inquiry.world.known(until)):
            yield replace(pair, rows=pair.rows & (since <= until))


def _instrument(inquiry: Inquiry) -> Iterator[Pair]:
    if inquiry.subject.across:
        yield _renamed(inquiry)
        return
    for name, mine in inquiry.world.series():
        rows = np.zeros(inquiry.grid.rows, np.bool_)
        rows[mine] = True
        yield Pair(inquiry.whole, inquiry.ask(inquiry.world.only(name)), rows, tolerance=inquiry.subject.tolerance)


def _renamed(inquiry: Inquiry) -> Pair:
    """Of what looks across instruments: the whole beside the same world, whose instruments have changed their names."""
    names = inquiry.grid.instruments.to_pylist()
    other = dict(zip(names, inquiry.random().permutation(names).tolist(), strict=True))
    world = inquiry.world.renamed(other)
    grid = Grid.of(world)
    answer = inquiry.subject.answer(world, grid)
    was = pa.chunked_array([pa.array([other[name] for name in inquiry.world.bars["instrument_id"].to_pylist()], pa.string())])
    places = grid.places(was, inquiry.world.opens)
    columns = {name: column[places] for name, column in answer.columns.items()}
    return Pair(inquiry.whole, Answer(columns), np.ones(inquiry.grid.rows, np.bool_), tolerance=inquiry.subject.tolerance)


def _threads(inquiry: Inquiry) -> Iterator[Pair]:
    for answer in inquiry.subject.on_threads(inquiry.world, inquiry.grid):
        yield Pair(inquiry.whole, answer, np.ones(inquiry.grid.rows, np.bool_))


def _known(world: World, at: int, random: np.random.Generator) -> World:
    return world.known(at)


AHEAD, START, SPLIT = "looks ahead", "depends on the start", "depends on how the work is split"


@dataclass(frozen=True)
class Check:
    """One way to vary the world: what a difference means, what was done, and the answers to compare."""

    means: str
    done: str
    pairs: Callable[[Inquiry], Iterator[Pair]]


CHECKS: Mapping[str, Check] = {
    "again": Check("answers otherwise when asked again", "the same was computed again", _again),
    "truncated": Check(AHEAD, "everything after a moment was cut off", _future(_known)),
    "changed": Check(AHEAD, "everything after a moment was changed", _future(World.changed)),
    "shuffled": Check(AHEAD, "everything after a moment was shuffled", _future(World.shuffled)),
    "late": Check("uses what had not arrived", "bars and events arrived late", _late),
    "start": Check(START, "the data began later", _start),
    "stretch": Check(SPLIT, "a stretch of time was computed alone", _stretch),
    "instrument": Check("depends on other instruments", "an instrument was computed alone, or all had other names", _instrument),
    "threads": Check(SPLIT, "it was computed on several threads", _threads),
}
"""Every check, in the order in which they run."""


def usable_since(answer: Answer, world: World, grid: Grid) -> Ints:
    """From when each row may be used: as it says itself, or as soon as its bar and those before it are known."""
    if answer.available is not None:
        return answer.available
    since = world.available.copy()
    for _, mine in world.series():
        since[mine] = np.maximum.accumulate(since[mine])
    return since
