"""`asof.leakcheck`: whether features depend on what could not be known, on where the data begins, or on how the work is split.

1. `World.of` holds bars and events to the same checks as every other source, and gives every bar the moment from which it is known.
2. A subject (a feature set, an operator, a function over data frames) is asked for the whole world, and asked again: one that answers
   otherwise is `again`, and no more is asked of it.
3. At many moments the future is cut off, changed and shuffled (`truncated`, `changed`, `shuffled`), at every second one with holes in the
   last known bars. Rows that could be known by then must keep their bits.
4. Bars and events arrive late, and at many moments what had not arrived is taken away (`late`).
5. The data begins later (`start`).
6. The work is split: into stretches of time, single instruments, threads (`stretch`, `instrument`, `threads`).
7. Every comparison is over all rows and all features. For each feature and check the first row that differs is kept, with both values.

A row may be used as soon as its bar and all bars of its instrument before it are known; the vectors of a feature set say it themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import Calendars
from asof.errors import DataError, DefinitionError, NotFound, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.around import set_around
from asof.jobs.compute import distinct, higher_given, market_of, memberships_given, one_timeframe, usable
from asof.jobs.made_up import made_up
from asof.jobs.panels import merge_enrichments, sort_bars
from asof.jobs.subjects import FRAMES, Column, Function, FunctionSubject, Grid, SetSubject, Subject
from asof.jobs.variations import CHECKS, STARTS, Inquiry, Pair
from asof.jobs.work import joined
from asof.jobs.worlds import World
from asof.operators import Operator
from asof.records import ACTIONS, BARS, EVENTS, MEMBERSHIPS, ArrowStream, Bools
from asof.sources.canonical import actions_of, bars_of, events_of
from asof.sources.columns import ColumnMapping
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, POINTS, Selection, Store
from asof.timeframes import timeframe as timeframe_micros

Checkable = FeatureSet | Operator | Function
Progress = Callable[[int, int | None], None]

CUTS = 24
"""Moments at which the future is varied."""
MOST_INSTRUMENTS, MOST_BARS = 5, 500
"""How much of a store is taken, where nothing is said."""
FEWEST_TIMES = 10
"""With fewer there is next to nothing that could differ."""
EVENTS_BEFORE = timedelta(days=30)
"""How far before the first of a store's bars its events reach."""
MARKET_BEFORE = timedelta(hours=1)
"""How far before the first of a store's bars its trades, quotes and books reach."""
ROUNDING = 1e-6
"""The relative difference that a function's rolling sums may have by where they began; a feature set may have none."""


@dataclass(frozen=True)
class Finding:
    """The first row of a feature that a check found to differ, of `rows` in all.

    `moment` is where the data was cut or began, None where it was not. `whole` is the value that all of the data gives, `part` the one
    that comes without what it must not depend on; None where missing.
    """

    subject: str
    feature: str
    check: str
    instrument: str
    ts: datetime
    moment: datetime | None
    whole: float | str | None
    part: float | str | None
    rows: int

    @property
    def means(self) -> str:
        """What the difference says about the feature."""
        return CHECKS[self.check].means


