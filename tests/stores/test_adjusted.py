"""Adjusted bars over every store: as known at a moment, by a backfill in pieces, explained, and in a file of before there were actions."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from asof import FeatureSet, bars
from asof.config import Settings
from asof.feature_store import FeatureStore
from asof.jobs.backfill import backfill
from asof.jobs.work import Work
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.stores.rows import NOON, action, actions_of, bar, bars_of, later, minute, rows_in

SET = FeatureSet("total", {"gain": bars.adjusted.close / bars.adjusted.close.lag(1) - 1, "worth": bars.adjusted.close.lag(2)})


def test_a_factor_that_was_corrected_later_is_what_it_was_for_who_asks_as_of_before(store: Store) -> None:
    features = FeatureStore(store, Settings())
    store.upsert(BARS_TABLE, bars_of(bar(0, 8.0), bar(1, 8.0), bar(2, 4.0)), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(2, 4.0)), later(1))
    store.upsert(ACTIONS_TABLE, actions_of(action(2, 2.0)), later(2))
    gains = {at: features.compute(SET, "1m", known_at=at).to_arrow()["gain"].to_pylist()[-1] for at in (NOON, later(1), later(2), None)}
    assert gains == {NOON: -0.5, later(1): 1.0, later(2): 0.0, None: 0.0}
    assert [a["split"] for a in rows_in(store, ACTIONS_TABLE)] == [2.0]


def test_a_backfill_of_one_instrument_in_stretches_gives_what_one_piece_gives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.register(SET, NOON)
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(40) for name in "AB")), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(9.5), action(10), action(11, 3.0), action(30, 1.0, "B", 0.9), action(39)), NOON)
    work = Work(store, SET, "1m", later(0), "test")
    whole = work.vectors(bars_of(*(bar(n, float(n + 1), name) for n in range(40) for name in "AB")), Selection())
    for rows in (1, 7):
        monkeypatch.setattr("asof.jobs.parts.part_rows", lambda memory, features, rows=rows: rows)
        backfill(work)
        assert [r["worth"] for r in rows_in(store, work.table)] == whole["worth"].to_pylist()
        assert [r["gain"] for r in rows_in(store, work.table)] == whole["gain"].to_pylist()
    worths = dict(zip(whole["ts"].to_pylist()[:40], whole["worth"].to_pylist()[:40], strict=True))
    assert [worths[minute(n)] for n in (9, 10, 11, 12)] == [8.0, 9 * 0.25, 10 * (1 / 3 * 0.25), 11 * (1 / 3)]


def test_a_vector_is_explained_with_the_actions_in_its_window(store: Store) -> None:
    features = FeatureStore(store, Settings())
    store.register(SET, NOON)
    store.upsert(BARS_TABLE, bars_of(bar(0, 8.0), bar(1, 8.0), bar(2, 4.0), bar(3, 4.0)), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(0), action(2), action(3, 5.0), action(2, instrument="B")), NOON)
    found = features.explain(SET, "1m", "A", minute(2))
    assert [(row["ts"], row["split"], row["known_from"]) for row in found.actions.to_pylist()] == [(minute(2), 2.0, NOON)]
    assert (found.features["gain"].value, found.features["worth"].value) == (0.0, 4.0)


def test_a_file_of_before_there_were_actions_gets_a_table_of_them(tmp_path: Path) -> None:
    path = tmp_path / "old.duckdb"
    open_store(str(path)).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE main.actions; DROP TABLE history.actions; DROP MACRO TABLE actions_at")
    with closing(open_store(str(path))) as store:
        store.upsert(ACTIONS_TABLE, actions_of(action(1)), NOON)
        assert len(rows_in(store, ACTIONS_TABLE)) == 1
