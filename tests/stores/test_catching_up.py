"""Catching up with what has changed gives what a backfill of everything gives, and computes just what the changes reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof import FeatureSet, bars, events
from asof.calendars import Calendars
from asof.errors import NotFound
from asof.jobs.backfill import backfill
from asof.jobs.following import Follower
from asof.jobs.window import Window
from asof.jobs.work import Report, Work
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, Selection, Store
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, action, actions_of, bar, bars_of, event, events_of, later, minute, rows_in

NEWS = events.window("5m")
SET = FeatureSet(
    "follow",
    {
        "gain": bars.close / bars.close.lag(2) - 1,
        "total": bars.adjusted.close / bars.adjusted.close.lag(2) - 1,
        "mood": NEWS.sentiment.mean(),
        "many": NEWS.count(),
    },
    {"QUIET": NEWS.count() == 0},
)
LOOKBACK, WINDOW = 3, 5
LATER = later(0)


def work(store: Store, now: datetime = LATER, feature_set: FeatureSet = SET) -> Work:
    return Work(store, feature_set, "1m", now, "test", threads=1)


def follower(
    store: Store,
    now: datetime = LATER,
    feature_set: FeatureSet = SET,
    instruments: frozenset[str] | None = None,
    window: Window | None = None,
) -> Follower:
    return Follower(work(store, now, feature_set), "me", instruments, window=window or Window())


def following(store: Store, feature_set: FeatureSet = SET) -> None:
    """A store that somebody follows and has caught up with."""
    store.register(feature_set, NOON)
    store.follow(follower(store, feature_set=feature_set).name)


def caught_up(store: Store, now: datetime = LATER, instruments: frozenset[str] | None = None, window: Window | None = None) -> Report:
    """All pieces of a catching up as one."""
    return sum(follower(store, now, instruments=instruments, window=window).catch_up(), Report())


def vectors(store: Store, feature_set: FeatureSet = SET) -> list[dict[str, object]]:
    """The stored vectors, without who made them and when."""
    rows = rows_in(store, work(store, feature_set=feature_set).table)
    return [{name: value for name, value in row.items() if name not in ("computed_at", "pipeline_version")} for row in rows]


def recomputed(store: Store) -> list[dict[str, object]]:
    """What they should be."""
    made = work(store).vectors(pa.concat_tables(store.read(BARS_TABLE, Selection("1m"))), Selection())
    return made.drop_columns(["computed_at", "pipeline_version"]).to_pylist()


def test_new_bars_get_vectors_and_only_they(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(10))), NOON)
    assert caught_up(store).computed == 10
    store.upsert(BARS_TABLE, bars_of(bar(10, 3.0)), NOON)
    assert caught_up(store).computed == 1
    assert caught_up(store).computed == 0
    assert vectors(store) == recomputed(store)


def test_a_corrected_bar_reaches_its_lookback_and_a_late_event_its_window(store: Store) -> None:
    following(store)
    both = [bar(n, float(n + 1), instrument) for n in range(20) for instrument in "AB"]
    store.upsert(BARS_TABLE, bars_of(*both), NOON)
    caught_up(store)
    store.upsert(BARS_TABLE, bars_of(bar(7, 99.0)), later(1))
    assert caught_up(store).computed == LOOKBACK
    store.upsert(EVENTS_TABLE, events_of(event("x", 8)), later(2))
    assert caught_up(store).computed == WINDOW + 1
    store.upsert(EVENTS_TABLE, events_of(event("x", 3, score=0.1)), later(3))  # from minutes 8 to 13, to 3 to 8
    assert caught_up(store).computed == 11
    assert vectors(store) == recomputed(store)


def test_an_action_reaches_the_bars_from_its_ex_date_on_whose_windows_hold_one_before_it(store: Store) -> None:
    following(store)
    both = [bar(n, float(n + 1), instrument) for n in range(20) for instrument in "AB"]
    store.upsert(BARS_TABLE, bars_of(*both), NOON)
    caught_up(store)
    store.upsert(ACTIONS_TABLE, actions_of(action(7), action(30)), later(1))
    assert caught_up(store).computed == LOOKBACK - 1
    store.upsert(ACTIONS_TABLE, actions_of(action(7, 3.0)), later(2))
    assert caught_up(store).computed == LOOKBACK - 1
    totals = {row["ts"]: row["total"] for row in vectors(store) if row["instrument_id"] == "A"}
    assert [totals[minute(n)] for n in (6, 7, 8, 9)] == [7 / 5 - 1, 8 / (6 * (1 / 3)) - 1, 9 / (7 * (1 / 3)) - 1, 10 / 8 - 1]
    assert vectors(store) == recomputed(store)


def test_a_set_that_adjusts_nothing_is_not_reached_by_actions(store: Store) -> None:
    plain = FeatureSet("plain", {"gain": bars.close / bars.close.lag(2) - 1, "now": bars.adjusted.close * 1})
    following(store, plain)
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(9))), NOON)
    sum(follower(store, feature_set=plain).catch_up(), Report())
    store.upsert(ACTIONS_TABLE, actions_of(action(5)), later(1))
    assert list(follower(store, feature_set=plain).catch_up()) == []


def test_a_bar_that_is_gone_takes_its_vector_with_it(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(10))), NOON)
    caught_up(store)
    store.withdraw(BARS_TABLE, bars_of(bar(4)).select(BARS_TABLE.key), later(1))
    done = caught_up(store)
    assert (done.computed, done.withdrawn) == (LOOKBACK - 1, 1)
    assert vectors(store) == recomputed(store)
    assert len(vectors(store)) == 9


def test_a_bar_that_has_not_closed_waits_until_it_has(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0), bar(1, 2.0), bar(2, 3.0)), NOON)
    assert caught_up(store, minute(2.5)).computed == 2
    assert caught_up(store, minute(2.9)).computed == 0
    assert caught_up(store, minute(3)).computed == 1
    assert caught_up(store, minute(4)).computed == 0
    assert vectors(store) == recomputed(store)


def test_a_daily_bar_waits_until_its_session_has_closed(store: Store) -> None:
    """The half day after Thanksgiving: New York closes at 18:00 UTC, and a market that never closes at midnight."""
    calendars = Calendars({"A": "XNYS", "B": "24/7"})

    def computed(clock: str) -> int:
        now = datetime.fromisoformat(f"{clock}+00:00")
        return sum(Follower(replace(work(store, now), timeframe="1d", calendars=calendars), "me").catch_up(), Report()).computed

    store.register(SET, NOON)
    store.follow(Follower(replace(work(store), timeframe="1d"), "me").name)
    days = (datetime(2024, 11, day, tzinfo=UTC) for day in (27, 29))
    rows = [bar(0, 1.0, name) | {"timeframe": "1d", "ts": day} for day in days for name in "AB"]
    store.upsert(BARS_TABLE, bars_of(*rows), NOON)
    assert computed("2024-11-29 17:59:59") == 2
    assert computed("2024-11-29 18:00:00") == 1
    assert computed("2024-11-29 23:59:59") == 0
    assert computed("2024-11-30 00:00:00") == 1
    whole = backfill(replace(work(store, datetime(2024, 12, 1, tzinfo=UTC)), timeframe="1d", calendars=calendars))
    assert (whole.computed, whole.changes.unchanged) == (4, 4)


def test_only_the_instruments_that_are_asked_for_get_vectors(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(0, instrument="B")), NOON)
    assert caught_up(store, instruments=frozenset("B")).computed == 1
    assert [row["instrument_id"] for row in vectors(store)] == ["B"]


def test_changes_of_another_timeframe_reach_nothing(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(bar(0) | {"timeframe": "5m"}), NOON)
    assert caught_up(store).computed == 0


def test_killed_before_it_moves_on_it_does_the_same_again(store: Store) -> None:
    following(store)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1)), NOON)
    first = next(follower(store).catch_up())
    assert (first.computed, first.changes.inserted) == (2, 2)
    again = next(follower(store).catch_up())
    assert (again.computed, again.changes.inserted, again.changes.unchanged) == (2, 0, 2)


def test_an_instrument_that_cannot_be_computed_is_told_and_does_not_stop_the_others(store: Store) -> None:
    following(store)
    names = "ABCDEFG"
    store.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0, name) for n in range(4) for name in names)), NOON)

    class Broken(Work):
        def vectors(self, bars: pa.Table, events_of: Selection) -> pa.Table:
            if "E" in bars["instrument_id"].to_pylist():
                raise ZeroDivisionError("E is broken")
            return super().vectors(bars, events_of)

    done = list(Follower(Broken(store, SET, "1m", later(0), "test", threads=1), "me").catch_up())
    assert [(r.computed, r.failed) for r in done] == [(4 * 6, {"E": "E is broken"})]
    assert {row["instrument_id"] for row in vectors(store)} == set("ABCDFG")


def test_who_does_not_follow_is_told(store: Store) -> None:
    with pytest.raises(NotFound, match="me/follow/1m does not follow"):
        caught_up(store)


def test_a_backfill_leaves_bars_that_have_not_closed_alone(store: Store) -> None:
    store.register(SET, NOON)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1), bar(2)), NOON)
    assert backfill(work(store, minute(2.5))).computed == 2
    assert backfill(work(store, minute(3))).computed == 3


@dataclass
class Ledger:
    """What a test did, told once more in plain Python: which vectors each change reaches."""

    bars: set[tuple[str, int]] = field(default_factory=set)
    events: dict[tuple[str, str], float] = field(default_factory=dict)
    reached: set[tuple[str, int]] = field(default_factory=set)
    pending: list[tuple[str, str, float]] = field(default_factory=list)

    def settle(self) -> int:
        """How many vectors the changes since the last time reach, among the bars that there are now."""
        reached = set()
        for kind, instrument, at in self.pending:
            mine = sorted(n for i, n in self.bars if i == instrument)
            if kind in ("bar", "action"):
                behind = [n for n in mine if n >= at]
                reached |= {(instrument, n) for n in behind[: LOOKBACK if kind == "bar" and at in mine else LOOKBACK - 1]}
            else:
                reached |= {(instrument, n) for n in mine if at <= n <= at + WINDOW}
        self.pending.clear()
        return len(reached)


minutes = st.integers(0, 25)
names = st.sampled_from("AB")
steps = st.one_of(
    st.tuples(st.just("bar"), names, minutes, st.sampled_from([1.0, 2.0, None])),
    st.tuples(st.just("gone"), names, minutes),
    st.tuples(st.just("action"), names, minutes, st.sampled_from([2.0, 3.0])),
    st.tuples(st.just("undone"), names, minutes),
    st.tuples(st.just("event"), names, st.sampled_from("xyz"), minutes, st.sampled_from([0.1, 0.5])),
    st.just(("catch up",)),
)


def act(store: Store, ledger: Ledger, n: int, step: tuple[object, ...]) -> None:
    """Write an action or withdraw it; its ex-date lies between two bars."""
    what, name, at, *split = step
    row, before = action(at - 0.5, *split, instrument=name), rows_in(store, ACTIONS_TABLE)  # type: ignore[operator,arg-type]  # as drawn
    if what == "action":
        store.upsert(ACTIONS_TABLE, actions_of(row), later(n))
    else:
        store.withdraw(ACTIONS_TABLE, actions_of(row).select(ACTIONS_TABLE.key), later(n))
    if rows_in(store, ACTIONS_TABLE) != before:
        ledger.pending.append(("action", name, at - 0.5))  # type: ignore[arg-type,operator]


@given(todo=st.lists(steps, min_size=5, max_size=40))
@settings(max_examples=25)
def test_after_any_changes_the_vectors_are_those_of_a_full_computation_and_no_more_were_computed(
    new_store: Opener, todo: Iterable[tuple[object, ...]]
) -> None:
    with new_store() as store:
        following(store)
        ledger, closes, window = Ledger(), {}, Window()
        for n, step in enumerate([*todo, ("catch up",)]):
            match step:
                case ("bar", name, at, close):
                    if (name, at) not in ledger.bars or closes[name, at] != close:
                        ledger.pending.append(("bar", name, at))
                    ledger.bars.add((name, at))
                    closes[name, at] = close
                    store.upsert(BARS_TABLE, bars_of(bar(at, close, name)), later(n))
                case ("gone", name, at):
                    if (name, at) in ledger.bars:
                        ledger.pending.append(("bar", name, at))
                        ledger.bars.discard((name, at))
                    store.withdraw(BARS_TABLE, bars_of(bar(at, instrument=name)).select(BARS_TABLE.key), later(n))
                case ("action" | "undone", *_):
                    act(store, ledger, n, step)
                case ("event", name, key, at, score):
                    before = {row["event_id"]: row for row in rows_in(store, EVENTS_TABLE) if row["instrument_id"] == name}.get(key)
                    store.upsert(EVENTS_TABLE, events_of(event(key, at, score, name)), later(n))
                    after = {row["event_id"]: row for row in rows_in(store, EVENTS_TABLE) if row["instrument_id"] == name}[key]
                    if after != before:
                        for row in filter(None, (before, after)):
                            ledger.pending.append(("event", name, (row["enriched_at_utc"] - minute(0)) / timedelta(minutes=1)))
                case _:
                    assert caught_up(store, later(1000), window=window).computed == ledger.settle()
        assert vectors(store) == (recomputed(store) if ledger.bars else [])


def test_bars_in_memory_are_read_no_second_time_and_those_that_change_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    following(store)
    read: list[int] = []

    def around(self: Store, timeframe: str, spans: pa.Table, reach: int, columns: tuple[str, ...]) -> pa.Table:
        found = reads(self, timeframe, spans, reach, columns)
        read.append(len(found))
        return found

    reads, window = type(store).around, Window()
    monkeypatch.setattr(type(store), "around", around)
    for n, change in enumerate(
        (
            [bar(n, n + 1.0) for n in range(20)],  # new to the window: all are read
            [bar(20, 3.0)],
            [bar(21, 4.0), bar(0, 5.0, "B")],
            [bar(20, None)],
            [bar(22, 6.0), bar(1, 7.0, "B")],
            [bar(3, 8.0)],  # from before the window, so with what is around it, and so is the next
            [bar(23, 9.0)],
            [bar(24, 9.5)],
        )
    ):
        store.upsert(BARS_TABLE, bars_of(*change), later(n))
        caught_up(store, later(1000), window=window)
    assert read == [20, 1, 1, 1, 1, 2, 14, 11, 1]
    assert vectors(store) == recomputed(store)


def test_a_first_time_that_fails_is_the_first_time_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.register(SET, NOON)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1)), NOON)
    with monkeypatch.context() as patch:
        patch.setattr(Work, "vectors", lambda *arguments: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            follower(store).begin()
    assert follower(store).begin().computed == 2
    assert follower(store).begin().computed == 0
    assert vectors(store) == recomputed(store)


def test_two_followers_of_one_set_do_not_take_changes_from_each_other(store: Store) -> None:
    store.register(SET, NOON)
    one, other = Follower(work(store), "one", frozenset("A")), Follower(work(store), "other")
    for each in (one, other):
        store.follow(each.name)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(0, instrument="B")), NOON)
    assert sum(one.catch_up(), Report()).computed == 1
    assert sum(other.catch_up(), Report()).computed == 2
