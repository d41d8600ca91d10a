"""A walk over time: at each step exactly what a join as of that moment gives, and nothing that was not known."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asof.backtests import Step, aligned, changes, iter_asof
from asof.config import Settings
from asof.errors import AsofError, DataError, DefinitionError, NotFound
from asof.feature_store import FeatureStore
from asof.jobs import walk
from asof.stores.store import BARS_TABLE, Selection, Store
from tests.stores.conftest import Opener
from tests.stores.rows import MINI, VECTORS_TABLE, bar, bars_of, minute, vector, vectors_of

NAMES = ("A", "B")

writes = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "withdraw"]),
        st.sampled_from(NAMES),
        st.integers(0, 9),  # the bar
        st.sampled_from([0.1, 0.2, None]),
        st.sampled_from([1, 1, 1, 4, 15]),  # how many minutes after its open it is available
        st.integers(0, 3),  # how many minutes pass before it is written
    ),
    min_size=1,
    max_size=14,
)


def filled(store: Store, todo: list[tuple[str, str, int, float | None, int, int]]) -> FeatureStore:
    """A store with a history of writes that are known minute by minute, while the bars that they are of open and close."""
    store.register(MINI, minute(-9))
    store.upsert(BARS_TABLE, bars_of(*(bar(n, instrument=name) for name in NAMES for n in range(10))), minute(-9))
    known = 0
    for what, name, n, value, late, passed in todo:
        known += passed
        rows = vectors_of(vector(n, value, name, available_at=minute(n + late)))
        if what == "write":
            store.upsert(VECTORS_TABLE, rows, minute(known + 0.25))
        else:
            store.withdraw(VECTORS_TABLE, rows.select(VECTORS_TABLE.key), minute(known + 0.25))
    return FeatureStore(store, Settings())


def joined(store: FeatureStore, ticks: list[datetime], known_at: datetime | None) -> dict[datetime, pa.Table]:
    """What a join gives for every instrument at some moments."""
    at = pa.array([tick for tick in ticks for _ in NAMES], pa.timestamp("us", tz="UTC"))
    entities = pa.table({"instrument_id": list(NAMES) * len(ticks), "event_timestamp": at})
    found = store.get_historical_features(entities, "mini", "1m", known_at=known_at).to_arrow()
    return {tick: found.slice(place * len(NAMES), len(NAMES)) for place, tick in enumerate(ticks)}


def joined_then(store: FeatureStore, ticks: list[datetime]) -> dict[datetime, pa.Table]:
    """What joins give that ask for what was known at their own moments. Nothing is learned from half a minute to the next whole one."""
    learned: dict[datetime, list[datetime]] = {}
    for tick in ticks:
        learned.setdefault(tick + timedelta(seconds=tick.second), []).append(tick)
    return {tick: table for known_at, some in learned.items() for tick, table in joined(store, some, known_at).items()}


def walked(store: FeatureStore, **asked: object) -> list[Step]:
    """The steps of a walk; none where nothing was known at all."""
    with suppress(NotFound):
        return list(iter_asof(store, "mini", "1m", **asked))  # type: ignore[arg-type]
    return []


TICKS = [minute(n / 2) for n in range(-2, 44)]


GIVES_WAY = [("write", "B", 0, 0.3, 1, 0), ("write", "B", 1, 0.1, 1, 4), ("write", "B", 1, 0.2, 15, 6)]
"""What is the newest gives way to what lies before all that was read."""
COMES_LATER = [("write", "B", 1, 0.1, 1, 8), ("write", "B", 1, 0.1, 15, 1), ("write", "B", 0, 0.2, 1, 4)]
"""There is nothing for what was the newest to give way to, and then there is."""


@pytest.mark.parametrize("new_store", ["duckdb in memory", "postgresql"], indirect=True)
@example(todo=GIVES_WAY, first=9, known_at="clock", slice_rows=2)
@example(todo=COMES_LATER, first=9, known_at="clock", slice_rows=9)
@given(
    todo=writes,
    first=st.integers(-2, 12),
    known_at=st.sampled_from(["clock", "clock", None, minute(7)]),
    slice_rows=st.sampled_from([2, 9]),
)
def test_each_step_is_a_join_at_its_moment(
    new_store: Opener,
    todo: list[tuple[str, str, int, float | None, int, int]],
    first: int,
    known_at: str | datetime | None,
    slice_rows: int,
) -> None:
    with new_store() as made, pytest.MonkeyPatch.context() as patched:
        patched.setattr(walk, "SLICE_ROWS", slice_rows)
        patched.setattr(walk, "BLOCK_CELLS", 3 * slice_rows)
        store = filled(made, todo)
        ticks = [tick for tick in TICKS if tick >= minute(first)]
        then = joined_then(store, ticks) if known_at == "clock" else joined(store, ticks, known_at)  # type: ignore[arg-type]
        something = any(table["ts"].null_count < len(NAMES) for table in then.values())
        given = walked(store, at=ticks, known_at=known_at)
        assert {step.at: step.to_arrow() for step in given} == (then if something else {})
        grid = walked(store, start=ticks[0], end=ticks[-1], every="30s", known_at=known_at)
        assert [(step.at, step.to_arrow(), step.fresh) for step in grid] == [(step.at, step.to_arrow(), step.fresh) for step in given]
        assert_only_changes(walked(store, start=ticks[0], end=ticks[-1], known_at=known_at), then)


def vectors_in(table: pa.Table) -> pa.Table:
    return table.drop_columns(["event_timestamp"])


def assert_only_changes(steps: list[Step], then: dict[datetime, pa.Table]) -> None:
    """Between two steps nothing changes, and each has something new."""
    assert all(step.fresh for step in steps)
    for tick, table in then.items():
        before = [step for step in steps if step.at <= tick]
        assert vectors_in(before[-1].to_arrow() if before else table) == vectors_in(table)
        assert before or table["ts"].null_count == len(NAMES)


@pytest.fixture
def corrected(store: Store) -> FeatureStore:
    """Vectors of three bars, each known when it was available; the one of bar 1 corrected in minute 5, of bar 2 withdrawn in minute 8."""
    store.register(MINI, minute(0))
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(3)), bar(0, 5.0, "B")), minute(0))
    for n in range(3):
        store.upsert(VECTORS_TABLE, vectors_of(vector(n, n / 10)), minute(n + 1))
    store.upsert(VECTORS_TABLE, vectors_of(vector(1, 7.0)), minute(5))
    store.withdraw(VECTORS_TABLE, vectors_of(vector(2)).select(VECTORS_TABLE.key), minute(8))
    return FeatureStore(store, Settings())


def told(steps: Iterable[Step]) -> list[tuple[datetime, dict[str, float | None]]]:
    """The steps in short."""
    return [(step.at, {name: vector["ret_1"] for name, vector in step.items()}) for step in steps]


def test_a_value_is_seen_uncorrected_until_its_correction_was_known(corrected: FeatureStore) -> None:
    steps = iter_asof(corrected, "mini", "1m", minute(0), minute(20))
    assert told(steps) == [(minute(1), {"A": 0.0}), (minute(2), {"A": 0.1}), (minute(3), {"A": 0.2}), (minute(8), {"A": 7.0})]
    newest = iter_asof(corrected, "mini", "1m", minute(0), minute(20), known_at=None)
    assert told(newest) == [(minute(1), {"A": 0.0}), (minute(2), {"A": 7.0})]
    then = iter_asof(corrected, "mini", "1m", minute(0), minute(20), known_at=minute(2))
    assert told(then) == [(minute(1), {"A": 0.0}), (minute(2), {"A": 0.1})]


def test_a_step_is_a_mapping_that_says_what_is_known_and_what_is_new(corrected: FeatureStore) -> None:
    first, second, *_ = iter_asof(corrected, ["mini:ret_1"], "1m", minute(1), minute(20), instruments=["B", "A"])
    assert (first.at, list(first), len(first), first.instruments, first.fresh) == (minute(1), ["A"], 1, ("B", "A"), ("A",))
    assert (first.get("B"), "B" in first, dict(second["A"]), len(second["A"])) == (None, False, {"ret_1": 0.1}, 1)
    assert (second["A"].ts, second["A"].available_at, second["A"].quality_flags) == (minute(1), minute(2), ())
    assert second.to_arrow().column_names == ["instrument_id", "event_timestamp", "ret_1", "ts", "available_at", "quality_flags"]
    assert "ret_1" in second["A"]
    assert "high" not in second["A"]
    with pytest.raises(KeyError):
        first["B"]
    with pytest.raises(NotFound, match="not about 'AA'; did you mean 'A'"):
        first.get("AA")
    with pytest.raises(NotFound, match="no feature 'ret_2'; did you mean 'ret_1'"):
        first["A"]["ret_2"]


def test_changes_are_the_steps_as_tables(corrected: FeatureStore) -> None:
    rows = pa.concat_tables(changes(corrected, "mini:ret_1", "1m", minute(0), minute(20))).to_pylist()
    assert [(row["as_of"], row["instrument_id"], row["ret_1"], row["ts"]) for row in rows] == [
        (minute(1), "A", 0.0, minute(0)),
        (minute(2), "A", 0.1, minute(1)),
        (minute(3), "A", 0.2, minute(2)),
        (minute(8), "A", 7.0, minute(1)),
    ]


def test_bars_have_the_features_that_were_known_when_they_opened_or_when_the_next_did(corrected: FeatureStore) -> None:
    found = aligned(corrected, "mini:ret_1", "1m").to_arrow()
    assert found.column_names[:8] == ["instrument_id", "ts", "open", "high", "low", "close", "volume", "as_of"]
    assert found["ret_1"].to_pylist() == [None, 0.0, 0.1, None]
    assert found["vector_ts"].to_pylist() == [None, minute(0), minute(1), None]
    assert found["as_of"].to_pylist() == [*map(minute, (0, 1, 2)), minute(0)]
    following = aligned(corrected, "mini:ret_1", "1m", fill="next_open", instruments=["A"]).to_arrow()
    assert following["as_of"].to_pylist() == [minute(1), minute(2), minute(3)]
    assert following["ret_1"].to_pylist() == [0.0, 0.1, 0.2]
    newest = aligned(corrected, "mini:ret_1", "1m", instruments=["A"], fill="next_open", known_at=None, max_age=timedelta(0)).to_arrow()
    assert newest["ret_1"].to_pylist() == [0.0, 7.0, None]


REFUSED: list[tuple[dict[str, object], type[AsofError], str]] = [
    ({"start": "2024-01-02"}, DataError, "needs start and end"),
    ({"start": "2024-01-02", "end": "2024-01-01"}, DataError, "is after end"),
    ({"start": "2024-01-01T10:00:00", "end": "2024-01-02"}, DataError, "has no zone: write 2024-01-01T10:00:00Z"),
    ({"start": 5, "end": "2024-01-02"}, DataError, "start 5 is not a time"),
    ({"at": []}, DataError, "at= names no moment"),
    ({"at": [minute(1), minute(1)]}, DataError, r"at\[1\] 2024-01-01T00:01:00.* is not after"),
    ({"at": [minute(1).replace(tzinfo=None)]}, DataError, r"at\[0\] .* has no zone"),
    ({"at": [minute(1)], "every": "1m"}, DataError, "leave out start, end and every"),
    ({"every": "5x"}, DefinitionError, "duration '5x'"),
    ({"every": timedelta(0)}, DefinitionError, "goes forward"),
    ({"instruments": ["AA"]}, NotFound, "no 1m bars of 'AA'; did you mean 'A'"),
    ({"instruments": ["B"]}, NotFound, "none was available by then; run asof backfill mini -t 1m"),
    ({"start": minute(-9), "end": minute(-8)}, NotFound, "none was available by then"),
    ({"known_at": minute(0)}, NotFound, "none was available by then"),
    ({"features": "mini:ret_2"}, NotFound, "no feature 'ret_2'"),
    ({"timeframe": "1x"}, DefinitionError, "timeframe '1x'"),
    ({"store": "asof.duckdb"}, DataError, "is not an opened store"),
]


def test_what_cannot_be_walked_over_is_refused_at_once(corrected: FeatureStore) -> None:
    for asked, error, says in REFUSED:
        usual = {} if "at" in asked or set(asked) == {"start"} else {"start": minute(0), "end": minute(9)}
        with pytest.raises(error, match=says):
            iter_asof(**{"store": corrected, "features": "mini", "timeframe": "1m"} | usual | asked)  # type: ignore[arg-type]


def test_a_store_that_learned_of_everything_later_says_so(store: Store) -> None:
    store.register(MINI, minute(0))
    store.upsert(BARS_TABLE, bars_of(bar(0)), minute(99))
    store.upsert(VECTORS_TABLE, vectors_of(vector(0)), minute(99))
    opened = FeatureStore(store, Settings())
    with pytest.raises(NotFound, match=r"learned of the first at 2024-01-01 01:39:00.*known_at=None.*every_moment=True"):
        iter_asof(opened, "mini", "1m", minute(0), minute(98))
    assert told(iter_asof(opened, "mini", "1m", minute(0), minute(99))) == [(minute(99), {"A": 0.1})]
    assert told(iter_asof(opened, "mini", "1m", minute(0), minute(98), known_at=None)) == [(minute(1), {"A": 0.1})]


def test_what_cannot_be_aligned_is_refused(corrected: FeatureStore) -> None:
    with pytest.raises(DataError, match="bars have high already: name the features to take"):
        aligned(corrected, "mini", "1m")
    with pytest.raises(DefinitionError, match=r"fill='nextopen' is neither .*; did you mean 'next_open'"):
        aligned(corrected, "mini:ret_1", "1m", fill="nextopen")
    with pytest.raises(NotFound, match="no 1m bars"):
        aligned(corrected, "mini:ret_1", "1m", start="2030-01-01")


def test_a_long_pause_between_moments_is_not_read_through(corrected: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SLICE_ROWS", 2)
    asked: list[Selection] = []
    read = corrected.store.revisions
    monkeypatch.setattr(corrected.store, "revisions", lambda table, selection: (asked.append(selection), read(table, selection))[1])
    assert len(list(iter_asof(corrected, "mini", "1m", at=[minute(1), minute(5), minute(1_000_000)]))) == 3
    assert len(asked) < 12


def test_a_replay_by_every_moment_learns_of_each_vector_when_it_could_be_known(new_store: Opener) -> None:
    with new_store() as one, new_store() as other:
        for n in range(4):  # each is there before it closes
            one.upsert(BARS_TABLE, bars_of(bar(n, n + 1.0, available_at=minute(n + 0.5))), minute(n + 0.5))
        one.upsert(BARS_TABLE, bars_of(bar(1, 9.0, available_at=minute(1.5))), minute(3.25))
        published, replayed = FeatureStore(one, Settings()), FeatureStore(other, Settings())
        published.replay(MINI, "1m", into=replayed, every_moment=True)
        steps = iter_asof(replayed, "mini:ret_1", "1m", minute(0), minute(9))
        assert told(steps) == [
            (minute(1), {"A": None}),
            (minute(2), {"A": 1.0}),
            (minute(3), {"A": 0.5}),
            (minute(3.25), {"A": 3 / 9 - 1}),
            (minute(4), {"A": 4 / 3 - 1}),
        ]
