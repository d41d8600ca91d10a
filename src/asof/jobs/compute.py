"""`asof.compute`: features of bars and events in memory, with no store at all; and `asof.resample`, bars of a higher timeframe.

1. Take the tables through the Arrow PyCapsule interface and hold them to the same checks as every other source.
2. Sort, lay them out as a panel, run the plan.
3. Give the vectors back as a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import Calendars
from asof.engine.plan import plan
from asof.errors import DataError
from asof.features.feature_set import FeatureSet
from asof.features.streams import QUOTES
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.members import NO_MEMBERSHIPS
from asof.jobs.panels import SortedBars, check_higher, merge_enrichments, panel_of, sort_bars, vectors_of
from asof.jobs.points import NO_EVENTS, SortedEvents, sort_events
from asof.jobs.resampling import resampled
from asof.records import ArrowStream, Frame
from asof.sources.canonical import Batch, actions_of, bars_of, events_of, memberships_of
from asof.sources.columns import ColumnMapping
from asof.sources.points import PointReader
from asof.stores.store import ACTIONS_TABLE, MEMBERSHIPS_TABLE, Table


def compute(
    feature_set: FeatureSet,
    bars: ArrowStream,
    events: ArrowStream | None = None,
    *,
    actions: ArrowStream | None = None,
    trades: ArrowStream | None = None,
    quotes: ArrowStream | None = None,
    books: ArrowStream | None = None,
    higher: Mapping[str, ArrowStream] | None = None,
    memberships: ArrowStream | None = None,
    timeframe: str | None = None,
    timezone: str | None = None,
    calendars: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Frame:
    """One vector for each bar: `instrument_id, timeframe, ts`, the features, `quality_flags`, counts and times.

    `bars` has `instrument_id, ts, close` and what else the features read; `events` has `event_id, enriched_at_utc, tickers` (or
    `instrument_id`), `score` and `confidence`. Missing features are null. The rows come sorted by instrument and time.

    `actions`, which `bars.adjusted` goes by, has `instrument_id`, `ts` (the ex-date), `split` (new shares for an old one) and
    `dividend_factor` (1 - dividend / close), or one of the two.

    `trades` has `instrument_id`, `ts`, `price`, `size` and, where there are, `side`, `seq` and `available_at`; `quotes` has `bid`,
    `bid_size`, `ask` and `ask_size` instead, missing where a side is empty; `books` has `bid_prices`, `bid_sizes`, `ask_prices` and
    `ask_sizes`, lists with the best first, and `gap`.

    `higher` has the bars of the higher timeframes that the features look at, such as `{"1h": hours}`; those of timeframes that it does
    not have are made of the bars themselves (`asof.resample`).

    `memberships`, which `across("sp500", by="sector")` goes by, has `scheme`, `instrument_id`, `ts` (from then on), `value` (null: it has
    left; without the column every row is in) and `available_at` where a row was known later. The bars are those of all members.

    `calendars` says when bars are expected and daily ones close: `{"AAPL": "XNYS", "*": "24/7"}`, with `*` for every other instrument.

    Raises `DataError` for rows that cannot be used (naive times without `timezone`, infinite prices, two rows for one bar or ex-date, ...).
    """
    mapping, known = ColumnMapping(timezone=timezone), Calendars(calendars or {})
    _check_memberships(feature_set, memberships)
    with ThreadPoolExecutor(1) as beside:  # events are read on a second thread: Arrow and NumPy work without the lock
        reading = beside.submit(_events, events, mapping)
        taken = usable(bars_of(pa.table(bars), mapping, timeframe), "bars")
        text = timeframe or one_timeframe(taken)
        sorted_bars = sort_bars(taken)
        the_plan = plan(feature_set)
        acted = NO_ACTIONS if actions is None else distinct(usable(actions_of(pa.table(actions), mapping), "actions"))
        check_higher(the_plan, text)
        above = {name: higher_given(name, (higher or {}).get(name), mapping, sorted_bars, text, known) for name in feature_set.higher}
        market, told = market_of(mapping, trades=trades, quotes=quotes, books=books), memberships_given(memberships, mapping)
        panel = panel_of(the_plan, text, sorted_bars, reading.result(), known, acted, market, above, told)
    return Frame(vectors_of(the_plan, panel, text, sorted_bars, datetime.now(UTC), "compute", threads, known))


def resample(
    bars: ArrowStream,
    to: str,
    *,
    timeframe: str | None = None,
    timezone: str | None = None,
    calendars: Mapping[str, str] | None = None,
) -> Frame:
    """The bars of the timeframe `to` that lower bars make, by instrument and time: on its grid for minutes and hours, by session for days.

    Sessions are those of `calendars`; without one they are the days of UTC, and bars outside of them are in no daily bar. The open is
    the first that is there, the close the last, and a bar is there where one lower bar is. `available_at` is when the newest lower bar
    could be known where that is after the close of the bar, and of days their close; the last bar may not be complete.

    Raises `DataError` as `compute` does, and `DefinitionError` where the one timeframe is no multiple of the other.
    """
    taken = usable(bars_of(pa.table(bars), ColumnMapping(timezone=timezone), timeframe), "bars")
    return Frame(resampled(sort_bars(taken), timeframe or one_timeframe(taken), to, Calendars(calendars or {})))


def higher_given(
    timeframe: str, given: ArrowStream | None, mapping: ColumnMapping, base: SortedBars, lower: str, calendars: Calendars
) -> SortedBars:
    """The bars of a higher timeframe: as given, or made of the lower ones."""
    if given is None:
        return sort_bars(resampled(base, lower, timeframe, calendars))
    return sort_bars(usable(bars_of(pa.table(given), mapping, timeframe), f"{timeframe} bars"))


def memberships_given(given: ArrowStream | None, mapping: ColumnMapping) -> pa.Table:
    """Memberships, each once; none where none are given."""
    return NO_MEMBERSHIPS if given is None else distinct(usable(memberships_of(pa.table(given), mapping), "memberships"), MEMBERSHIPS_TABLE)


def _check_memberships(feature_set: FeatureSet, given: ArrowStream | None) -> None:
    if given is None and feature_set.schemes:
        needed = ", ".join(feature_set.schemes)
        raise DataError(f"{feature_set.version} looks across {needed}: give the memberships, as in compute(..., memberships=table)")


def _events(events: ArrowStream | None, mapping: ColumnMapping) -> SortedEvents:
    return NO_EVENTS if events is None else sort_events(merge_enrichments(usable(events_of(pa.table(events), mapping), "events")))


def market_of(mapping: ColumnMapping, **given: ArrowStream | None) -> dict[str, pa.Table]:
    """Trades, quotes and books in canonical form, by stream. Raises `DataError` where a row cannot be used."""
    readers = {stream: PointReader(stream, mapping, "empty" if stream == QUOTES else None) for stream in given}
    return {stream: usable(readers[stream].batch(pa.table(rows)), stream) for stream, rows in given.items() if rows is not None}


def one_timeframe(bars: pa.Table) -> str:
    """The timeframe of bars; that of days where there are none. Raises `DataError` where they are of several."""
    frames = pc.unique(bars["timeframe"]).to_pylist()
    if len(frames) > 1:
        raise DataError(f"the bars are of several timeframes ({', '.join(frames)}): compute one at a time")
    return frames[0] if frames else "1d"


def distinct(records: pa.Table, table: Table = ACTIONS_TABLE) -> pa.Table:
    """Actions or memberships, each once. Raises `DataError` where two of one key disagree."""
    once = records.group_by(records.column_names).aggregate([])
    counted = once.group_by(list(table.key)).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1)).sort_by([("instrument_id", "ascending"), ("ts", "ascending")])
    if len(twice):
        row = twice.slice(0, 1).to_pylist()[0]
        raise DataError(f"two {table.name} of {row['instrument_id']} at {row['ts']} disagree: keep one of them")
    return once


def usable(batch: Batch, what: str) -> pa.Table:
    """The rows of a batch, of bars, events or actions. Raises `DataError` where one of them cannot be used."""
    if batch.refusals.rows:
        more = f" ({len(batch.refusals.rows)} rows are refused in all)" if len(batch.refusals.rows) > 1 else ""
        raise DataError(f"{what}, row {batch.refusals.rows[0] + 1}: {batch.refusals.details[0]}{more}")
    return batch.table
