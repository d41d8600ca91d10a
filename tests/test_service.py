"""The service when things go wrong: processes that are killed, servers that go away, settings that cannot be used."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from asof import connect
from asof.stores.postgres import PostgresStore
from asof.stores.postgres_migrations import Policies, migrate
from tests.jobs.streams import all_there, eventually, message, streaming
from tests.processes import command, finish
from tests.servers import kafka as brokers
from tests.servers import postgres as databases
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.service import Service, database, service

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
INSERT = """
INSERT INTO ohlcv (instrument_id, timeframe, ts, open, high, low, close, volume, source)
SELECT 'AAPL', '1m', %s::timestamptz - n * interval '1 minute', 1, 200, 1, %s + n %% 7, n, 'x' FROM generate_series(%s::int, %s::int) n
ON CONFLICT (instrument_id, timeframe, ts) DO UPDATE SET close = excluded.close
"""


def settings(kafka: Kafka, topic: str) -> dict[str, str]:
    """The variables that name a topic."""
    quick = "session.timeout.ms=1000,heartbeat.interval.ms=200" if kafka.real else ""
    ours = {"ENRICHED_TOPIC": topic, "FEATURE_DLQ_TOPIC": f"{topic}.dlq", "KAFKA_GROUP": topic, "FEATURE_TIMEFRAMES": "1m"}
    return ours | {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "KAFKA_PROPERTIES": quick}


def insert_bars(url: str, close: float, first: int, last: int) -> None:
    """Bars that opened so many minutes ago; those that are there are corrected."""
    with psycopg.connect(url) as connection:
        connection.execute(INSERT, [NOW, close, first, last])


def within_the_hours(number: int) -> bytes:
    """An event that some of the bars see."""
    at = NOW - timedelta(minutes=number * 7 % 400)
    return message(number, enriched_at_utc=at.isoformat(), event_time_utc=None)


@contextmanager
def bars_coming(url: str) -> Iterator[None]:
    """New and corrected bars during the block, by a program that does not give up because the database is away."""
    ended = threading.Event()

    def work() -> None:
        chance, newest = random.Random(0), 200  # noqa: S311  # no secret
        while not ended.wait(0.05):
            with suppress(psycopg.OperationalError):
                insert_bars(url, chance.uniform(50, 150), newest, newest + chance.randint(0, 30))
                newest = max(1, newest - 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_right(url: str) -> None:
    """The vectors are those that a fresh computation gives, to the last bit."""
    with connect(url) as store:
        found = store.verify("fs_v1", "1m")
    assert found.right, found
    assert found.equal > 200


def idle(running: Service) -> None:
    """Wait until it has nothing left to do."""
    runs = running.value("compute_runs_total")
    eventually(lambda: running.health()["code"] == 200 and running.value("compute_runs_total") > runs + 2, 60)


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Kafka]:
    """A broker that tests may kill."""
    with brokers.private() as broker:
        yield broker


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A database that tests may kill."""
    with databases.private() as server:
        yield server


def test_whatever_is_killed_every_event_is_there_once_and_every_vector_is_right(
    own_kafka: Kafka, own_postgres: Postgres, tmp_path: Path
) -> None:
    chance = random.Random(1)  # noqa: S311  # no secret
    assert own_postgres.cluster is not None
    assert own_kafka.server is not None
    url, topic = own_postgres.database(), own_kafka.topic()
    victims = ["service", "database", "broker", "service", "database"]
    chance.shuffle(victims)
    insert_bars(url, 100, 1, 300)
    with streaming(own_kafka, topic, within_the_hours) as stream, bars_coming(url):
        while victims:
            with service(tmp_path / "service", url, **settings(own_kafka, topic)) as running:
                time.sleep(chance.uniform(0.3, 2))
                victim = victims.pop()
                if victim == "database":
                    own_postgres.cluster.restart("immediate")
                elif victim == "broker":
                    own_kafka.server.end(signal.SIGKILL)
                    own_kafka.server.start()
                time.sleep(chance.uniform(0, 1))
                assert running.process.poll() is None
    with service(tmp_path / "service", url, **settings(own_kafka, topic)) as running, PostgresStore(url) as store:
        all_there(store, stream, own_kafka, topic)
        idle(running)
        is_right(url)
        assert running.end() == 0


