"""Causes: why a stored vector is not what its inputs give.

1. The vector is taken apart as its inputs are now, and as they were known when it was computed.
2. Every revision of the bars, points, actions and memberships in its windows is read. Those that were another then, or were not there,
   have changed.
3. Where the inputs of then give what is stored, to the bit, these changes are the cause, and a backfill mends it. Where they do not, the
   vector or an input was changed in a way that the store does not see, or another program computed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from asof.errors import NotFound
from asof.jobs.across import first_across
from asof.jobs.explain import Explained, explain, stored_vector
from asof.jobs.verify import Difference
from asof.jobs.work import Work
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, POINTS, Selection, Table
from asof.timeframes import timeframe

Row = dict[str, object]
Revision = tuple[datetime, datetime, Row]
"""From when and until when a row was held to be true, and the row."""
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ChangedInput:
    """A bar, point, action or membership that is another since a moment: its key, and the values of what differs.

    `before` or `now` is None where it was not there, or is not.
    """

    kind: str
    key: Row
    before: Row | None
    now: Row | None
    since: datetime


@dataclass(frozen=True)
class Cause:
    """A difference with its vector taken apart, and the inputs that have changed since it was computed.

    `explained` is None where there is no bar any more, and `computed_at` where no vector is stored. `accounted` tells whether the inputs as
    they were known at `computed_at` give what is stored.
    """

    difference: Difference
    explained: Explained | None
    computed_at: datetime | None
    changed: tuple[ChangedInput, ...]
    accounted: bool


def cause(work: Work, difference: Difference) -> Cause:
    """Look for what made a difference."""
    now = _explained(work, difference)
    stored = stored_vector(work, difference.instrument, difference.ts)
    if stored is None:
        return Cause(difference, now, None, (), accounted=False)
    at = stored["computed_at"]
    assert isinstance(at, datetime)
    then = _explained(replace(work, known_at=at), difference)
    accounted = then is not None and all(_same(then.computed[name], stored[name]) for name in work.table.compared)
    both = [found for found in (now, then) if found is not None]
    return Cause(difference, now, at, tuple(_changed(work, difference, both, at)), accounted)


def _explained(work: Work, difference: Difference) -> Explained | None:
    try:
        return explain(work, difference.instrument, difference.ts)
    except NotFound:
        return None


def _same(one: object, other: object) -> bool:
    """Whether two values have the same bits."""
    return one.hex() == other.hex() if isinstance(one, float) and isinstance(other, float) else one == other


def _changed(work: Work, difference: Difference, both: list[Explained], at: datetime) -> Iterator[ChangedInput]:
    """What has changed since a moment, of all that lies in the vector's windows now and lay in them then."""
    last, step = difference.ts, timedelta(microseconds=timeframe(work.timeframe))
    of, first = _looked_at(work, difference, both, at)
    heard = first if work.plan.crosses else last
    yield from _changes(work, BARS_TABLE, Selection(work.timeframe, of, first, last), at)
    for table in (EVENTS_TABLE, *POINTS):
        if table.name in work.feature_set.reaches:
            length, back = work.feature_set.reaches[table.name]
            after = timedelta(0) if table is EVENTS_TABLE else step  # windows end at the open, or at the close
            start = (heard if back == 1 else first) + after - timedelta(microseconds=length)
            yield from _changes(work, table, Selection(None, of, start, last + after), at)
    for text in work.feature_set.higher:
        opens = [opened for found in both for opened in found.higher[text]["ts"].to_pylist()]
        if opens:
            yield from _changes(work, BARS_TABLE, Selection(text, of, min(opens), max(opens)), at)
            first = min(first, *opens)
    if work.plan.adjusted:
        yield from _changes(work, ACTIONS_TABLE, Selection(None, of, first + timedelta.resolution, last), at)
    if work.feature_set.schemes:
        told = _changes(work, MEMBERSHIPS_TABLE, Selection(end=last), at)
        yield from (one for one in told if one.key["scheme"] in work.feature_set.schemes)


def _looked_at(work: Work, difference: Difference, both: list[Explained], at: datetime) -> tuple[tuple[str, ...] | None, datetime]:
    """Whose bars the vector looks at or looked at, all if None, and from when on: its own, or across instruments the members'."""
    mine = (difference.instrument,)
    first = min((found.bars["ts"][0].as_py() for found in both), default=difference.ts)
    if not work.plan.crosses:
        return mine, first
    found = [first_across(one, mine, difference.ts, difference.ts) for one in (work, replace(work, known_at=at))]
    names = [of for of, _ in found if of is not None]
    everyone = None if len(names) < len(found) else tuple(sorted({name for of in names for name in of}))
    return everyone, min(first, *(begins for _, begins in found))


def _changes(work: Work, table: Table, selection: Selection, at: datetime) -> Iterator[ChangedInput]:
    """The selected rows of a table whose revision of then is not the one in force, by their keys."""
    of: dict[tuple[object, ...], list[Revision]] = {}
    for batch in work.store.revisions(table, selection):
        for row in batch.to_pylist():
            of.setdefault(tuple(row[name] for name in table.key), []).append((row["known_from"], row["known_to"] or FOREVER, row))
    for key, revisions in sorted(of.items(), key=str):
        before = next((row for begun, until, row in revisions if begun <= at < until), None)
        since, ended, now = max(revisions, key=lambda revision: revision[0])
        gone = ended != FOREVER
        names = [name for name in table.compared if gone or before is None or not _same(before[name], now[name])]
        if names and not (gone and before is None):
            shown = [{name: row[name] for name in names} if row else None for row in (before, None if gone else now)]
            yield ChangedInput(table.name, dict(zip(table.key, key, strict=True)), shown[0], shown[1], ended if gone else since)