@dataclass(frozen=True)
class Leakcheck:
    """What was checked, how many values were compared, and what was found.

    `unseen` are features, such as `my_v1: vol_500`, that are missing on every row: nothing is known of them.
    """

    subjects: tuple[str, ...]
    compared: int
    findings: tuple[Finding, ...]
    unseen: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def leakcheck(
    feature_sets: Checkable | Iterable[Checkable],
    bars: ArrowStream | None = None,
    events: ArrowStream | None = None,
    actions: ArrowStream | None = None,
    *,
    trades: ArrowStream | None = None,
    quotes: ArrowStream | None = None,
    books: ArrowStream | None = None,
    higher: Mapping[str, ArrowStream] | None = None,
    memberships: ArrowStream | None = None,
    timeframe: str | None = None,
    timezone: str | None = None,
    calendars: Mapping[str, str] | None = None,
    frame: str = "pandas",
    lookback: int | None = None,
    tolerance: float = ROUNDING,
    cuts: int = CUTS,
    seed: int = 0,
    skip: Iterable[str] = (),
    progress: Progress = lambda done, total: None,
) -> Leakcheck:
    """Look for leaks in feature sets, operators, and functions over data frames, for every row and feature.

    `bars`, `events`, `actions`, `trades`, `quotes`, `books`, `higher` and `memberships` are as for `asof.compute`; without bars, a world is
    made up that has whatever the subjects look at, and as many bars as they look back. Everything is computed some hundred times, so a few
    instruments and some hundred bars of each are enough. The same `seed` varies the data in the same way.

    An operator is checked on prices and returns, events, the bars of a higher timeframe or across instruments, whatever it works on, with
    small parameters. A function is called with bars as a `frame` ("pandas", "polars" or "arrow"), and with events where it has a parameter
    `events`; it returns a frame with `instrument_id`, `ts` (the open of one of the bars) and features. A row that it leaves out is missing.
    It may say how many bars back a row depends (`lookback`); otherwise a value that is there must be the same wherever the data begins.
    There, and where the work is split, relative differences up to `tolerance` are rounding. `skip` names checks to leave out.

    Raises `DataError` for rows that cannot be used or a result that is no such frame, `DefinitionError` for a function that fails.
    """
    chosen = feature_sets if isinstance(feature_sets, Iterable) and not isinstance(feature_sets, str) else [feature_sets]
    known = Calendars(calendars or {})
    mapping, checks = ColumnMapping(timezone=timezone), _chosen(tuple(skip))
    market = market_of(mapping, trades=trades, quotes=quotes, books=books)
    given = None if bars is None else _world(bars, events, actions, timeframe, timezone, known, market)
    base = None if given is None else given.timeframe
    subjects = [_subject(one, known, frame, lookback, tolerance, base) for one in chosen]
    if given is None:
        made = made_up(subjects, known)
        world = replace(made, market={**made.market, **market})
    else:
        world = given
    if given is not None or memberships is not None:
        world = replace(world, memberships=memberships_given(memberships, mapping))
    world = replace(world, higher=_higher(world, higher_of(chosen, base), higher or {}, mapping, known))
    findings, unseen = list[Finding](), list[str]()
    compared, total = 0, len(subjects) * len(checks) * len(world.bars)
    for subject in subjects:
        inquiry = _inquiry(subject, world, cuts, seed)
        unseen += [f"{subject.name}: {name}" for name, column in inquiry.whole.columns.items() if not _there(column).any()]
        for check in checks:
            found: dict[str, Finding] = {}
            for pair in CHECKS[check].pairs(inquiry):
                compared += int(pair.rows.sum()) * len(pair.whole.columns)
                for finding in _differences(inquiry, check, pair):
                    found[finding.feature] = _first(found.get(finding.feature), finding)
            findings += found.values()
            progress(len(world.bars), total)
            if check == "again" and found:
                break
    return Leakcheck(tuple(subject.name for subject in subjects), compared, tuple(findings), tuple(unseen))


def higher_of(given: Iterable[Checkable], timeframe: str | None = None) -> list[str]:
    """The higher timeframes that feature sets look at, and operators that are tried on bars of a timeframe."""
    sets = (set_around(one, timeframe) if isinstance(one, Operator) else one for one in given)
    return sorted({text for one in sets if isinstance(one, FeatureSet) for text in one.higher})


def stored_market(store: Store, bars: pa.Table, timeframe: str) -> dict[str, pa.Table]:
    """The trades, quotes and books around bars: from an hour before the first until the last closes."""
    ends, step = pc.min_max(bars["ts"]).as_py(), timedelta(microseconds=timeframe_micros(timeframe))
    around = Selection(None, tuple(pc.unique(bars["instrument_id"]).to_pylist()), ends["min"] - MARKET_BEFORE, ends["max"] + step)
    return {table.name: joined(store.read(table, around), table.schema) for table in POINTS}


