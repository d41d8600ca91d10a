"""What every store answers: as of a time, the newest, which bars there are, the registry and the logs."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof import FeatureSet, FeatureStore, bars
from asof.config import Settings
from asof.errors import NotFound
from asof.records import QUALITY_LOG, QUARANTINE, UTC
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, SPANS, Selection, Store
from tests.stores.conftest import Opener
from tests.stores.rows import MINI, NOON, VECTORS_TABLE, bar, bars_of, event, events_of, later, minute, vector, vectors_of

Bars = dict[int, int]
"""Opening minutes, and how many minutes after its open each bar became available."""


def entities(*rows: tuple[str, float]) -> pa.Table:
    """Entity rows as a join hands them to a store."""
    names, times = [name for name, _ in rows], [minute(at) for _, at in rows]
    return pa.table({"instrument_id": names, "event_timestamp": pa.array(times, UTC), "row": pa.array(range(len(rows)), pa.int64())})


def found_ts(store: Store, *rows: tuple[str, float]) -> list[datetime | None]:
    """The open of the bar whose vector each entity row gets."""
    return store.as_of(VECTORS_TABLE, entities(*rows), "1m", ("ts", "ret_1"))["ts"].to_pylist()


@pytest.fixture
def filled(store: Store) -> Store:
    """Vectors of minutes 0, 1 and 5 of A, and minute 2 of B; another timeframe of A that no test should see."""
    store.register(MINI, NOON)
    other = vector(8) | {"timeframe": "5m"}
    store.upsert(VECTORS_TABLE, vectors_of(vector(0), vector(1), vector(5), vector(2, instrument="B"), other), NOON)
    return store


def test_a_row_gets_the_newest_vector_that_was_available_at_its_time_and_never_a_later_one(filled: Store) -> None:
    times = [0, 0.99, 1, 1.5, 2, 5.99, 6, 1000]
    expected = [None, None, 0, 0, 1, 1, 5, 5]
    assert found_ts(filled, *(("A", t) for t in times)) == [None if n is None else minute(n) for n in expected]


def test_rows_keep_their_order_and_repeat_as_they_were(filled: Store) -> None:
    rows = [("B", 9.0), ("A", 3.0), ("nobody", 9.0), ("A", 9.0), ("A", 3.0), ("B", 1.0)]
    assert found_ts(filled, *rows) == [minute(2), minute(1), None, minute(5), minute(1), None]


def test_a_join_of_no_rows_has_the_columns_all_the_same(filled: Store) -> None:
    found = filled.as_of(VECTORS_TABLE, entities(), "1m", ("ret_1", "ts", "quality_flags"))
    assert (found.num_rows, found.column_names) == (0, ["ret_1", "ts", "quality_flags"])
    assert found.schema == pa.schema([VECTORS_TABLE.schema.field(name) for name in found.column_names])


def test_a_history_of_some_features_has_these_alone_in_the_order_asked_for_and_every_row_by_key(filled: Store) -> None:
    filled.upsert(VECTORS_TABLE, vectors_of(vector(3), vector(0, instrument="AB")), later(1))  # behind others, as they were written
    reader = FeatureStore(filled, Settings())
    whole = reader.history("mini", "1m").to_arrow()
    assert [(row["instrument_id"], row["ts"]) for row in whole.to_pylist()] == [
        *(("A", minute(n)) for n in (0, 1, 3, 5)),
        ("AB", minute(0)),
        ("B", minute(2)),
    ]
    some = reader.history(["mini:high", "mini:ret_1"], "1m").to_arrow()
    assert some.column_names == [*whole.column_names[:4], "high", "ret_1", *whole.column_names[6:]]
    assert some.select(whole.column_names) == whole
    assert reader.history(["mini:high"], "1m", instruments=["B"]).to_arrow() == whole.slice(5).drop(["ret_1"])
    with pytest.raises(NotFound, match="mini has no feature 'hihg'; did you mean 'high'"):
        reader.history(["mini:hihg"], "1m")


def newest(made: Bars, at: float) -> int | None:
    """The oracle: of all bars available by then, the one that opens last."""
    return max((n for n, delay in made.items() if n + delay <= at), default=None)


DELAYS = st.dictionaries(st.integers(0, 9), st.integers(0, 12), max_size=10)
"""Bars that are published late and out of order, several at the same moment."""


@given(made=DELAYS, other=DELAYS, times=st.lists(st.integers(-2, 24), min_size=1, max_size=12))
def test_bars_published_late_and_out_of_order_are_joined_as_a_plain_search_would(
    new_store: Opener, made: Bars, other: Bars, times: list[int]
) -> None:
    rows = [vector(n, available_at=minute(n + d)) for n, d in made.items()]
    rows += [vector(n, instrument="B", available_at=minute(n + d)) for n, d in other.items()]
    with new_store() as store:
        store.register(MINI, NOON)
        store.upsert(VECTORS_TABLE, vectors_of(*rows), NOON)
        asked = [(name, t) for t in times for name in "AB"]
        expected = [newest(made if name == "A" else other, t) for name, t in asked]
        assert found_ts(store, *asked) == [None if n is None else minute(n) for n in expected]
        for t in times:
            seen = store.latest(VECTORS_TABLE, Selection("1m", end=minute(t)))
            there = {"A": newest(made, t), "B": newest(other, t)}
            assert dict(zip(seen["instrument_id"].to_pylist(), seen["ts"].to_pylist(), strict=True)) == {
                name: minute(n) for name, n in there.items() if n is not None
            }


def test_the_latest_vectors_are_one_for_each_selected_instrument(filled: Store) -> None:
    everything = filled.latest(VECTORS_TABLE, Selection("1m"))
    assert list(zip(everything["instrument_id"].to_pylist(), everything["ts"].to_pylist(), strict=True)) == [
        ("A", minute(5)),
        ("B", minute(2)),
    ]
    assert everything.schema == VECTORS_TABLE.schema
    assert filled.latest(VECTORS_TABLE, Selection("1m", ("B",)))["ts"].to_pylist() == [minute(2)]
    assert filled.latest(VECTORS_TABLE, Selection("1m", ("nobody",))).num_rows == 0


def test_spans_tell_how_many_bars_there_are_and_from_when_to_when(store: Store) -> None:
    assert store.spans().num_rows == 0
    store.upsert(BARS_TABLE, bars_of(bar(3), bar(1), bar(7, instrument="B"), bar(2) | {"timeframe": "1d"}), NOON)
    assert store.spans("1m").to_pylist() == [
        {"instrument_id": "A", "timeframe": "1m", "bars": 2, "first": minute(1), "last": minute(3)},
        {"instrument_id": "B", "timeframe": "1m", "bars": 1, "first": minute(7), "last": minute(7)},
    ]
    assert store.spans("1h").num_rows == 0
    assert store.spans()["timeframe"].to_pylist() == ["1d", "1m", "1m"]


@given(opens=st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True), every=st.integers(1, 9), lookback=st.integers(1, 9))
def test_cuts_are_every_nth_bar_with_the_first_of_its_lookback(new_store: Opener, opens: list[int], every: int, lookback: int) -> None:
    with new_store() as store:
        store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in opens), *(bar(n, instrument="B") for n in range(5))), NOON)
        ordered = sorted(opens)
        expected = [(minute(ordered[i]), minute(ordered[max(0, i - lookback + 1)])) for i in range(0, len(ordered), every)]
        assert store.cuts("1m", "A", every, lookback) == expected
        assert store.cuts("1m", "nobody", every, lookback) == []


def test_the_registry_keeps_a_definition_as_it_was_first_given(store: Store) -> None:
    assert store.registered() == {}
    store.register(MINI, NOON)
    store.register(FeatureSet("mini", {"other": bars.open + 1}), later(1))
    store.register(FeatureSet("another", {"other": bars.open + 1}), later(2))
    registry = store.registered()
    assert list(registry) == ["mini", "another"]
    assert (registry["mini"].fingerprint, registry["mini"].applied_at) == (MINI.fingerprint, NOON)
    assert FeatureSet.parse(registry["mini"].text) == MINI


LOGS = {
    "quarantine": pa.Table.from_pylist(
        [{"kind": "bars", "reason": "why", "detail": None, "source": "a.csv", "row": n, "record": "{}"} for n in range(3)], QUARANTINE
    ),
    "feature_quality_log": pa.Table.from_pylist(
        [{"instrument_id": f"I{n}", "timeframe": "1d", "feature_set_version": "v", "issue_type": "NO_BARS"} for n in range(3)], QUALITY_LOG
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_a_log_takes_each_entry_once_whenever_it_was_detected(store: Store, log: str) -> None:
    def detected(rows: pa.Table, at: datetime) -> pa.Table:
        return rows.set_column(rows.schema.get_field_index("detected_at"), "detected_at", pa.array([at] * len(rows), UTC))

    rows = LOGS[log]
    assert store.append(log, detected(rows.slice(0, 2), NOON)) == 2
    assert store.append(log, detected(rows, later(1))) == 1
    assert store.append(log, detected(rows, later(2))) == 0
    counts = store.facts()["rows"]
    assert isinstance(counts, dict)
    assert counts[log] == 3


def test_the_facts_count_the_rows_of_every_table(filled: Store) -> None:
    filled.upsert(EVENTS_TABLE, events_of(event("e", 0)), NOON)
    others = dict.fromkeys(("bars", "actions", "memberships", "trades", "quotes", "books", "quarantine", "feature_quality_log"), 0)
    assert filled.facts()["rows"] == {"events": 1, "mini": 5, **others}


SPANNED = [("A", 4, 6), ("B", 1, 1), ("C", 0, 9)]
"""Spans in minutes: in the middle, at the beginning, of an instrument without bars."""


def spans_of(*spans: tuple[str, float, float]) -> pa.Table:
    return pa.Table.from_pylist([{"instrument_id": i, "first": minute(a), "last": minute(b)} for i, a, b in spans], schema=SPANS)


@pytest.mark.parametrize("few", [True, False])
def test_around_spans_are_the_bars_in_them_and_so_many_before_and_after(store: Store, few: bool) -> None:
    others = [bar(n, instrument=f"X{k:02d}") for n in range(6) for k in range(0 if few else 30)]
    series = [bar(n, float(n), instrument) for instrument in "AB" for n in (0, 1, 2, 5, 6, 8, 9, 30)]
    store.upsert(BARS_TABLE, bars_of(*series, *others, bar(3) | {"timeframe": "5m"}), NOON)
    more = [(f"X{k:02d}", 2, 3) for k in range(0 if few else 30)]
    found = store.around("1m", spans_of(*SPANNED, *more), 2, ("instrument_id", "ts", "close"))
    rows = sorted((row["instrument_id"], row["ts"]) for row in found.to_pylist())
    expected = [("A", n) for n in (1, 2, 5, 6, 8, 9)] + [("B", n) for n in (0, 1, 2, 5)]
    assert rows == [(i, minute(n)) for i, n in [*expected, *((f"X{k:02d}", n) for k in range(0 if few else 30) for n in range(6))]]


def test_around_no_spans_is_nothing(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    assert store.around("1m", spans_of(), 2, ("ts", "close")).to_pydict() == {"ts": [], "close": []}
    assert store.around("5m", spans_of(("A", 0, 9)), 2, ("ts", "close")).to_pydict() == {"ts": [], "close": []}
