"""Features across instruments over every store: in pieces, as known at a moment, followed to the exact reach, replayed, verified."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof import FeatureSet, across, bars, events
from asof.config import Settings
from asof.feature_store import FeatureStore
from asof.jobs.backfill import backfill
from asof.jobs.following import Follower
from asof.jobs.replay import Replay
from asof.jobs.verify import verify
from asof.jobs.work import Report, Work
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, bar, bars_of, event, events_of, later, membership, memberships_of, minute, rows_in

gain = bars.close / bars.close.lag(2) - 1
index, everybody, within = across("index"), across(), across("index", by="sector")
SET = FeatureSet(
    "crossed",
    {
        "place": index.rank(gain),
        "smooth": within.demean(bars.close).mean(2),
        "twice": everybody.rank(index.zscore(gain).lag(1)),
        "mood": everybody.rank(events.window("3m").sentiment.mean()),
        "share": bars.close / everybody.mean(bars.close),
    },
    flags={"SMALL": within.count(bars.close) < 2},
)
NAMES = "ABCD"


def work_of(store: Store, feature_set: FeatureSet = SET) -> Work:
    store.register(feature_set, NOON)
    return Work(store, feature_set, "1m", later(0), "test")


def stored(store: Store, feature_set: FeatureSet = SET) -> list[dict[str, object]]:
    """The vectors in force, without who computed them and when."""
    told = ("computed_at", "pipeline_version")
    return [{k: v for k, v in row.items() if k not in told} for row in rows_in(store, work_of(store, feature_set).table)]


def whole(store: Store) -> list[dict[str, object]]:
    """The vectors that all bars at once give."""
    work = work_of(store)
    vectors = work.vectors(pa.concat_tables(store.read(BARS_TABLE, Selection("1m"))), Selection())
    return [{k: v for k, v in row.items() if k not in ("computed_at", "pipeline_version")} for row in vectors.to_pylist()]


def filled(store: Store, gaps: tuple[int, ...] = (4, 5, 6)) -> None:
    """Thirty bars of four instruments, one of which has gaps, and who is in the index and in which sector."""
    rows = [bar(n, 10.0 + (n * 7 + k * 13) % 11, name) for n in range(30) for k, name in enumerate(NAMES) if name != "B" or n not in gaps]
    store.upsert(BARS_TABLE, bars_of(*rows), NOON)
    members = [membership(0, instrument=name) for name in "ABC"] + [
        membership(12, None, "A"),
        membership(17, "in", "A"),
        membership(9, "in", "D"),
    ]
    sectors = [membership(0, "x" if name in "AB" else "y", name, "sector") for name in NAMES] + [membership(14, "y", "B", "sector")]
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(*members, *sectors), NOON)
    store.upsert(EVENTS_TABLE, events_of(*(event(f"e{n}", n, (n % 7) / 10, NAMES[n % 4]) for n in range(30))), NOON)


def test_a_backfill_in_any_pieces_of_time_gives_what_all_bars_at_once_give(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store)
    wanted = whole(store)
    assert {row["place"] for row in wanted} >= {None, 1 / 3, 1.0}
    for rows in (10_000, 30, 1):
        monkeypatch.setattr("asof.jobs.parts.part_rows", lambda memory, features, rows=rows: rows)
        with closing(open_store("duckdb://")) as other:
            for table in (BARS_TABLE, MEMBERSHIPS_TABLE, EVENTS_TABLE):
                other.upsert(table, pa.concat_tables(store.read(table, Selection())), NOON)
            backfill(work_of(other))
            assert stored(other) == wanted


def test_some_instruments_and_a_stretch_of_time_have_the_vectors_that_they_have_among_all(store: Store) -> None:
    filled(store)
    wanted = [row for row in whole(store) if row["instrument_id"] in "AD" and minute(7) <= row["ts"] <= minute(20)]  # type: ignore[operator]
    backfill(work_of(store), instruments=("A", "D"), start=minute(7), end=minute(20))
    assert stored(store) == wanted
    (found,) = verify(work_of(store), instruments=("A", "D"), start=minute(7), end=minute(20))
    assert found[0].right
    assert found[0].equal == 28


def test_bars_and_memberships_are_as_they_were_held_at_a_moment(store: Store) -> None:
    filled(store)
    features = FeatureStore(store, Settings())
    before = [row for row in whole(store) if row["instrument_id"] == "C"]
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(0, None, "B")), later(1))
    store.upsert(BARS_TABLE, bars_of(bar(20, 99.0, "D")), later(1))
    then = features.compute(SET, "1m", instruments=["C"], known_at=NOON).to_arrow()
    assert [then[name].to_pylist() for name in SET.features] == [[row[name] for row in before] for name in SET.features]
    now = features.compute(SET, "1m", instruments=["C"]).to_arrow()
    assert now["place"].to_pylist() != then["place"].to_pylist()


def test_a_vector_is_available_when_the_last_bar_of_its_sections_is(store: Store) -> None:
    late = bar(3, 5.0, "B", available_at=minute(20))
    store.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0 + n, name) for n in range(8) for name in "AC"), bar(1, 2.0, "B"), late), NOON)
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(*(membership(0, "in", name) for name in "AB")), NOON)
    only = FeatureSet("only", {"x": index.demean(bars.close).mean(2)})
    work = work_of(store, only)
    backfill(work)
    available = {(row["instrument_id"], row["ts"]): row["available_at"] for row in rows_in(store, work.table)}
    assert available["A", minute(3)] == available["A", minute(4)] == available["B", minute(3)] == minute(20)
    assert (available["A", minute(2)], available["A", minute(5)]) == (minute(3), minute(6))
    assert available["C", minute(3)] == minute(4)  # no member: nothing of the others is looked at


def test_a_late_bar_and_a_late_membership_reach_just_their_sections_and_what_looks_at_them(store: Store) -> None:
    only = FeatureSet("only", {"x": index.rank(bars.close - bars.close.lag(1)).mean(3)})
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float((n * k) % 5), name) for n in range(30) for k, name in enumerate(NAMES, 1))), NOON)
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(*(membership(0, "in", name) for name in "ABC"), membership(20, None, "C")), NOON)
    follower = Follower(work_of(store, only), "test")
    follower.begin()

    def computed(*tables: object) -> int:
        return sum(follower.catch_up(), Report()).computed

    store.upsert(BARS_TABLE, bars_of(bar(10, 99.0, "A")), later(1))
    assert computed() == 3 * 4  # the sections at 10 and 11, looked at up to 13, of three members
    store.upsert(BARS_TABLE, bars_of(bar(10, 98.0, "D")), later(2))
    assert computed() == 4  # no member: its own bars alone, as far as its lookback
    store.upsert(BARS_TABLE, bars_of(bar(25, 97.0, "C")), later(2))
    assert computed() == 4
    store.withdraw(BARS_TABLE, bars_of(bar(15, instrument="B")).select(BARS_TABLE.key), later(3))
    done = sum(follower.catch_up(), Report())
    assert (done.computed, done.withdrawn) == (2 * 4 + 3, 1)  # the sections at 15 and 16, of which B has the second
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(5, None, "B"), membership(8, "in", "B")), later(4))
    assert computed() == 25 + 24 + (15 + 2)  # of A and B all since, of C as long as it was a member, and two bars more
    assert computed() == 0


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["bar", "bar", "gone", "in", "out", "sector", "unsaid", "event", "late"]),
        st.integers(0, 14),
        st.sampled_from(NAMES),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=12,
)


def apply(store: Store, changes: list[tuple[str, int, str, int]], at: datetime) -> None:
    """Write changes one after the other, each known a microsecond after the one before."""
    for k, (kind, n, name, value) in enumerate(changes):
        known = at + k * timedelta.resolution
        match kind:
            case "bar":
                store.upsert(BARS_TABLE, bars_of(bar(n, float(value), name)), known)
            case "late":
                store.upsert(BARS_TABLE, bars_of(bar(n, float(value), name, available_at=minute(n + value))), known)
            case "gone":
                store.withdraw(BARS_TABLE, bars_of(bar(n, instrument=name)).select(BARS_TABLE.key), known)
            case "in" | "out":
                told = None if value < 5 else minute(n + value - 5)
                row = membership(n, "in" if kind == "in" else None, name, available_at=told)
                store.upsert(MEMBERSHIPS_TABLE, memberships_of(row), known)
            case "sector":
                store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(n, "xyz"[value % 3], name, "sector")), known)
            case "unsaid":
                scheme = "index" if value < 5 else "sector"
                store.withdraw(MEMBERSHIPS_TABLE, memberships_of(membership(n, None, name, scheme)).select(MEMBERSHIPS_TABLE.key), known)
            case _:
                store.upsert(EVENTS_TABLE, events_of(event(f"e{value}", n, value / 10, name)), known)


@given(first=CHANGES, more=st.lists(CHANGES, min_size=1, max_size=3))
def test_whatever_changes_catching_up_ends_where_a_backfill_does(
    new_store: Opener, first: list[tuple[str, int, str, int]], more: list[list[tuple[str, int, str, int]]]
) -> None:
    with new_store() as store:
        store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n % 4 + 1), name) for n in range(0, 15, 2) for name in "ABC")), NOON)
        apply(store, first, NOON)
        follower = Follower(work_of(store), "test")
        if not rows_in(store, BARS_TABLE):
            return
        follower.begin()
        for hour, changes in enumerate(more, 1):
            before = {(row["instrument_id"], row["ts"]): row for row in stored(store)}
            apply(store, changes, later(hour))
            done = sum(replace(follower, work=replace(follower.work, now=later(hour))).catch_up(), Report())
            assert not done.failed
            after = whole(store) if rows_in(store, BARS_TABLE) else []
            assert stored(store) == after
            differ = [row for row in after if before.get((row["instrument_id"], row["ts"])) != row]
            assert done.changes.inserted + done.changes.corrected == len(differ) <= done.computed


@given(first=CHANGES, more=CHANGES, seed=st.integers(0, 9))
def test_a_replay_ends_where_a_backfill_does(new_store: Opener, first: list[tuple[str, int, str, int]], more: list, seed: int) -> None:
    with new_store() as store:
        store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n % 4 + 1), name) for n in range(0, 15, 3) for name in "AB")), NOON)
        apply(store, first, NOON)
        apply(store, more, later(1))
        if not rows_in(store, BARS_TABLE):
            return
        with closing(open_store("duckdb://")) as scratch:
            Replay(replace(work_of(store), now=later(1)), scratch, seed=seed).run()
            assert stored(scratch) == whole(store)
