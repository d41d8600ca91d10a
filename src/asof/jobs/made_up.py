"""A made-up world for `asof leakcheck`: with whatever the subjects look at, so that each of their features has something to say.

Bars and events are those of the sample, longer where somebody looks further back, and of a lower timeframe where somebody looks at a higher
one. What else is asked for comes from the same seed: details of events, trades, quotes and books around the closes (some known late, some
behind the close), memberships that change, splits and dividends.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import Calendars
from asof.engine.panel import Ints
from asof.features.event_text import EVENT_TEXTS, comparison
from asof.features.streams import BOOKS, EVENTS, MARKET, QUOTES, TRADES
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.members import NO_MEMBERSHIPS
from asof.jobs.panels import merge_enrichments, sort_bars
from asof.jobs.points import SCHEMAS
from asof.jobs.subjects import FunctionSubject, SetSubject, Subject
from asof.jobs.worlds import World
from asof.records import ACTIONS, EVENT_DETAILS, MEMBERSHIPS, UTC, floats, micros
from asof.records import EVENTS as EVENT_SCHEMA
from asof.sources.canonical import bars_of, events_of
from asof.sources.columns import ColumnMapping
from asof.sources.sample import INSTRUMENTS, make_sample
from asof.timeframes import UNITS
from asof.timeframes import timeframe as timeframe_micros

BARS = 260
"""How many bars of an instrument are left where everybody has looked back as far as they do."""
LONG = 1_000
"""With more bars than so many there are two instruments, unless somebody looks across them."""
LOWER = ("1d", "1h", "15m", "5m", "1m", "15s", "1s")
"""The timeframes that made-up bars may have."""
PER_BAR = 10
"""Trades, quotes and books of each around a close."""
FUNCTION_REACH = UNITS["h"]
"""How far before a close the points lie that a function is given."""
CHANGES = 4
"""How often an instrument's membership of a scheme is told."""


def made_up(subjects: Iterable[Subject], calendars: Calendars, seed: int = 7) -> World:
    """The world that these subjects are checked on where no data is given."""
    subjects, random = list(subjects), np.random.default_rng(seed)
    sets = [subject for subject in subjects if isinstance(subject, SetSubject)]
    frame = _timeframe(sets)
    rows = BARS + max((_back(subject, frame) for subject in subjects), default=0)
    sample = make_sample(max(rows, BARS), timeframe=frame)
    few = INSTRUMENTS if rows < LONG or any(subject.across for subject in subjects) else INSTRUMENTS[:2]
    bars = _of(bars_of(sample.bars, ColumnMapping(), frame).table, few)
    events = _of(merge_enrichments(events_of(pa.Table.from_pylist(sample.events), ColumnMapping()).table), few)
    events = _detailed(events, sets, random)
    market = {stream: _points(stream, bars, frame, length, calendars, random) for stream, length in _asked(subjects).items()}
    schemes = sorted({scheme for subject in sets for scheme in subject.feature_set.schemes})
    told = pa.concat_tables([NO_MEMBERSHIPS, *(_memberships(scheme, bars, random) for scheme in schemes)])
    actions = _actions(bars, random) if any(subject.adjusted for subject in sets) else NO_ACTIONS
    return World.of(bars, events, frame, calendars, actions, market, memberships=told)


def _timeframe(sets: list[SetSubject]) -> str:
    """Days, or the longest timeframe below all that the sets look at, which those are multiples of."""
    higher = {timeframe_micros(text) for subject in sets for text in subject.feature_set.higher}
    return next((one for one in LOWER if all(h > timeframe_micros(one) and h % timeframe_micros(one) == 0 for h in higher)), LOWER[-1])