def stored(
    store: Store, timeframe: str, instruments: tuple[str, ...] | None = None, bars: int = MOST_BARS, seed: int = 0
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The last bars of some instruments of a store, at most five chosen by `seed` if none is named, their events and their actions.

    Raises `NotFound` where there are no such bars.
    """
    timeframe_micros(timeframe)
    there = store.spans(timeframe)["instrument_id"].to_pylist()
    if missing := [name for name in instruments or () if name not in there]:
        raise NotFound(f"the store has no {timeframe} bars of {', '.join(missing)}{did_you_mean(missing[0], there)}")
    if not there:
        raise NotFound(f"the store has no {timeframe} bars: ingest some first, or check on made-up ones, without a timeframe")
    random = np.random.default_rng(seed)
    names = instruments or tuple(sorted(random.choice(there, min(MOST_INSTRUMENTS, len(there)), replace=False).tolist()))
    found = pa.concat_tables([_last(store, timeframe, name, bars) for name in names])
    ends = pc.min_max(found["ts"]).as_py()
    around = Selection(None, names, ends["min"] - EVENTS_BEFORE, ends["max"])
    actions = joined(store.read(ACTIONS_TABLE, Selection(None, names, ends["min"], ends["max"])), ACTIONS)
    return found, joined(store.read(EVENTS_TABLE, around), EVENTS), actions


def stored_higher(store: Store, bars: pa.Table, timeframes: Iterable[str]) -> dict[str, pa.Table]:
    """The stored bars of higher timeframes, where there are any, that open no later than some bars, of their instruments."""
    names, last = tuple(pc.unique(bars["instrument_id"]).to_pylist()), pc.max(bars["ts"]).as_py()
    found = {text: joined(store.read(BARS_TABLE, Selection(text, names, end=last)), BARS) for text in timeframes}
    return {text: table for text, table in found.items() if len(table)}


def stored_memberships(store: Store) -> pa.Table:
    """All memberships of a store."""
    return joined(store.read(MEMBERSHIPS_TABLE, Selection()), MEMBERSHIPS)


def _last(store: Store, timeframe: str, instrument: str, bars: int) -> pa.Table:
    """The last so many bars of an instrument."""
    start = store.cuts(timeframe, instrument, bars, 1)[-2:][0][0]
    found = joined(store.read(BARS_TABLE, Selection(timeframe, (instrument,), start)), BARS)
    return found.slice(max(0, len(found) - bars))


def _world(
    bars: ArrowStream,
    events: ArrowStream | None,
    actions: ArrowStream | None,
    timeframe: str | None,
    timezone: str | None,
    calendars: Calendars,
    market: dict[str, pa.Table],
) -> World:
    mapping = ColumnMapping(timezone=timezone)
    taken = usable(bars_of(pa.table(bars), mapping, timeframe), "bars")
    seen = EVENTS.empty_table() if events is None else merge_enrichments(usable(events_of(pa.table(events), mapping), "events"))
    if (times := len(pc.unique(taken["ts"]))) < FEWEST_TIMES:
        raise DataError(f"the bars open at {times} different times: a check for leaks needs {FEWEST_TIMES} at least, better some hundred")
    acted = NO_ACTIONS if actions is None else distinct(usable(actions_of(pa.table(actions), mapping), "actions"))
    named = seen.filter(pc.is_in(seen["instrument_id"], pc.unique(taken["instrument_id"])))
    return World.of(taken, named, timeframe or one_timeframe(taken), calendars, acted, market)


def _higher(
    world: World, timeframes: list[str], given: Mapping[str, ArrowStream], mapping: ColumnMapping, calendars: Calendars
) -> Mapping[str, pa.Table]:
    """The bars of higher timeframes: as given, or made of the bars of the world."""
    base = sort_bars(world.bars)
    found = {text: higher_given(text, given.get(text), mapping, base, world.timeframe, calendars).table for text in timeframes}
    return World.of(world.bars, world.events, world.timeframe, calendars, higher=found).higher


def _subject(given: Checkable, calendars: Calendars, frame: str, lookback: int | None, tolerance: float, base: str | None) -> Subject:
    if isinstance(given, FeatureSet):
        return SetSubject(given.version, given, calendars)
    if isinstance(given, Operator):
        return SetSubject(given.key, set_around(given, base), calendars)
    if not callable(given):
        raise DefinitionError(f"{given!r} is no feature set, operator or function")
    if frame not in FRAMES:
        raise DefinitionError(f"frame {frame!r} is not one of {', '.join(FRAMES)}{did_you_mean(frame, list(FRAMES))}")
    return FunctionSubject(getattr(given, "__name__", repr(given)), given, frame, lookback, tolerance)


def _chosen(skip: tuple[str, ...]) -> tuple[str, ...]:
    """The checks that are not skipped."""
    for name in skip:
        if name not in CHECKS:
            raise DefinitionError(f"no check is called {name!r}; there are {', '.join(CHECKS)}{did_you_mean(name, list(CHECKS))}")
    return tuple(name for name in CHECKS if name not in skip)


def _inquiry(subject: Subject, world: World, cuts: int, seed: int) -> Inquiry:
    """A subject with the moments that its world is cut at, which leave it its lookback or a tenth of the data: the same ones for a seed."""
    grid, random = Grid.of(world), np.random.default_rng(seed)
    opens, moments = grid.times, np.unique(world.available)
    back = max(subject.lookback or 0, subject.across)
    moments = moments[max(len(moments) // 10, min(back, len(moments) * 3 // 4)) : -1]
    chosen = random.choice(moments, min(cuts, len(moments)), replace=False)
    early = opens[1 : max(2, min(len(opens) // 2, len(opens) - back))]
    starts = random.choice(early, min(STARTS, len(early)), replace=False)
    return Inquiry(subject, world, grid, subject.answer(world, grid), tuple(map(int, chosen)), tuple(map(int, sorted(starts))), seed)


def _differences(inquiry: Inquiry, check: str, pair: Pair) -> Iterator[Finding]:
    """The first row of each feature on which two answers differ."""
    for name, whole in pair.whole.columns.items():
        if name not in pair.part.columns:
            raise DataError(f"{inquiry.subject.name} gives {name} for some of the data and not for other: return the same columns always")
        part = pair.part.columns[name]
        rows = np.flatnonzero(pair.rows & _differs(whole, part, pair))
        if len(rows):
            row = int(rows[np.argmin(inquiry.world.opens[rows])])
            bar = inquiry.world.bars.slice(row, 1).select(["instrument_id", "ts"]).to_pylist()[0]
            moment = None if pair.moment is None else datetime.fromtimestamp(pair.moment / 1_000_000, UTC)
            values = _value(whole[row]), _value(part[row])
            yield Finding(inquiry.subject.name, name, check, bar["instrument_id"], bar["ts"], moment, *values, len(rows))


def _first(before: Finding | None, found: Finding) -> Finding:
    """The finding with the earlier row, and the larger number of them."""
    if before is None:
        return found
    return replace(before if before.ts <= found.ts else found, rows=max(before.rows, found.rows))


def _differs(whole: Column, part: Column, pair: Pair) -> Bools:
    """Where two columns have not the same bits; two missing values are the same."""
    if object in (whole.dtype, part.dtype):
        whole, part = whole.astype(object), part.astype(object)
        differs = np.array([_value(a) != _value(b) for a, b in zip(whole, part, strict=True)], np.bool_)
    else:
        differs = (whole.view(np.int64) != part.view(np.int64)) & (_there(whole) | _there(part))
        if pair.tolerance:
            with np.errstate(invalid="ignore"):
                near = np.abs(whole - part) <= pair.tolerance * np.maximum(np.abs(whole), np.abs(part))
            differs &= ~near
    return differs & _there(whole) & _there(part) if pair.both else differs


def _there(column: Column) -> Bools:
    """Where a column has a value."""
    if column.dtype == object:
        return np.array([_value(value) is not None for value in column], np.bool_)
    return ~np.isnan(column)


def _value(value: object) -> float | str | None:
    """A value as it is shown: None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]  # a column holds texts or numbers
    return None if np.isnan(number) else number


def bits(value: float | str | None) -> str:
    """The bits of a number in hexadecimal; nothing for what is no number."""
    return struct.pack(">d", value).hex() if isinstance(value, float) else ""
