"""What only a file can go through: other programs, newer versions, other processes and a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from asof.errors import StoreError
from asof.records import BARS, EVENT_DETAILS
from asof.stores.duckdb import LAYOUT, DuckDBStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Selection
from asof.stores.urls import open_store
from tests.processes import finish, python
from tests.stores.rows import NOON, bar, bars_of, closes, event, events_of, later, minute, rows_in

SMALL_DISK = 24 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store will be."""
    return tmp_path / "store.duckdb"


def test_a_store_is_there_again_when_it_is_opened_again(path: Path) -> None:
    with DuckDBStore(path) as store:
        store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), NOON)
    with DuckDBStore(path) as store:
        store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(1))
    with DuckDBStore(path, read_only=True) as store:
        assert (closes(store), closes(store, NOON)) == ({minute(0): 2.0}, {minute(0): 1.0})


def test_a_store_of_before_there_were_details_of_events_gets_them_when_it_is_opened_for_writing(path: Path) -> None:
    with DuckDBStore(path) as store:
        store.upsert(EVENTS_TABLE, events_of(event("e", 0, 0.5)), NOON)
        store.upsert(EVENTS_TABLE, events_of(event("e", 0, 0.25)), later(1))
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP MACRO TABLE events_at")
        for schema in ("main", "history"):
            for name in EVENT_DETAILS:
                connection.execute(f"ALTER TABLE {schema}.events DROP COLUMN {name}")
    with pytest.raises(StoreError, match="is of an earlier asof: open it once for writing"):
        DuckDBStore(path, read_only=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE MACRO events_at(known) AS TABLE SELECT event_id FROM main.events WHERE known_from <= known")
    for _ in range(2):
        with DuckDBStore(path) as store:
            assert [(r["score"], r["category"]) for r in rows_in(store, EVENTS_TABLE)] == [(0.25, None)]
            assert [r["score"] for r in rows_in(store, EVENTS_TABLE, Selection(known_at=NOON))] == [0.5]
    with DuckDBStore(path) as store:
        store.upsert(EVENTS_TABLE, events_of(event("e", 0, 0.25) | {"category": "macro"}), later(2))
        assert [r["category"] for r in rows_in(store, EVENTS_TABLE)] == ["macro"]
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT score, category FROM events_at(now()::TIMESTAMPTZ) ORDER BY 1").fetchall()


def test_a_store_of_a_newer_layout_is_refused_with_the_command_that_upgrades(path: Path) -> None:
    with DuckDBStore(path):
        pass
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE layout SET version = ?", [LAYOUT + 1])
    with pytest.raises(StoreError, match=rf"layout {LAYOUT + 1}; this asof knows {LAYOUT}.*pip install -U asof"):
        DuckDBStore(path)


def test_a_duckdb_file_of_another_program_is_refused_and_left_as_it_is(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE customers (name VARCHAR)")
    with pytest.raises(StoreError, match=r"another program \(it has customers\)"):
        DuckDBStore(path)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("customers",)]


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("not a database\n" * 1000)
    with pytest.raises(StoreError, match="not a valid DuckDB database"):
        DuckDBStore(path)
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("duckdb:///missing/store.duckdb", r"there is no folder missing"),
        ("duckdb:///.", r"cannot be opened: .*directory"),
        ("duckdb:///", r"the store has no path"),
        ("duckdb:///History.duckdb", r"History.duckdb cannot be called so: .*choose another name"),
        ("", r"the store has no path"),
        ("duckdv:///x", r"unknown kind 'duckdv'; known: duckdb, postgresql, postgres, .*; did you mean 'duckdb'"),
        ("mysql://host/db", r"unknown kind 'mysql'"),
        ("postgre://me:secret@host/db", r"store 'postgre://...' is of an unknown kind 'postgre'; .*did you mean 'postgres'"),
    ],
)
def test_a_url_that_opens_nothing_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=message):
        open_store(url)


def test_a_plain_path_and_a_url_open_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("a.duckdb", "duckdb:///a.duckdb", f"duckdb:///{tmp_path}/a.duckdb", str(tmp_path / "a.duckdb")):
        open_store(url).close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.duckdb"]


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the store."""
    code = f"from asof.stores.duckdb import DuckDBStore\nwith DuckDBStore({str(path)!r}): print('open', flush=True); input()"
    process = python(code, path.parent)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    assert process.stdin is not None
    process.stdin.write("\n")
    assert finish(process)[0] == 0


def test_a_store_that_another_process_holds_is_refused_by_the_name_and_id_of_the_holder(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StoreError, match=rf"held by process {holder.pid} \(.*python.*\).*--store"):
        DuckDBStore(path)


FILL = """
import sys
import numpy as np, pyarrow as pa
from asof.errors import StoreError
from asof.stores.duckdb import DuckDBStore
from asof.stores.store import BARS_TABLE
from tests.stores.rows import NOON, later
from tests.stores.test_duckdb_files import noise
store = DuckDBStore(sys.argv[1], memory="200MiB", threads=1)
for n in range(100):
    try:
        store.upsert(BARS_TABLE, noise(n), later(n))
    except StoreError as error:
        print(n, error)
        break
try:
    store.close()
except StoreError as error:
    print("close", error)
"""


def noise(n: int, rows: int = 40_000) -> pa.Table:
    """Bars that no compression makes smaller."""
    numbers = np.random.default_rng(n).random((5, rows))
    ts = pa.array(np.arange(rows, dtype=np.int64) * 60_000_000 + 1_700_000_000_000_000).cast(pa.timestamp("us", tz="UTC"))
    known = {"instrument_id": pa.repeat(f"I{n:03d}", rows), "timeframe": pa.repeat("1m", rows), "ts": ts}
    known |= dict(zip(("open", "high", "low", "close", "volume"), map(pa.array, numbers), strict=True))
    known |= {name: pa.nulls(rows, BARS.field(name).type) for name in ("source", "available_at")}
    return pa.table(known).select(BARS.names).cast(BARS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_was_written_before_is_all_there(small_disk: Path, tmp_path: Path) -> None:
    path = small_disk / "store.duckdb"
    code, output, errors = finish(python(FILL.replace("sys.argv[1]", repr(str(path))), tmp_path))
    assert code == 0, errors
    first, message = output.splitlines()[0].split(maxsplit=1)
    assert "the disk is full" in message
    assert "Free some space and run it again" in message
    written = int(first)
    assert written > 0
    roomy = shutil.copytree(small_disk, tmp_path / "roomy")
    with DuckDBStore(roomy / path.name) as store:
        spans = store.spans("1m")
        assert spans["bars"].to_pylist() == [40_000] * written
        for n in range(written):
            assert store.upsert(BARS_TABLE, noise(n), later(n)) == Changes(unchanged=40_000)
        assert store.upsert(BARS_TABLE, noise(written), later(written)) == Changes(inserted=40_000)