def _back(subject: Subject, frame: str) -> int:
    """How many bars a row of a subject depends on, those of higher timeframes among them, beyond what is there anyway."""
    above = subject.feature_set.higher if isinstance(subject, SetSubject) else {}
    further = sum(bars * (timeframe_micros(text) // timeframe_micros(frame)) for text, bars in above.items())
    back = max(subject.lookback or 0, subject.across) + further
    return back if back > BARS // 4 else 0


def _asked(subjects: Iterable[Subject]) -> dict[str, int]:
    """The trades, quotes and books that are looked at, and how far before a close."""
    found: dict[str, int] = {}
    for subject in subjects:
        asked: Mapping[str, Any] = {}
        if isinstance(subject, SetSubject):
            asked = {stream: reach.length for stream, reach in subject.feature_set.reaches.items()}
        elif isinstance(subject, FunctionSubject):
            asked = dict.fromkeys(inspect.signature(subject.function).parameters, FUNCTION_REACH)
        found |= {stream: max(asked[stream], found.get(stream, 0)) for stream in MARKET if stream in asked}
    return found


def _of(table: pa.Table, instruments: tuple[str, ...]) -> pa.Table:
    return table.filter(pc.is_in(table["instrument_id"], pa.array(instruments)))


def _detailed(events: pa.Table, sets: list[SetSubject], random: np.random.Generator) -> pa.Table:
    """Events that are about what the sets ask for, or something else, and of which some repeat others."""
    asked = [comparison(str(name)) for subject in sets for name, *_ in subject.points.get(EVENTS, ())]
    said: dict[str, list[object]] = {name: ["other", None] for name in EVENT_TEXTS}
    for which, text in filter(None, asked):
        said[which].append(text)
    said |= {"text_hash": ["a1", "b2", "c3", "d4", None], "is_repost": [True, False, None]}
    for name in EVENT_DETAILS:
        drawn = pa.array(random.choice(np.array(said[name], object), len(events)), EVENT_SCHEMA.field(name).type)
        events = events.set_column(EVENT_SCHEMA.get_field_index(name), name, drawn)
    return events


def _points(stream: str, bars: pa.Table, frame: str, length: int, calendars: Calendars, random: np.random.Generator) -> pa.Table:
    """Points around the closes of bars: the nearer the more, a few at the close itself and behind it, some known late."""
    found = sort_bars(bars)
    close = np.repeat(found.closes(frame, calendars), PER_BAR)
    count = len(close)
    before = (length * random.random(count) ** 2 * random.choice([1, 0, -1], count, p=[0.85, 0.05, 0.1])).astype(np.int64)
    late = np.where(random.random(count) < 0.1, random.integers(1, length + 1, count), 0)
    at = close - before
    columns = {
        "instrument_id": pa.array(np.repeat(np.array(found.table["instrument_id"].to_pylist(), object), PER_BAR), pa.string()),
        "ts": pa.array(at).cast(UTC),
        "seq": pa.array(np.arange(count)),
        "available_at": pa.array(at + late, mask=late == 0).cast(UTC),
    }
    price = np.round(np.repeat(floats(found.table["close"]), PER_BAR) * np.exp(random.normal(0, 0.001, count)), 2)
    columns |= {TRADES: _trades, QUOTES: _quotes, BOOKS: _books}[stream](price, random)
    return pa.table([columns[name] for name in SCHEMAS[stream].names], schema=SCHEMAS[stream])


def _trades(price: np.ndarray, random: np.random.Generator) -> dict[str, pa.Array]:
    side = random.choice([1.0, -1.0, np.nan], len(price))
    return {"price": pa.array(price), "size": pa.array(_sizes(len(price), random)), "side": pa.array(side, from_pandas=True)}


def _quotes(price: np.ndarray, random: np.random.Generator) -> dict[str, pa.Array]:
    """Some of them crossed or locked, some with an empty side."""
    columns, empty = dict[str, pa.Array](), random.choice(3, len(price), p=[0.94, 0.03, 0.03])
    for place, (name, sign) in enumerate((("bid", -1), ("ask", 1)), 1):
        columns[name] = pa.array(price + sign * random.choice([0.01, 0.02, 0.0, -0.01], len(price)), mask=empty == place)
        columns[f"{name}_size"] = pa.array(_sizes(len(price), random), mask=empty == place)
    return columns


def _books(price: np.ndarray, random: np.random.Generator) -> dict[str, pa.Array]:
    """Some of them short, some behind a gap."""
    columns = {"gap": pa.array(random.random(len(price)) < 0.05)}
    for name, sign in (("bid", -1), ("ask", 1)):
        levels = random.choice([3, 12], len(price), p=[0.1, 0.9])
        starts = pa.array(np.concatenate(([0], np.cumsum(levels))).astype(np.int32))
        steps = np.arange(levels.sum()) - np.repeat(np.asarray(starts)[:-1], levels)
        prices = np.repeat(price, levels) + sign * 0.01 * (1 + steps)
        columns[f"{name}_prices"] = pa.ListArray.from_arrays(starts, pa.array(prices))
        columns[f"{name}_sizes"] = pa.ListArray.from_arrays(starts, pa.array(_sizes(len(prices), random)))
    return columns


def _sizes(count: int, random: np.random.Generator) -> np.ndarray:
    return random.integers(1, 20, count) * 10.0


def _memberships(scheme: str, bars: pa.Table, random: np.random.Generator) -> pa.Table:
    """Everybody is in one of two groups when the bars begin; some change theirs, leave, or are told to have done so later."""
    opens, rows = np.unique(micros(bars["ts"])), list[dict[str, object]]()
    for name in pc.unique(bars["instrument_id"]).to_pylist():
        later = random.choice(opens[1:], CHANGES - 1, replace=False).tolist()
        values = random.choice(np.array(["one", "two", None], object), CHANGES - 1, p=[0.4, 0.4, 0.2])
        late = int(random.integers(0, 5)) * int(opens[1] - opens[0])
        told = zip([int(opens[0]), *later], ["one" if random.random() < 0.5 else "two", *values], strict=True)
        rows += [{"instrument_id": name, "ts": at, "value": value, "available_at": at + late} for at, value in told]
        rows[-CHANGES]["available_at"] = rows[-CHANGES]["ts"]
    return pa.Table.from_pylist([{"scheme": scheme, **row} for row in rows], schema=MEMBERSHIPS)


def _actions(bars: pa.Table, random: np.random.Generator) -> pa.Table:
    """A split and two dividends of each instrument."""
    days, rows = np.unique(micros(bars["ts"]) // UNITS["d"]), list[dict[str, object]]()
    for name in pc.unique(bars["instrument_id"]).to_pylist():
        chosen: Ints = random.choice(days, min(3, len(days)), replace=False) * UNITS["d"]
        for at, split, factor in zip(chosen.tolist(), (2.0, 1.0, 1.0), (1.0, 0.99, 0.97), strict=False):
            rows.append({"instrument_id": name, "ts": at, "split": split, "dividend_factor": factor})
    return pa.Table.from_pylist(rows, schema=ACTIONS)
