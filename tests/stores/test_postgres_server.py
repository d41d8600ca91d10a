"""What only a server can go through: other programs' tables, other processes, lost connections and restarts; and what SQL finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asof.errors import RowsRefused, StoreError
from asof.stores.postgres import PostgresStore
from asof.stores.postgres_migrations import Policies, migrate
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Selection
from tests.processes import finish, python
from tests.servers.postgres import Postgres
from tests.stores.rows import (
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
from tests.stores.test_duckdb_files import noise

FOREIGN = "CREATE TABLE ohlcv (instrument_id text, timeframe text, ts timestamptz, {prices}{more}, UNIQUE (instrument_id, timeframe, ts))"
PRICES = ("open", "high", "low", "close", "volume")
"""The table `ohlcv` as another program makes it."""

INGESTOR = """
INSERT INTO ohlcv (instrument_id, timeframe, ts, close) VALUES ('A', '1m', '2024-01-01T00:00:00Z', {close})
ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE SET close = excluded.close
"""
"""How it writes."""


@pytest.fixture
def url(postgres: Postgres) -> str:
    """A new database with the newest layout."""
    return postgres.database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """A new, empty store."""
    opened = PostgresStore(url)
    yield opened
    opened.close()


def foreign(kind: str = "numeric", more: str = "") -> str:
    return FOREIGN.format(prices=", ".join(f"{name} {kind}" for name in PRICES), more=more)


WRITES = """
import random
from datetime import UTC, datetime
from asof.stores.postgres import PostgresStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE
from tests.stores.rows import *
store, seed = PostgresStore({url!r}), {seed}
shuffled = random.Random(seed)
input()
for n in range(20):
    minutes = list(range(60))
    shuffled.shuffle(minutes)
    store.upsert(BARS_TABLE, streamed(bars_of(*(bar(k, float(n * 2 + seed)) for k in minutes))), datetime.now(UTC))
    store.upsert(VECTORS_TABLE, vectors_of(*(vector(k, float(n * 2 + seed)) for k in minutes)), datetime.now(UTC))
    store.upsert(EVENTS_TABLE, events_of(*(event(f"e{{k}}", k + n, (n + seed) / 99) for k in minutes)), datetime.now(UTC))
