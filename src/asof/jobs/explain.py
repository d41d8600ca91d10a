"""Explain: one vector with the value of every expression, the bars, events and actions that went in, and why its flags are raised."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pyarrow as pa

from asof.engine.layout import newest_known
from asof.engine.plan import plan
from asof.errors import NotFound
from asof.features.adjustment import NONE
from asof.features.expression import BARS as ON_BARS
from asof.features.expression import Expr, walk
from asof.features.feature_set import FeatureSet
from asof.features.text import expression_text
from asof.jobs.higher import higher_bars
from asof.jobs.panels import SortedBars, panel_of, sort_bars, vectors_of
from asof.jobs.points import SortedEvents, sort_events
from asof.jobs.work import Work, joined, moment
from asof.records import ACTIONS, BARS, EVENTS, UTC
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, POINTS, SPANS, Selection, Table


@dataclass(frozen=True)
class Value:
    """An expression with its value at the bar (None where it is missing), and those over bars that it is made of."""

    text: str
    value: float | None
    error: bool
    parts: tuple[Value, ...]


@dataclass(frozen=True)
class Explained:
    """A vector, taken apart. `computed` is what its inputs give, `stored` what the store has, or None; both by column.

    `bars`, `events` and `actions` are those in its windows, each with the time from which it is held to be true. Actions are those between
    the first bar and the last, where the set looks at any.
    `market` has the newest `MOST_POINTS` trades, quotes and books in the windows of the bar, by stream, and `points` how many there are.
    `higher` has the bars of each higher timeframe that it looks at.
    """

    instrument: str
    ts: datetime
    features: dict[str, Value]
    flags: dict[str, Value]
    raised: tuple[str, ...]
    computed: dict[str, object]
    stored: dict[str, object] | None
    bars: pa.Table
    events: pa.Table
    actions: pa.Table
    market: dict[str, pa.Table] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    higher: dict[str, pa.Table] = field(default_factory=dict)


MOST_POINTS = 100
"""Trades, quotes and books that are shown of each."""


def explain(work: Work, instrument: str, ts: datetime) -> Explained:
    """Take the vector of a bar apart. Raises `NotFound` where there is no such bar."""
    times = _window(work, instrument, ts)
    if not times or times[-1] != ts:
        raise NotFound(f"the store has no {work.timeframe} bar of {instrument} that opens at {ts.isoformat()}{_nearest(times)}")
    length, back = work.feature_set.reaches.get("events", (0, 1))
    since = (ts if back == 1 else times[0]) - timedelta(microseconds=length)
    seen_bars = _revised(work, BARS_TABLE, Selection(work.timeframe, (instrument,), times[0], ts, work.known_at), BARS)
    seen_events = _revised(work, EVENTS_TABLE, Selection(None, (instrument,), since, ts, work.known_at), EVENTS)
    seen_higher = _higher(work, seen_bars)
    first = min([times[0], *(table["ts"][0].as_py() for table in seen_higher.values() if len(table))])
    between = Selection(None, (instrument,), first + timedelta.resolution, ts, work.known_at)
    seen_actions = _revised(work, ACTIONS_TABLE, between if work.plan.adjusted else replace(between, instruments=()), ACTIONS)
    seen_points = _points(work, instrument, sort_bars(seen_bars.select(BARS.names)))
    seen = Seen(
        sort_bars(seen_bars.select(BARS.names)),
        sort_events(seen_events.select(EVENTS.names)),
        seen_actions.select(ACTIONS.names),
        seen_points,
        {text: sort_bars(table.select(BARS.names)) for text, table in seen_higher.items()},
    )
    values = _values(work, seen)
    of_bar = _points(work, instrument, sort_bars(seen_bars.slice(len(seen_bars) - 1).select(BARS.names)))
    vector = work.vectors(seen_bars.select(BARS.names), Selection(instruments=(instrument,))).to_pylist()[-1]
    return Explained(
        instrument,
        ts,
        {name: _tree(expr, values) for name, expr in work.feature_set.features.items()},
        {name: _tree(expr, values) for name, expr in work.feature_set.flags.items()},
        tuple(vector["quality_flags"]),
        vector,
        stored_vector(work, instrument, ts),
        seen_bars,
        seen_events,
        seen_actions,
        {name: table.slice(max(0, len(table) - MOST_POINTS)) for name, table in of_bar.items()},
        {name: len(table) for name, table in of_bar.items()},
        seen_higher,
    )


def _points(work: Work, instrument: str, bars: SortedBars) -> dict[str, pa.Table]:
    """The trades, quotes and books that bars can see, with the time from which each is held to be true."""
    closes, found = bars.closes(work.timeframe, work.calendars), {}
    for table in POINTS:
        if table.name in work.feature_set.reaches:
            first = moment(int(closes.min()) - work.feature_set.reaches[table.name].length)
            between = Selection(None, (instrument,), first, moment(int(closes.max()) - 1), work.known_at)
            found[table.name] = _revised(work, table, between, table.schema)
    return found


def stored_vector(work: Work, instrument: str, ts: datetime) -> dict[str, object] | None:
    """The vector of a bar as the store has it, by column."""
    found = joined(work.store.read(work.table, Selection(work.timeframe, (instrument,), ts, ts, work.known_at)), work.table.schema)
    return next(iter(found.to_pylist()), None)


def _window(work: Work, instrument: str, ts: datetime) -> list[datetime]:
    """When the bars of a vector's window open, and its own."""
    names, lookback = ("instrument_id", "ts"), work.feature_set.lookback
    if work.known_at is None:
        at = pa.table([pa.array([instrument]), pa.array([ts], UTC), pa.array([ts], UTC)], schema=SPANS)
        bars = work.store.around(work.timeframe, at, lookback - 1, names)
    else:
        before = Selection(work.timeframe, (instrument,), None, ts, work.known_at)
        bars = joined(work.store.read(BARS_TABLE, before, names), BARS)
    return sorted(t for t in bars["ts"].to_pylist() if t <= ts)[-lookback:]


