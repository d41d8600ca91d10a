"""What every store does with rows: new, unchanged, corrected, repeated and contradictory ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.errors import StoreError
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Selection, Store, Table
from tests.stores.conftest import Opener
from tests.stores.rows import (
    KINDS,
    MINI,
    NOON,
    VECTORS_TABLE,
    bar,
    bars_of,
    closes,
    event,
    events_of,
    later,
    minute,
    rows_in,
    streamed,
    vector,
    vectors_of,
)

Kind = tuple[Table, Callable[..., pa.Table], Callable[..., dict[str, object]], str]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, store: Store) -> Kind:
    """Each kind of record, in a store that has a table for it."""
    store.register(MINI, NOON)
    return KINDS[request.param]


@pytest.fixture(params=["table", "stream"])
def given_as(request: pytest.FixtureRequest) -> Callable[[pa.Table], object]:
    """The two ways in which rows reach a store."""
    return (lambda rows: rows) if request.param == "table" else streamed


def test_new_rows_are_inserted_and_read_back_by_key(store: Store, kind: Kind, given_as: Callable[[pa.Table], object]) -> None:
    table, tabled, row, _ = kind
    assert store.upsert(table, given_as(tabled(row(2, 0.2), row(0, 0.3), row(1, 0.1))), NOON) == Changes(inserted=3)
    assert rows_in(store, table) == tabled(row(0, 0.3), row(1, 0.1), row(2, 0.2)).to_pylist()


def test_the_same_rows_again_change_nothing(store: Store, kind: Kind, given_as: Callable[[pa.Table], object]) -> None:
    table, tabled, row, _ = kind
    rows = tabled(row(0, 0.3), row(1, 0.1))
    store.upsert(table, given_as(rows), NOON)
    assert store.upsert(table, given_as(rows), later(1)) == Changes(unchanged=2)
    assert rows_in(store, table, Selection(known_at=NOON)) == rows_in(store, table)


def test_only_the_rows_that_changed_are_written(store: Store, kind: Kind, given_as: Callable[[pa.Table], object]) -> None:
    table, tabled, row, column = kind
    store.upsert(table, given_as(tabled(row(0, 0.3), row(1, 0.1), row(2, 0.2))), NOON)
    changes = store.upsert(table, given_as(tabled(row(0, 0.3), row(1, 0.5), row(2, 0.2), row(3, 0.4))), later(1))
    assert changes == Changes(inserted=1, corrected=1, unchanged=2)
    assert [float(r[column]) for r in rows_in(store, table)] == [0.3, 0.5, 0.2, 0.4]
    known = {n: len(rows_in(store, table, Selection(known_at=at))) for n, at in enumerate((later(-1), NOON, later(1)))}
    assert known == {0: 0, 1: 3, 2: 4}
    assert [float(r[column]) for r in rows_in(store, table, Selection(known_at=NOON))] == [0.3, 0.1, 0.2]


def test_nothing_to_write_is_no_change(store: Store, kind: Kind, given_as: Callable[[pa.Table], object]) -> None:
    table, tabled, _, _ = kind
    assert store.upsert(table, given_as(tabled()), NOON) == Changes()


@pytest.mark.parametrize("value", [None, 0.0])
def test_a_value_that_goes_missing_or_comes_back_is_a_correction(store: Store, value: float | None) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, value)), NOON)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(1)) == Changes(corrected=1)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, value)), later(2)) == Changes(corrected=1)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, value)), later(3)) == Changes(unchanged=1)


def test_another_source_is_no_correction(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, source="one")), NOON)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, source="two")), later(1)) == Changes(unchanged=1)


def test_who_computed_a_vector_and_when_makes_no_other_vector(store: Store) -> None:
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0)), NOON)
    again = vectors_of(vector(0, computed_at=later(5), pipeline_version="another"))
    assert store.upsert(VECTORS_TABLE, again, later(5)) == Changes(unchanged=1)
    assert store.upsert(VECTORS_TABLE, vectors_of(vector(0, quality_flags=["NO_EVENTS"])), later(6)) == Changes(corrected=1)


def test_two_corrections_known_at_the_same_moment_are_two_revisions_and_the_last_stands(store: Store) -> None:
    for close in (1.0, 2.0, 3.0):
        store.upsert(BARS_TABLE, bars_of(bar(0, close)), NOON)
    assert closes(store) == {minute(0): 3.0}
    assert closes(store, NOON) == {minute(0): 1.0}
    assert closes(store, later(1)) == {minute(0): 3.0}


def test_timeframes_and_instruments_do_not_mix(store: Store) -> None:
    rows = [bar(0, 1.0), bar(0, 2.0, "B"), bar(0, 3.0) | {"timeframe": "5m"}]
    assert store.upsert(BARS_TABLE, bars_of(*rows), NOON) == Changes(inserted=3)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, 9.0)), later(1)) == Changes(corrected=1)
    assert sorted(r["close"] for r in rows_in(store, BARS_TABLE)) == [2.0, 3.0, 9.0]
    assert [r["close"] for r in rows_in(store, BARS_TABLE, Selection("1m"))] == [9.0, 2.0]
    assert [r["close"] for r in rows_in(store, BARS_TABLE, Selection("1m", ("B", "C")))] == [2.0]
    assert rows_in(store, BARS_TABLE, Selection("1m", ())) == []


def test_a_read_includes_both_ends_and_yields_the_columns_asked_for(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, n + 1.0) for n in range(5))), NOON)
    (found,) = store.read(BARS_TABLE, Selection("1m", start=minute(1), end=minute(3)), ("close", "ts"))
    assert found.to_pydict() == {"close": [2.0, 3.0, 4.0], "ts": [minute(1), minute(2), minute(3)]}


Writes = list[dict[int, float | None]]


@given(
    writes=st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from([None, 1.0, 2.0, 3.0]), min_size=1), min_size=1, max_size=6),
    stream=st.booleans(),
)
def test_every_past_state_can_be_read_again(new_store: Opener, writes: Writes, stream: bool) -> None:
    """Against a plain dictionary, which is copied after each write."""
    states: dict[datetime, dict[datetime, float | None]] = {later(-1): {}}
    now: dict[datetime, float | None] = {}
    with new_store() as store:
        for n, write in enumerate(writes):
            rows = bars_of(*(bar(k, close) for k, close in write.items()))
            changes = store.upsert(BARS_TABLE, streamed(rows) if stream else rows, later(n))
            new = sum(minute(k) not in now for k in write)
            changed = sum(minute(k) in now and now[minute(k)] != close for k, close in write.items())
            assert changes == Changes(new, changed, len(write) - new - changed)
            now |= {minute(k): close for k, close in write.items()}
            states[later(n)] = dict(now)
        for at, state in states.items():
            assert closes(store, at) == state
            assert closes(store, at + timedelta(minutes=59)) == state
        assert closes(store) == now


def test_repeats_that_agree_go_in_once_and_count_as_unchanged(store: Store) -> None:
    first, second = bars_of(bar(0), bar(1), bar(0)), bars_of(bar(1), bar(2))
    assert store.upsert(BARS_TABLE, streamed(first, second), NOON) == Changes(inserted=3, unchanged=2)
    assert store.upsert(BARS_TABLE, streamed(first, second), later(1)) == Changes(unchanged=5)
    assert list(closes(store)) == [minute(0), minute(1), minute(2)]


def test_repeats_that_disagree_are_all_refused_and_the_rest_goes_in(store: Store) -> None:
    rows = bars_of(bar(0, 1.0), bar(1, 1.0), bar(0, 2.0), bar(0, 1.0), bar(2, None), bar(2, 0.5))
    changes = store.upsert(BARS_TABLE, streamed(rows), NOON)
    assert changes == Changes(inserted=1)
    assert changes.refused is not None
    assert changes.refused["row"].to_pylist() == [1, 3, 4, 5, 6]
    assert closes(store) == {minute(1): 1.0}


def test_repeats_that_disagree_leave_what_is_stored_alone(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), NOON)
    changes = store.upsert(BARS_TABLE, streamed(bars_of(bar(0, 2.0), bar(0, 3.0))), later(1))
    assert changes == Changes()
    assert closes(store) == {minute(0): 1.0}


def test_a_stream_that_breaks_leaves_nothing_behind(store: Store) -> None:
    def breaking() -> object:
        yield from streamed(bars_of(bar(0)))
        raise OSError("the wire was cut")

    with pytest.raises(OSError, match="the wire was cut"):
        store.upsert(BARS_TABLE, breaking(), NOON)
    assert closes(store) == {}
    assert store.upsert(BARS_TABLE, streamed(bars_of(bar(0))), NOON) == Changes(inserted=1)


def test_a_transaction_keeps_all_its_writes_or_none(store: Store) -> None:
    def failing() -> None:
        with store.transaction():
            store.upsert(BARS_TABLE, streamed(bars_of(bar(0))), NOON)
            store.upsert(EVENTS_TABLE, events_of(event("e", 0)), NOON)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert (closes(store), rows_in(store, EVENTS_TABLE)) == ({}, [])
    with store.transaction():
        store.upsert(BARS_TABLE, streamed(bars_of(bar(0))), NOON)
        store.upsert(BARS_TABLE, streamed(bars_of(bar(1))), NOON)
        store.upsert(EVENTS_TABLE, events_of(event("e", 0)), NOON)
    assert (len(closes(store)), len(rows_in(store, EVENTS_TABLE))) == (2, 1)


def test_an_event_enriched_again_in_one_stream_keeps_its_first_place_and_has_its_newest_scores(store: Store) -> None:
    rows = events_of(event("e", 5, 0.2), event("e", 3, 0.1), event("e", 9, 0.9), event("f", 4, 0.4))
    changes = store.upsert(EVENTS_TABLE, streamed(rows), NOON)
    assert changes == Changes(inserted=2, unchanged=2)
    found = {r["event_id"]: (r["enriched_at_utc"], r["score"], r["scored_at_utc"]) for r in rows_in(store, EVENTS_TABLE)}
    assert found == {"e": (minute(3), 0.9, minute(9)), "f": (minute(4), 0.4, minute(4))}


def test_one_enrichment_with_two_scores_is_refused_and_another_of_the_same_event_stands(store: Store) -> None:
    rows = events_of(event("e", 5, 0.2), event("e", 5, 0.3), event("e", 9, 0.9))
    changes = store.upsert(EVENTS_TABLE, streamed(rows), NOON)
    assert changes.refused is not None
    assert changes.refused["row"].to_pylist() == [1, 2]
    assert [r["score"] for r in rows_in(store, EVENTS_TABLE)] == [0.9]


def test_an_event_that_disagrees_for_one_instrument_is_refused_for_all_and_told_once(store: Store) -> None:
    rows = events_of(event("e", 5, 0.2, "A"), event("e", 5, 0.2, "B"), event("e", 5, 0.3, "A"), event("f", 6, 0.1, "B"))
    numbered = rows.append_column("row", pa.array([1, 1, 2, 3], pa.int64()))
    changes = store.upsert(EVENTS_TABLE, [numbered], NOON)
    assert changes.refused is not None
    assert changes.refused["row"].to_pylist() == [1, 2]
    assert [r["event_id"] for r in rows_in(store, EVENTS_TABLE)] == ["f"]


Enrichments = list[list[tuple[int, int]]]


@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=5), min_size=1, max_size=4),
    stream=st.booleans(),
)
def test_in_whatever_order_enrichments_arrive_the_first_place_and_the_newest_scores_stand(
    new_store: Opener, batches: Enrichments, stream: bool
) -> None:
    """An enrichment is (event, minute); its score follows from both, so that one delivered twice agrees with itself."""
    seen: dict[int, set[int]] = {}
    with new_store() as store:
        for n, batch in enumerate(batches):
            rows = [event(f"e{name}", at, (name + at) / 10) for name, at in batch]
            if stream:
                store.upsert(EVENTS_TABLE, streamed(events_of(*rows)), later(n))
            else:
                for row in rows:
                    store.upsert(EVENTS_TABLE, events_of(row), later(n))
            for name, at in batch:
                seen.setdefault(name, set()).add(at)
        found = {r["event_id"]: (r["enriched_at_utc"], r["score"], r["scored_at_utc"]) for r in rows_in(store, EVENTS_TABLE)}
    assert found == {f"e{name}": (minute(min(ats)), (name + max(ats)) / 10, minute(max(ats))) for name, ats in seen.items()}


def test_vectors_of_a_set_that_is_not_registered_are_refused_with_the_mend(store: Store) -> None:
    with pytest.raises(StoreError, match=r"mini.*asof apply"):
        store.upsert(VECTORS_TABLE, vectors_of(vector(0)), NOON)
    with pytest.raises(StoreError, match=r"mini.*asof apply"):
        rows_in(store, VECTORS_TABLE)
    with pytest.raises(StoreError, match=r"mini.*asof apply"):
        store.latest(VECTORS_TABLE, Selection("1m"))


def test_withdrawn_rows_are_gone_and_their_revisions_are_not(store: Store) -> None:
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0), vector(1), vector(1, instrument="B")), NOON)
    keys = vectors_of(vector(1), vector(7)).select(VECTORS_TABLE.key)
    assert store.withdraw(VECTORS_TABLE, keys, later(1)) == 1
    assert store.withdraw(VECTORS_TABLE, keys, later(2)) == 0
    left = [(row["instrument_id"], row["ts"]) for row in rows_in(store, VECTORS_TABLE)]
    assert left == [("A", minute(0)), ("B", minute(1))]
    known = [len(rows_in(store, VECTORS_TABLE, Selection(known_at=at))) for at in (NOON, later(1) - timedelta(seconds=1), later(1))]
    assert known == [3, 3, 2]
    assert store.upsert(VECTORS_TABLE, vectors_of(vector(1)), later(3)) == Changes(inserted=1)


def test_what_the_store_keeps_ready_can_be_refreshed_at_any_time(store: Store) -> None:
    store.refresh()
    store.refresh()