store.close()
"""
"""A process that upserts the same keys as another, in another order."""


def test_instruments_are_in_the_order_of_their_bytes_whatever_the_order_of_the_table(postgres: Postgres) -> None:
    url, names = postgres.database(migrated=False), ["b", "A", "a", "B", "é"]
    postgres.run(foreign().replace("instrument_id text,", 'instrument_id text COLLATE "en-x-icu",'), url)
    migrate(url, Policies())
    with PostgresStore(url) as store:
        bars = bars_of(*(bar(0, instrument=name) for name in names))
        assert store.upsert(BARS_TABLE, bars, NOON) == Changes(inserted=5)
        assert store.upsert(BARS_TABLE, bars, later(1)) == Changes(unchanged=5)
        assert [row["instrument_id"] for row in rows_in(store, BARS_TABLE)] == sorted(names)
        assert store.spans()["instrument_id"].to_pylist() == sorted(names)
        between = rows_in(store, BARS_TABLE, Selection("1m", span=("A", "B")))
        assert [row["instrument_id"] for row in between] == ["A", "B"]


@pytest.mark.parametrize("kind", ["numeric", "double precision"])
@pytest.mark.parametrize("more", ["", ", source text, ingested_at timestamptz DEFAULT now(), available_at timestamptz"])
def test_a_table_that_was_there_before_is_taken_over_with_its_rows(postgres: Postgres, kind: str, more: str) -> None:
    url = postgres.database(migrated=False)
    postgres.run(foreign(kind, more), url)
    postgres.run(INGESTOR.format(close=0.1), url)
    migrate(url, Policies())
    with PostgresStore(url) as store:
        assert closes(store) == {minute(0): 0.1}
        assert store.upsert(BARS_TABLE, streamed(bars_of(bar(0, 0.1), bar(1, 0.3))), later(1)) == Changes(inserted=1, unchanged=1)
        assert store.upsert(BARS_TABLE, bars_of(bar(1, 1 / 3)), later(2)) == Changes(corrected=1)
        assert closes(store)[minute(1)] == 1 / 3
        assert closes(store, later(1)) == {minute(1): 0.3}


def test_a_table_that_its_owner_made_anew_is_taken_over_by_the_next_migration(postgres: Postgres, url: str, store: PostgresStore) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), NOON)
    postgres.run("DROP TABLE ohlcv", url)
    with pytest.raises(StoreError, match="run asof migrate"):
        closes(store)
    postgres.run(foreign(), url)
    postgres.run(INGESTOR.format(close=2), url)
    assert migrate(url, Policies()) == []
    assert store.upsert(BARS_TABLE, bars_of(bar(0, 3.0)), datetime.now(UTC)) == Changes(corrected=1)
    assert postgres.run("SELECT close FROM history.ohlcv", url) == [(2,)]


def test_what_another_program_corrects_or_deletes_is_kept(postgres: Postgres, url: str, store: PostgresStore) -> None:
    times = []
    for statement in (INGESTOR.format(close=1), INGESTOR.format(close=1), INGESTOR.format(close=2), "DELETE FROM ohlcv"):
        postgres.run(statement, url)
        times.append(postgres.run("SELECT clock_timestamp()")[0][0])
    states = [closes(store, at) for at in times if isinstance(at, datetime)]
    assert states == [{minute(0): 1.0}, {minute(0): 1.0}, {minute(0): 2.0}, {}]
    assert postgres.run("SELECT count(*) FROM history.ohlcv", url) == [(2,)], "the same values again are no revision"


def test_prices_keep_every_bit_and_what_is_no_price_is_missing(postgres: Postgres, url: str, store: PostgresStore) -> None:
    kept = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 123456789.12345679, 2.2250738585072014e-308, 0.0]
    store.upsert(BARS_TABLE, bars_of(*(bar(n, value) for n, value in enumerate(kept))), NOON)
    assert list(closes(store).values()) == kept
    for n, text in enumerate(("NaN", "Infinity", "-Infinity", "1e400", "1e-400")):
        postgres.run(f"UPDATE ohlcv SET close = '{text}' WHERE ts = '{minute(n)}'", url)
    assert list(closes(store).values()) == [None] * 5 + kept[5:]
    assert store.upsert(BARS_TABLE, bars_of(bar(0, None)), later(1)) == Changes(unchanged=1)


def test_a_table_that_we_may_not_change_is_told_with_what_its_owner_can_run(postgres: Postgres) -> None:
    url = postgres.database(migrated=False)
    as_user = postgres.user(url, "GRANT CREATE ON SCHEMA public TO {0}; GRANT CREATE ON DATABASE {1} TO {0}")
    postgres.run(foreign(), url)
    with pytest.raises(StoreError, match=r"ohlcv belongs to .* and lacks columns; .* can add them: ALTER TABLE ohlcv ADD COLUMN"):
        migrate(as_user, Policies())
    postgres.run("ALTER TABLE ohlcv ADD source text, ADD ingested_at timestamptz, ADD available_at timestamptz", url)
    postgres.run("ALTER TABLE ohlcv ADD known_from timestamptz NOT NULL DEFAULT clock_timestamp()", url)
    with pytest.raises(StoreError, match=r"GRANT SELECT, INSERT, UPDATE, TRIGGER ON ohlcv TO"):
        migrate(as_user, Policies())
    postgres.run("GRANT SELECT, INSERT, UPDATE, TRIGGER ON ohlcv TO PUBLIC", url)
    migrate(as_user, Policies())
    with PostgresStore(as_user) as store:
        assert store.upsert(BARS_TABLE, bars_of(bar(0)), NOON) == Changes(inserted=1)
        assert store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(1)) == Changes(corrected=1)


def test_a_table_that_lacks_a_price_is_told(postgres: Postgres) -> None:
    url = postgres.database(migrated=False)
    postgres.run("CREATE TABLE ohlcv (instrument_id text, timeframe text, ts timestamptz, close numeric)", url)
    with pytest.raises(StoreError, match=r"ohlcv of .* has no column open, high, low, volume"):
        migrate(url, Policies())


def test_an_infinite_time_is_told_and_not_read_as_another(postgres: Postgres, url: str, store: PostgresStore) -> None:
    postgres.run("INSERT INTO ohlcv (instrument_id, timeframe, ts, available_at) VALUES ('A', '1m', now(), 'infinity')", url)
    with pytest.raises(StoreError, match="a time is infinite"):
        rows_in(store, BARS_TABLE)


def test_two_processes_that_upsert_the_same_keys_lose_no_revision(
    postgres: Postgres, url: str, store: PostgresStore, tmp_path: Path
) -> None:
    store.register(MINI, NOON)
    both = [python(WRITES.format(url=url, seed=seed), tmp_path) for seed in (0, 1)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [finish(process) for process in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    for table, key in (("ohlcv", "ts"), ("feature_vectors", "ts"), ("events", "event_id")):
        current = f"SELECT {key}, known_from, NULL::timestamptz AS known_to FROM {table}"
        chain = f"{current} UNION ALL SELECT {key}, known_from, known_to FROM history.{table}"
        broken = postgres.run(
            f"SELECT * FROM (SELECT *, lead(known_from) OVER (PARTITION BY {key} ORDER BY known_from) AS next FROM ({chain}) AS c) AS d"
            " WHERE known_to IS DISTINCT FROM next",
            url,
        )
        assert broken == [], f"every revision of {table} ends where the next one begins"
        assert postgres.run(f"SELECT count(*) FROM {table}", url) == [(60,)]


def test_reads_go_on_while_another_thread_writes(store: PostgresStore) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(10))), NOON)
    reading = store.read(BARS_TABLE, Selection())
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        with store.transaction():
            store.upsert(BARS_TABLE, bars_of(bar(0, 9.0)), later(1))
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert inside.wait(10)
    assert closes(store)[minute(0)] == 1.0
    assert len(next(reading)) == 10
    leave.set()
    thread.join()
    assert closes(store)[minute(0)] == 9.0
    reading.close()


def test_a_connection_that_is_cut_in_the_middle_of_an_upsert_leaves_nothing_and_the_next_call_works(
    postgres: Postgres, url: str, store: PostgresStore
) -> None:
    def cutting() -> Iterator[object]:
        yield from streamed(bars_of(bar(0)))
        postgres.cut_off(url)
        yield from streamed(bars_of(bar(1)))

    with pytest.raises(StoreError, match=r"connection was lost.*running it again is safe"):
        store.upsert(BARS_TABLE, cutting(), NOON)  # type: ignore[arg-type]
    assert closes(store) == {}
    assert store.upsert(BARS_TABLE, streamed(bars_of(bar(0), bar(1))), NOON) == Changes(inserted=2)


def test_a_read_that_is_cut_is_told_and_the_next_one_works(postgres: Postgres, url: str, store: PostgresStore) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    assert len(store.spans()) == 1
    postgres.cut_off(url)
    with pytest.raises(StoreError, match="connection was lost"):
        store.spans()
    assert len(store.spans()) == 1


def test_a_transaction_that_is_cut_keeps_nothing(postgres: Postgres, url: str, store: PostgresStore) -> None:
    def cut() -> None:
        with store.transaction():
            store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
            postgres.cut_off(url)

    with pytest.raises(StoreError, match="connection was lost"):
        cut()
    assert closes(store) == {}


def test_a_process_that_is_killed_in_a_transaction_leaves_nothing(store: PostgresStore, url: str, tmp_path: Path) -> None:
    code = (
        "from asof.stores.postgres import PostgresStore\nfrom asof.stores.store import BARS_TABLE\nfrom tests.stores.rows import *\n"
        f"store = PostgresStore({url!r})\n"
        "with store.transaction(): store.upsert(BARS_TABLE, bars_of(bar(0)), NOON); print('in', flush=True); input()"
    )
    process = python(code, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    process.kill()
    finish(process)
    assert store.upsert(BARS_TABLE, streamed(bars_of(bar(0))), later(1)) == Changes(inserted=1)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_was_restarted_is_found_again(postgres: Postgres, mode: str, url: str, store: PostgresStore) -> None:
    if postgres.cluster is None:
        pytest.skip("the server that ASOF_TEST_POSTGRES names is not ours to restart")
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    postgres.cluster.restart(mode)
    with pytest.raises(StoreError, match="connection was lost"):
        store.spans()
    assert store.upsert(BARS_TABLE, bars_of(bar(1)), later(1)) == Changes(inserted=1)


@pytest.fixture
def small_disk(postgres: Postgres) -> Iterator[str]:
    """The URL of a store on a disk of a few megabytes."""
    if postgres.cluster is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk under a server of its own")
    folder = postgres.cluster.folder / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    shutil.chown(folder, "postgres")
    postgres.run(f"CREATE TABLESPACE small LOCATION '{folder}'")
    url = postgres.database()
    postgres.run(f"ALTER DATABASE {url.rpartition('/')[2]} SET TABLESPACE small")
    yield url
    postgres.run(f"DROP DATABASE {postgres.made.pop()} WITH (FORCE)")
    postgres.run("DROP TABLESPACE small")
    subprocess.run(["umount", "--lazy", folder], check=True)  # the server lets go of it when its processes have ended


def test_a_full_disk_is_told_and_what_was_written_before_is_all_there(small_disk: str) -> None:
    with PostgresStore(small_disk) as store:
        for n in range(100):
            try:
                store.upsert(BARS_TABLE, noise(n), later(n))
            except StoreError as error:
                assert "the server's disk is full, and nothing of this step was kept. Free some space and run it again" in str(error)  # noqa: PT017  # how many went in is what matters
                break
        assert n > 0
        assert store.spans("1m")["bars"].to_pylist() == [40_000] * n


def test_names_that_are_hostile_are_names(store: PostgresStore) -> None:
    names = ["'; DROP TABLE ohlcv; --", 'say "A"', "ÆØÅ 株", "\\x00", "%s ? $1", "{a,b}", "NULL", "a\nb\tc"]
    store.upsert(BARS_TABLE, streamed(bars_of(*(bar(0, 1.0, name) for name in names))), NOON)
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(*(vector(0, instrument=name, quality_flags=[name]) for name in names)), NOON)
    assert sorted(names) == store.spans()["instrument_id"].to_pylist()
    for name in names:
        assert len(rows_in(store, BARS_TABLE, Selection("1m", (name,)))) == 1
        assert store.latest(VECTORS_TABLE, Selection("1m", (name,)))["quality_flags"].to_pylist() == [[name]]


def test_a_text_with_nul_is_refused_in_words(store: PostgresStore) -> None:
    with pytest.raises(StoreError, match="the character NUL"):
        store.upsert(BARS_TABLE, bars_of(bar(0, 1.0, "A\0B")), NOON)


def test_vectors_are_found_by_name_as_json_and_by_their_newest(postgres: Postgres, url: str, store: PostgresStore) -> None:
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0, 0.1), vector(1, None), vector(2, 0.3, "B")), NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0, 0.2)), later(1))
    assert postgres.run("SELECT ret_1, high FROM mini ORDER BY instrument_id, ts", url) == [(0.2, 1.0), (None, 1.0), (0.3, 1.0)]
    assert postgres.run("SELECT ret_1, known_to - known_from FROM history.mini", url) == [(0.1, timedelta(hours=1))]
    assert postgres.run("SELECT features FROM feature_vectors_json ORDER BY instrument_id, ts", url) == [
        ({"ret_1": 0.2, "high": 1.0},),
        ({"high": 1.0},),
        ({"ret_1": 0.3, "high": 1.0},),
    ]
    assert postgres.run("SELECT count(*) FROM feature_vectors_latest", url) == [(0,)]
    postgres.run("SELECT refresh_feature_vectors_latest()", url)
    assert postgres.run("SELECT instrument_id, ts FROM feature_vectors_latest ORDER BY 1", url) == [("A", minute(1)), ("B", minute(2))]


def test_the_indexes_of_vectors_are_those_of_the_contract(postgres: Postgres, url: str) -> None:
    found = postgres.run("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename LIKE 'feature_vectors%'", url)
    columns = sorted(str(row[0]).partition(" USING ")[2] for row in found)
    assert columns == [
        "btree (computed_at DESC)",
        "btree (feature_set_version)",
        "btree (instrument_id, timeframe, feature_set_version)",
        "btree (instrument_id, timeframe, ts DESC)",
        "btree (instrument_id, timeframe, ts, feature_set_version)",
        "gin (quality_flags)",
    ]


def test_an_event_window_lies_beside_the_vectors_that_have_one(postgres: Postgres, url: str, store: PostgresStore) -> None:
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0)), NOON)
    assert postgres.run("SELECT event_window_start, event_window_end FROM feature_vectors", url) == [(None, None)]


def test_a_feature_set_that_has_the_name_of_a_table_is_refused(postgres: Postgres, url: str, store: PostgresStore) -> None:
    postgres.run("CREATE TABLE mini (a int)", url)
    with pytest.raises(StoreError, match=r"has a table mini already: give the feature set another version"):
        store.register(MINI, NOON)
    assert store.registered() == {}


def test_where_the_server_has_timescaledb_vectors_bars_and_points_are_hypertables_with_policies(postgres: Postgres) -> None:
    url = postgres.database()
    if not postgres.run("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'", url):
        pytest.skip("this server has no TimescaleDB")
    jobs = "SELECT hypertable_name, proc_name FROM timescaledb_information.jobs WHERE hypertable_schema = 'public' ORDER BY 1, 2"
    chunks = "SELECT hypertable_name, time_interval FROM timescaledb_information.dimensions ORDER BY 1"
    tables = ["books", "feature_vectors", "ohlcv", "quotes", "trades"]
    assert postgres.run(chunks, url) == [(name, timedelta(days=7)) for name in tables]
    assert postgres.run(jobs, url) == []
    migrate(url, Policies(columnstore_after="30d", retention="730d"))
    assert [row[0] for row in postgres.run(jobs, url)] == sorted(tables * 2)
    with PostgresStore(url) as store:
        store.register(MINI, NOON)
        store.upsert(VECTORS_TABLE, vectors_of(vector(0, 0.1), vector(1, 0.2)), NOON)
        postgres.run("SELECT compress_chunk(c) FROM show_chunks('feature_vectors') AS c", url)
        changes = store.upsert(VECTORS_TABLE, vectors_of(vector(0, 0.5), vector(1, 0.2), vector(2, 0.3)), later(1))
        assert changes == Changes(inserted=1, corrected=1, unchanged=1)
        assert [r["ret_1"] for r in rows_in(store, VECTORS_TABLE, Selection(known_at=NOON))] == [0.1, 0.2]
        assert [r["ret_1"] for r in rows_in(store, VECTORS_TABLE)] == [0.5, 0.2, 0.3]
    migrate(url, Policies(columnstore_after="60d", retention="730d"))
    assert len(postgres.run(jobs, url)) == 10
    migrate(url, Policies())
    assert postgres.run(jobs, url) == []


def test_rows_that_are_refused_for_what_they_hold_are_told_from_a_server_that_is_away(postgres: Postgres) -> None:
    url = postgres.database()
    postgres.run("ALTER TABLE events ADD CHECK (score < 0.9)", url)
    with PostgresStore(url) as store:
        with pytest.raises(RowsRefused, match="violates check constraint"):
            store.upsert(EVENTS_TABLE, events_of(event("x", 1, score=0.95)), NOON)
        postgres.run("ALTER TABLE events RENAME TO elsewhere", url)
        with pytest.raises(StoreError) as away:
            store.upsert(EVENTS_TABLE, events_of(event("x", 1)), NOON)
        assert not isinstance(away.value, RowsRefused)
