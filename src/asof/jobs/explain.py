"""Explain: one vector with the value of every expression, the bars, events and actions that went in, and why its flags are raised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from asof.engine.plan import plan
from asof.errors import NotFound
from asof.features.across import GROUP, across_of
from asof.features.expression import BARS as ON_BARS
from asof.features.expression import Expr, column, walk
from asof.features.feature_set import FeatureSet
from asof.features.text import expression_text
from asof.jobs.panels import panel_of, sort_bars, sort_events, vectors_of
from asof.jobs.parts import Part, computed
from asof.jobs.work import Work, joined
from asof.operators import SECTION_SHAPES
from asof.records import ACTIONS, BARS, EVENTS, UTC
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, SPANS, Selection, Table


@dataclass(frozen=True)
class Value:
    """An expression with its value at the bar (None where it is missing), and those over bars that it is made of."""

    text: str
    value: float | None
    error: bool
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Explained:
    """A vector, taken apart. `stored` is None where the store has none; `bars`, `events` and `actions` are those in its windows.

    Each has the time from which it is held to be true. Actions are those between the first bar and the last, where the set looks at any.
    """

    instrument: str
    ts: datetime
    features: dict[str, Value]
    flags: dict[str, Value]
    raised: tuple[str, ...]
    stored: dict[str, object] | None
    bars: pa.Table
    events: pa.Table
    actions: pa.Table
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Section:
    """What an operator looked at across instruments: how many members had a bar, how many of them a value, and the own one's place.

    `place` counts from 1, the smallest value; of values that tie it is the mean, and None where there is no own value. For an instrument
    that is no member all are 0 or None.
    """

    text: str
    members: int
    values: int
    place: float | None


def explain(work: Work, instrument: str, ts: datetime) -> Explained:
    """Take the vector of a bar apart. Raises `NotFound` where there is no such bar."""
    at = pa.table([pa.array([instrument]), pa.array([ts], UTC), pa.array([ts], UTC)], schema=SPANS)
    lookback = work.feature_set.lookback
    bars = work.store.around(work.timeframe, at, lookback - 1, ("instrument_id", "ts"))
    times = sorted(t for t in bars["ts"].to_pylist() if t <= ts)[-lookback:]
    if not times or times[-1] != ts:
        raise NotFound(f"the store has no {work.timeframe} bar of {instrument} that opens at {ts.isoformat()}{_nearest(times)}")
    window = timedelta(microseconds=work.feature_set.event_window)
    seen_bars = _revised(work, BARS_TABLE, Selection(work.timeframe, (instrument,), times[0], ts, work.known_at), BARS)
    seen_events = _revised(work, EVENTS_TABLE, Selection(None, (instrument,), ts - window, ts, work.known_at), EVENTS)
    between = Selection(None, (instrument,), times[0] + timedelta.resolution, ts, work.known_at)
    seen_actions = _revised(work, ACTIONS_TABLE, between if work.plan.adjusted else replace(between, instruments=()), ACTIONS)
    if work.plan.crosses:
        values, vector, sections = _across(work, instrument, ts)
    else:
        values, sections = _values(work, seen_bars, seen_events, seen_actions.select(ACTIONS.names)), ()
        vector = work.vectors(seen_bars.select(BARS.names), Selection(instruments=(instrument,))).to_pylist()[-1]
    stored = joined(work.store.read(work.table, Selection(work.timeframe, (instrument,), ts, ts, work.known_at)), work.table.schema)
    return Explained(
        instrument,
        ts,
        {name: _tree(expr, values) for name, expr in work.feature_set.features.items()},
        {name: _tree(expr, values) for name, expr in work.feature_set.flags.items()},
        tuple(vector["quality_flags"]),
        next(iter(stored.to_pylist()), None),
        seen_bars,
        seen_events,
        seen_actions,
        sections,
    )


def _nearest(times: list[datetime]) -> str:
    return f"; the last one before is {times[-1].isoformat()}" if times else ""


def _revised(work: Work, table: Table, selection: Selection, schema: pa.Schema) -> pa.Table:
    """Rows with the time from which they are held to be true."""
    with_known = replace(table, schema=schema.append(pa.field("known_from", UTC)))
    return joined(work.store.read(with_known, selection), with_known.schema)


def _values(work: Work, bars: pa.Table, events: pa.Table, actions: pa.Table) -> dict[Expr, Valued]:
    """The value of every expression over bars at the last bar, and whether it is an error."""
    found: dict[Expr, Valued] = {}
    for node in _shown(work.feature_set):  # each a set of its own: an error raises the flag of the whole set
        alone = FeatureSet("explained", {"value": node})
        the_plan = plan(alone)
        sorted_bars = sort_bars(bars.select(BARS.names))
        panel = panel_of(the_plan, work.timeframe, sorted_bars, sort_events(events.select(EVENTS.names)), work.calendars, actions)
        last = vectors_of(the_plan, panel, work.timeframe, sorted_bars, work.now, "explain", 1).slice(len(bars) - 1).to_pylist()[0]
        found[node] = last["value"], bool(last["quality_flags"])
    return found


Valued = tuple[float | None, bool]
"""The value of an expression, None where it is missing, and whether it is an error."""


def _across(work: Work, instrument: str, ts: datetime) -> tuple[dict[Expr, Valued], dict[str, Any], tuple[Section, ...]]:
    """The value of every expression over bars at the bar, its vector, and its sections.

    Each expression is a set of its own, for which the bars of all members are read.
    """

    def row(feature_set: FeatureSet) -> dict[str, Any]:
        vectors = computed(replace(work, feature_set=feature_set), Part((instrument,), False, 1, ts, ts))
        return dict(vectors.to_pylist()[-1])

    def value(expr: Expr) -> Valued:
        found = row(FeatureSet("explained", {"value": expr}))
        return found["value"], bool(found["quality_flags"])

    values = {node: value(node) for node in _shown(work.feature_set)}
    sections = []
    for node in (node for node in values if node.operator and node.operator.shape in SECTION_SHAPES):
        whole, x = across_of(node), node.inputs[0]
        members, valued, share = (value(of)[0] for of in (whole.count(column("", ON_BARS) + 0), whole.count(x), whole.rank(x)))
        place = None if share is None or valued is None else round(share * valued * 2) / 2
        sections.append(Section(expression_text(node), int(members or 0), int(valued or 0), place))
    return values, row(work.feature_set), tuple(sections)


def _shown(feature_set: FeatureSet) -> list[Expr]:
    """The expressions over bars that have a value for a bar."""
    nodes = [node for node in walk(*feature_set.roots) if node.domain == ON_BARS and (node.operator or node.name)]
    return [node for node in nodes if not node.name.startswith(GROUP)]


def _tree(expr: Expr, values: dict[Expr, Valued]) -> Value:
    """An expression over bars and those that it is made of; columns of events have no value for a bar."""
    value, error = values[expr]
    parts = tuple(_tree(part, values) for part in expr.inputs if part in values)
    return Value(expression_text(expr), value, error, parts)
