"""Higher timeframes out of stores: backfill, catching up, replay and known-at give the same bits, and a change reaches who sees it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asof
from asof import FeatureSet, bars, events
from asof.errors import DefinitionError
from asof.jobs.backfill import backfill
from asof.jobs.following import Follower
from asof.jobs.parts import computed, pieces
from asof.jobs.replay import Replay
from asof.jobs.verify import verify
from asof.jobs.work import Report, Work
from asof.records import BARS
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, action, actions_of, bar, bars_of, later, minute, rows_in

five, quarter = bars.every("5m"), bars.every("15m")
SET = FeatureSet(
    "seen",
    {
        "mean": five.close.mean(2).latest(),
        "place": (bars.close / quarter.close.latest()).mean(2),
        "total": bars.adjusted.close / five.adjusted.close.lag(1).latest() - 1,
        "age": quarter.close.age(),
        "mood": events.window("5m").sentiment.mean(),
    },
    {"FEW": five.count(3).latest() < 3},
)
LATER = later(1000)


def high(n: int, close: float | None = 1.0, instrument: str = "A", every: int = 5, late: int = 0) -> dict[str, object]:
    """The bar of five or fifteen minutes that opens in minute `n`, known so many minutes after its close."""
    known = minute(n + every + late) if late else None
    return {"instrument_id": instrument, "timeframe": f"{every}m", "ts": minute(n), "close": close, "available_at": known}


def work(store: Store, now: datetime = LATER, known_at: datetime | None = None) -> Work:
    return Work(store, SET, "1m", now, "test", threads=1, known_at=known_at)


def shown(table: pa.Table) -> list[dict[str, object]]:
    """Vectors without who made them and when."""
    return table.drop_columns(["computed_at", "pipeline_version"]).to_pylist()


def stored(store: Store) -> list[dict[str, object]]:
    found = list(store.read(work(store).table, Selection("1m")))
    return shown(pa.concat_tables(found)) if found else []


def in_memory(store: Store) -> list[dict[str, object]]:
    """What `asof.compute` makes of all that the store holds."""
    held = {frame: pa.concat_tables([BARS.empty_table(), *store.read(BARS_TABLE, Selection(frame))]) for frame in ("1m", "5m", "15m")}
    acted = pa.concat_tables([ACTIONS_TABLE.schema.empty_table(), *store.read(ACTIONS_TABLE, Selection())])
    base = held.pop("1m")
    return shown(asof.compute(SET, base, actions=acted, higher=held, timeframe="1m").to_arrow()) if len(base) else []


def following(store: Store) -> None:
    store.register(SET, NOON)
    store.follow(Follower(work(store), "me").name)


def caught_up(store: Store, now: datetime = LATER) -> Report:
    return sum(Follower(work(store, now), "me").catch_up(), Report())


def filled(store: Store, count: int = 40) -> None:
    """Two instruments, with bars of one, five and fifteen minutes."""
    for name in "AB":
        rows = [bar(n, float(n + 1), name) for n in range(count)]
        rows += [high(n, float(n + 1), name) for n in range(0, count, 5)]
        rows += [high(n, float(n + 2), name, every=15) for n in range(0, count, 15)]
        store.upsert(BARS_TABLE, bars_of(*rows), NOON)


def test_a_backfill_gives_what_compute_gives_in_parts_of_any_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    store.register(SET, NOON)
    assert backfill(work(store)).computed == 80
    assert stored(store) == in_memory(store)
    monkeypatch.setattr("asof.jobs.parts.part_rows", lambda memory, features: 7)
    parts = pieces(work(store)).parts
    assert len(parts) > 8
    assert [row for part in parts for row in shown(computed(work(store), part))] == in_memory(store)
    assert all(found.right for found, _ in verify(work(store)))


def test_however_late_the_newest_is_it_is_found(store: Store) -> None:
    rows = [high(n, float(n), late=0 if n == 0 else 10_000) for n in range(0, 400, 5)]
    store.upsert(BARS_TABLE, bars_of(bar(395, 7.0), *rows), NOON)
    (found,) = shown(work(store).vectors(bars_of(bar(395, 7.0)), Selection()))
    assert (found["mean"], found["quality_flags"]) == (None, ["FEW"])
    assert [row["mean"] for row in in_memory(store)] == [None]
    store.upsert(BARS_TABLE, bars_of(high(5, 5.0)), later(1))
    (found,) = shown(work(store).vectors(bars_of(bar(395, 7.0)), Selection()))
    assert found["mean"] == 2.5


def test_a_corrected_higher_bar_reaches_the_bars_that_see_it(store: Store) -> None:
    following(store)
    filled(store)
    caught_up(store)
    store.upsert(BARS_TABLE, bars_of(high(10, 99.0)), later(1))
    # known at minute 15, in the mean of two and the count of three until the bar of minute 25 is known at minute 30; windows are two bars
    assert caught_up(store).computed == 30 - 10 + 1
    assert stored(store) == in_memory(store)
    means = {row["ts"]: row["mean"] for row in stored(store) if row["instrument_id"] == "A"}
    assert [means[minute(n)] for n in (13, 14, 23, 24)] == [3.5, (6 + 99) / 2, (99 + 16) / 2, 18.5]


def test_bars_that_come_later_than_those_who_see_them(store: Store) -> None:
    following(store)
    for n in range(12):
        store.upsert(BARS_TABLE, bars_of(bar(n, float(n + 1))), NOON)
        caught_up(store, minute(n + 1))
    assert {row["mean"] for row in stored(store)} == {None}
    store.upsert(BARS_TABLE, bars_of(high(0, 1.0), high(5, 2.0), high(10, 3.0)), NOON)
    caught_up(store, minute(12))
    assert [row["mean"] for row in stored(store)] == [None] * 9 + [1.5] * 3, "the bar of minute 10 has not closed"
    assert stored(store) == in_memory(store)


def test_as_known_at_a_moment_it_is_computed_of_what_was_known(store: Store) -> None:
    filled(store)
    store.register(SET, NOON)
    before = in_memory(store)
    store.upsert(BARS_TABLE, bars_of(high(10, 99.0), high(15, 98.0, every=15)), later(1))
    assert in_memory(store) != before
    todo = pieces(work(store, known_at=NOON))
    assert [row for part in todo.parts for row in shown(computed(work(store, known_at=NOON), part))] == before


def test_a_base_that_is_not_lower_is_refused_with_the_mend(store: Store) -> None:
    filled(store)
    with pytest.raises(DefinitionError, match="at 5m bars from 5m bars, which are not lower: compute it over a timeframe below 5m"):
        backfill(Work(store, SET, "5m", LATER, "test"))


minutes = st.integers(0, 29)
names = st.sampled_from("AB")
prices = st.sampled_from([1.0, 2.0, None])
late = st.sampled_from([0, 0, 0, 3, 17])
steps = st.one_of(
    st.tuples(st.just("bar"), names, minutes, prices, late),
    st.tuples(st.just("high"), names, st.integers(0, 5).map(lambda n: 5 * n), prices, late, st.sampled_from([5, 15])),
    st.tuples(st.just("high"), names, st.integers(0, 5).map(lambda n: 5 * n), prices, late, st.just(5)),
    st.tuples(st.just("gone"), names, minutes, st.just(1)),
    st.tuples(st.just("gone"), names, st.integers(0, 5).map(lambda n: 5 * n), st.just(5)),
    st.tuples(st.just("action"), names, minutes, st.sampled_from([2.0, 3.0])),
    st.tuples(st.just("undone"), names, minutes),
    st.just(("catch up",)),
)


def do(store: Store, step: tuple[object, ...], known: datetime) -> None:
    match step:
        case ("bar", str(name), int(at), close, int(delay)):
            told = {"available_at": minute(at + 1 + delay)} if delay else {}
            store.upsert(BARS_TABLE, bars_of(bar(at, close, name, **told)), known)  # type: ignore[arg-type]  # a price or None
        case ("high", str(name), int(at), close, int(delay), int(every)):
            store.upsert(BARS_TABLE, bars_of(high(at // every * every, close, name, every, delay)), known)  # type: ignore[arg-type]
        case ("gone", str(name), int(at), int(every)):
            row = bar(at, instrument=name) if every == 1 else high(at, instrument=name)
            store.withdraw(BARS_TABLE, bars_of(row).select(BARS_TABLE.key), known)
        case ("action", str(name), int(at), float(split)):
            store.upsert(ACTIONS_TABLE, actions_of(action(at - 0.5, split, name)), known)
        case ("undone", str(name), int(at)):
            store.withdraw(ACTIONS_TABLE, actions_of(action(at - 0.5, instrument=name)).select(ACTIONS_TABLE.key), known)


@pytest.mark.slow
@given(todo=st.lists(steps, min_size=5, max_size=50))
@settings(max_examples=25)
def test_after_any_changes_the_vectors_are_those_of_a_full_computation(new_store: Opener, todo: Iterable[tuple[object, ...]]) -> None:
    with new_store() as store:
        following(store)
        for n, step in enumerate([*todo, ("catch up",)]):
            if step == ("catch up",):
                caught_up(store)
                assert stored(store) == in_memory(store)
            else:
                do(store, step, NOON + timedelta(minutes=n))


@pytest.mark.slow
@given(todo=st.lists(steps, min_size=5, max_size=50), seed=st.integers(0, 3))
@settings(max_examples=25)
def test_a_replay_ends_where_a_backfill_does(todo: Iterable[tuple[object, ...]], seed: int) -> None:
    with closing(open_store("duckdb://")) as store, closing(open_store("duckdb://")) as scratch:
        filled(store, 30)
        for n, step in enumerate(todo):
            do(store, step, NOON + timedelta(minutes=n))
        if not rows_in(store, BARS_TABLE, Selection("1m")):
            return
        Replay(work(store), scratch, seed=seed).run()
        assert stored(scratch) == in_memory(store)


def test_a_replay_of_history_that_came_in_order_corrects_nothing(store: Store) -> None:
    filled(store)
    with closing(open_store("duckdb://")) as scratch:
        done = Replay(work(store), scratch).run()
        assert (done.changes.inserted, done.changes.corrected) == (80, 0)
        assert stored(scratch) == in_memory(store)


def test_a_long_sight_is_worked_off_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    following(store)
    filled(store)
    caught_up(store)
    monkeypatch.setattr("asof.jobs.sightings.MOST_PART_ROWS", 4)
    store.upsert(BARS_TABLE, bars_of(high(10, 99.0), high(15, 4.0, "B"), high(0, 3.0, "B", every=15)), later(1))
    reports = list(Follower(work(store), "me").catch_up())
    assert len(reports) > 8
    assert stored(store) == in_memory(store)