def test_a_price_that_is_no_number_is_missing_and_stops_nothing(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    insert_bars(url, 100, 1, 60)
    postgres.run(f"UPDATE ohlcv SET close = 'NaN' WHERE ts = '{NOW - timedelta(minutes=30)}'", url)
    postgres.run(f"UPDATE ohlcv SET close = 1e300, open = 1e-300 WHERE ts = '{NOW - timedelta(minutes=20)}'", url)
    with service(tmp_path / "service", url, FEATURE_TIMEFRAMES="1m") as running:
        eventually(lambda: running.health()["code"] == 200)
        assert running.value("quality_flag_total", flag="MISSING_OHLCV") >= 21
        assert postgres.run("SELECT count(*) FROM feature_vectors", url) == [(60,)]


def test_a_database_without_tables_is_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database(migrated=False)
    with service(tmp_path / "service", url, FEATURE_TIMEFRAMES="1m") as running:
        eventually(lambda: running.says("run asof migrate"))
        assert running.health()["status"] == "starting"
        migrate(url, Policies())
        insert_bars(url, 100, 1, 30)
        eventually(lambda: running.health()["code"] == 200)
        assert postgres.run("SELECT count(*) FROM feature_vectors", url) == [(30,)]


def test_a_user_without_rights_is_told_and_what_is_granted_counts_at_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    insert_bars(url, 100, 1, 30)
    user = postgres.user(url, "GRANT USAGE ON SCHEMA public, history TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA public, history TO {0}")
    with service(tmp_path / "service", user, FEATURE_TIMEFRAMES="1m") as running:
        eventually(lambda: running.says("permission denied"))
        assert running.says("let the owner grant it")
        assert running.value("compute_failed_total", reason="store") > 0
        assert running.process.poll() is None
        name = user.partition("//")[2].partition(":")[0]
        postgres.run(f"GRANT ALL ON ALL TABLES IN SCHEMA public, history TO {name}; GRANT CREATE ON SCHEMA public, history TO {name}", url)
        eventually(lambda: running.health()["code"] == 200)


def test_a_wrong_password_is_told_without_it(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.of("postgres", password="hunter2")
    with service(tmp_path / "service", url) as running:
        eventually(lambda: running.says("password authentication failed"))
        assert not running.says("hunter2")
        assert running.health()["code"] == 503


def test_brokers_that_are_away_do_not_hold_up_the_vectors(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    insert_bars(url, 100, 1, 30)
    with service(tmp_path / "service", url, FEATURE_TIMEFRAMES="1m", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9") as running:
        eventually(lambda: running.health()["code"] == 200)
        eventually(lambda: running.says("cannot be reached"))
        assert running.value("broker_up") == 0
        assert running.end(seconds=10) == 0


def test_a_long_history_is_left_in_the_middle_and_finished_later(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    insert_bars(url, 100, 1, 1_000_000)
    with service(tmp_path / "service", url, FEATURE_TIMEFRAMES="1m") as running:
        eventually(lambda: postgres.run("SELECT 1 FROM feature_vectors LIMIT 1", url), 60)
        began = time.monotonic()
        assert running.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
    (count,) = postgres.run("SELECT count(*) FROM feature_vectors", url)[0]
    assert 0 < int(str(count)) < 1_000_000


BROKEN = {
    "FEATURE_TIMEFRAMES=1x": (2, "timeframe '1x' is not one of"),
    "FEATURE_REFRESH_SECONDS=0": (2, "greater than 0"),
    "FEATURE_SET_VERSION=fs_v0": (6, "no feature set 'fs_v0'; there are "),
    "KAFKA_SASL_MECHANISM=NONSENSE": (2, "NONSENSE"),
    "KAFKA_PROPERTIES=no.such.property=1": (2, "no.such.property"),
    "HEALTH_HOST=203.0.113.7": (2, "203.0.113.7"),
    "ASOF_STORE=redis://somewhere": (5, "is of an unknown kind 'redis'"),
    "ASOF_CALENDARS=XNYC": (3, "XNYC"),
}


@pytest.mark.parametrize("line", BROKEN)
def test_what_cannot_be_used_ends_it_with_its_name(postgres: Postgres, tmp_path: Path, line: str) -> None:
    name, _, value = line.partition("=")
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9" if name.startswith("KAFKA") else "", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    code, _, said = finish(command("run", folder=tmp_path, **database(postgres.database()), HEALTH_PORT="0", **kafka | {name: value}), 30)
    assert (code, BROKEN[line][1] in said) == (BROKEN[line][0], True), said
    assert "Traceback" not in said