def _nearest(times: list[datetime]) -> str:
    return f"; the last one before is {times[-1].isoformat()}" if times else ""


def _revised(work: Work, table: Table, selection: Selection, schema: pa.Schema) -> pa.Table:
    """Rows with the time from which they are held to be true."""
    with_known = replace(table, schema=schema.append(pa.field("known_from", UTC)))
    return joined(work.store.read(with_known, selection), with_known.schema)


def _higher(work: Work, bars: pa.Table) -> dict[str, pa.Table]:
    """The bars of higher timeframes that the bars see, by time."""
    found, base = {}, sort_bars(bars.select(BARS.names))
    moments = base.moments(work.timeframe, work.calendars)
    for text, some in higher_bars(work, base).items():
        seen = some.of(base.instruments)
        newest = newest_known(base.offsets, moments, seen.offsets, seen.known(text, work.calendars))
        first, stop = max(0, int(newest.min()) - work.feature_set.higher[text] + 1), int(newest.max()) + 1
        opens = seen.table["ts"].slice(first, stop - first).to_pylist()
        names = tuple(base.instruments.to_pylist()) if opens else ()
        start, end = (opens[0], opens[-1]) if opens else (None, None)
        chosen = Selection(text, names, start, end, work.known_at)
        found[text] = _revised(work, BARS_TABLE, chosen, BARS)
    return found


@dataclass(frozen=True)
class Seen:
    """All that a vector is made of, sorted."""

    bars: SortedBars
    events: SortedEvents
    actions: pa.Table
    market: dict[str, pa.Table]
    higher: dict[str, SortedBars]


def _values(work: Work, seen: Seen) -> dict[Expr, tuple[float | None, bool]]:
    """The value of every expression at the last bar, and whether it is an error; those over higher bars, as the bar sees them."""
    nodes = [node for node in walk(*work.feature_set.roots) if isinstance(node.domain, str) and (node.operator or node.name)]
    found: dict[Expr, tuple[float | None, bool]] = {}
    for node in nodes:  # each a set of its own: an error raises the flag of the whole set
        if node.domain != ON_BARS and node.scale == NONE:
            continue  # what it would be worth from the bar does not follow from what it is
        alone = FeatureSet("explained", {"value": node if node.domain == ON_BARS else node.latest()})
        the_plan = plan(alone)
        panel = panel_of(the_plan, work.timeframe, seen.bars, seen.events, work.calendars, seen.actions, seen.market, seen.higher)
        last = vectors_of(the_plan, panel, work.timeframe, seen.bars, work.now, "explain", 1).slice(len(panel.ts) - 1).to_pylist()[0]
        found[node] = last["value"], bool(last["quality_flags"])
    return found


def _tree(expr: Expr, values: dict[Expr, tuple[float | None, bool]]) -> Value:
    """An expression over bars and those that it is made of; columns of events have no value for a bar."""
    value, error = values[expr]
    parts = tuple(_tree(part, values) for part in expr.inputs if part in values)
    return Value(expression_text(expr), value, error, parts)
