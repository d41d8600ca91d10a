"""Explain: one vector with the value of every expression, the bars, events and actions that went in, and why its flags are raised."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.layout import newest_known
from asof.engine.plan import plan
from asof.engine.run import evaluate
from asof.engine.stages import staged
from asof.errors import NotFound
from asof.features.across import GROUP, Across, across_of
from asof.features.adjustment import NONE
from asof.features.expression import BARS as ON_BARS
from asof.features.expression import Expr, column, walk
from asof.features.feature_set import FeatureSet
from asof.features.text import expression_text
from asof.jobs.across import bars_across
from asof.jobs.higher import higher_bars
from asof.jobs.panels import SortedBars, sort_bars
from asof.jobs.work import Seen, Work, joined, moment
from asof.operators import SECTION_SHAPES
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


MOST_POINTS = 100
"""Trades, quotes and books that are shown of each."""
AT_ONCE = 16
"""Expressions that are computed together: across instruments, each is a column of all members' bars."""


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
    if not work.closed(seen_bars["instrument_id"], seen_bars["ts"])[-1]:
        raise NotFound(f"the {work.timeframe} bar of {instrument} that opens at {ts.isoformat()} has not closed")
    of_bar = _points(work, instrument, sort_bars(seen_bars.slice(len(seen_bars) - 1).select(BARS.names)))
    at = At.of(work, instrument, ts, seen_bars)
    values, vector = at.values(_shown(work.feature_set)), at.vector()
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
        _sections(at, values),
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
    at, lookback = pa.table([pa.array([instrument]), pa.array([ts], UTC), pa.array([ts], UTC)], schema=SPANS), work.feature_set.lookback
    bars = work.store.around(work.timeframe, at, lookback - 1, ("instrument_id", "ts"), work.known_at)
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


Valued = tuple[float | None, bool]
"""The value of an expression, None where it is missing, and whether it is an error."""


@dataclass(frozen=True)
class At:
    """A bar, by its row, among all bars that its vector looks at."""

    work: Work
    seen: Seen
    row: int

    @classmethod
    def of(cls, work: Work, instrument: str, ts: datetime, window: pa.Table) -> At:
        """The bar with what the store has for it, which is read once. `window` are the instrument's own bars that it looks at."""
        bars = bars_across(work, (instrument,), ts, ts) if work.plan.crosses else window.select(work.columns)
        bars = bars.filter(pc.less_equal(bars["ts"], pa.scalar(ts, UTC)))
        seen = work.seen(bars, Selection(instruments=tuple(sorted(pc.unique(bars["instrument_id"]).to_pylist()))))
        stop = seen.bars.offsets[pc.index(seen.bars.instruments, instrument).as_py() + 1]
        return cls(work, seen, int(stop) - 1)

    def vector(self) -> dict[str, Any]:
        """The bar's vector, by column."""
        return dict(self.work.made_of(self.seen).slice(self.row, 1).to_pylist()[0])

    def values(self, exprs: list[Expr]) -> dict[Expr, Valued]:
        """The values of expressions at the bar; those over higher bars, as the bar sees them."""
        found: dict[Expr, Valued] = {}
        for start in range(0, len(exprs), AT_ONCE):
            some = exprs[start : start + AT_ONCE]
            features = {f"x{k}": expr if expr.domain == ON_BARS else expr.latest() for k, expr in enumerate(some)}
            the_plan = plan(FeatureSet("explained", features))
            panel = staged(the_plan, self.seen.panel(the_plan, self.work.timeframe, self.work.calendars), self.work.threads)
            for expr, made in zip(some, evaluate(the_plan, panel, self.work.threads), strict=True):
                value = float(made[self.row])
                found[expr] = value if math.isfinite(value) else None, math.isinf(value)
        return found


def _shown(feature_set: FeatureSet) -> list[Expr]:
    """The expressions that have a value for a bar.

    What one over higher bars that does not rescale would be worth from the bar does not follow from what it is; a group is no number.
    """
    nodes = [node for node in walk(*feature_set.roots) if isinstance(node.domain, str) and (node.operator or node.name)]
    return [node for node in nodes if not node.name.startswith(GROUP) and (node.domain == ON_BARS or node.scale != NONE)]


def _sections(at: At, values: dict[Expr, Valued]) -> tuple[Section, ...]:
    """What each operator across instruments looked at."""
    nodes = [node for node in values if node.operator and node.operator.shape in SECTION_SHAPES]
    asked = {node: _asked(across_of(node), node.inputs[0]) for node in nodes}
    found, sections = at.values(list(dict.fromkeys(expr for some in asked.values() for expr in some))), []
    for node, some in asked.items():
        members, valued, share = (found[expr][0] for expr in some)
        place = None if share is None or valued is None else round(share * valued * 2) / 2
        sections.append(Section(expression_text(node), int(members or 0), int(valued or 0), place))
    return tuple(sections)


def _asked(whole: Across, x: Expr) -> tuple[Expr, Expr, Expr]:
    """How many members have a bar, how many of them a value, and which share of them is below the own one."""
    return whole.count(column("", ON_BARS) + 0), whole.count(x), whole.rank(x)


def _tree(expr: Expr, values: dict[Expr, Valued]) -> Value:
    """An expression over bars and those that it is made of; columns of events have no value for a bar."""
    value, error = values[expr]
    parts = tuple(_tree(part, values) for part in expr.inputs if part in values)
    return Value(expression_text(expr), value, error, parts)
