"""The smoke test itself, against a service that is made up of what there is: a loop that ingests and backfills, or one that is broken."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from asof import connect
from asof.serving.health import serve
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.processes import finish, start

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test_feature_store_smoke.py"
TOPIC = "events.enriched.v1"
BRIEFLY = ("--url", "http://127.0.0.1:9", "--seconds", "1")
NAMES = ["database", "tables", "bars", "events", "health", "vectors", "metrics"]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The address of a broker that librdkafka plays."""
    played = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (found,) = played.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    played.flush(1)


@contextmanager
def service(url: str, broker: str, folder: Path, *, loses_events: bool = False) -> Iterator[str]:
    """The address of something that does what the service promises, or nearly."""
    metrics, health, stop = Metrics(), Health("fs_v1", "feature-store.v1.0", 0.2), threading.Event()

    def work() -> None:
        consumer = Consumer({"bootstrap.servers": broker, "group.id": folder.name, "auto.offset.reset": "earliest", "log_level": 0})
        consumer.subscribe([TOPIC])
        with connect(url) as store, health.computing():
            store.apply("fs_v1")
            while not stop.is_set():
                messages = [m for m in consumer.consume(100, 0.3) if not m.error()]
                if messages and not loses_events:
                    (folder / "events.jsonl").write_bytes(b"\n".join(m.value() for m in messages))
                    metrics.events.labels("stored").inc(store.ingest_events(folder / "events.jsonl").accepted)
                with metrics.compute_seconds.time(), metrics.upsert_seconds.time():
                    changes = store.backfill("fs_v1", "1m").changes if len(store.store.spans("1m")) else None
                if changes and changes.inserted:
                    metrics.vectors_upserted.inc(changes.inserted)
                    metrics.quality_flags.labels("NO_EVENTS").inc()
                metrics.compute_runs.inc()
                metrics.last_success.set_to_current_time()
                health.succeeded()
        consumer.close()

    thread = threading.Thread(target=work)
    with serve(health, metrics, "127.0.0.1", 0) as port:
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()
            thread.join()


def smoke(folder: Path, store: str, **options: str) -> tuple[int, str, str]:
    """Run it; the password is where it belongs, in the environment."""
    parts = store.removeprefix("postgresql://").replace("@", ":").replace("/", ":").split(":")
    names = ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB")
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    return finish(start([sys.executable, str(SCRIPT), *arguments], folder, **dict(zip(names, parts, strict=True))))


def left_over(postgres, url: str) -> int:
    tables = ("ohlcv", "events", "feature_vectors", "history.ohlcv", "history.events", "history.feature_vectors")
    return sum(int(str(postgres.run(f"SELECT count(*) FROM {name}", url)[0][0])) for name in tables)


@pytest.mark.slow
def test_a_stack_that_keeps_its_promises_passes_all_seven_and_nothing_is_left(postgres, broker, tmp_path):
    url = postgres.database()
    with service(url, broker, tmp_path) as address:
        code, out, err = smoke(tmp_path, url, kafka=broker, url=address, seconds="30")
        assert code == 0, out + err
        assert [line[:8] for line in out.splitlines()] == [f"ok   {k}/7" for k in range(1, 8)]
        again = smoke(tmp_path, url, kafka=broker, url=address, seconds="30")
        assert again[0] == 0, again[1] + again[2]
    assert left_over(postgres, url) == 0


@pytest.mark.slow
def test_a_service_that_loses_events_is_found_out(postgres, broker, tmp_path):
    url = postgres.database()
    with service(url, broker, tmp_path, loses_events=True) as address:
        code, out, err = smoke(tmp_path, url, kafka=broker, url=address, seconds="6")
    assert code == 1, out + err
    assert "FAIL 6/7 vectors appear, and are right: event_count_1h at" in out
    assert "mend: where only features of events differ" in out
    assert "FAIL 7/7 metrics move: not tried: it needs vectors" in out
    assert left_over(postgres, url) == 0


def test_without_a_service_what_does_not_need_it_is_told_apart(postgres, broker, tmp_path):
    url = postgres.database()
    process = smoke(tmp_path, url, kafka=broker, url="http://127.0.0.1:9", seconds="1")
    assert process[0] == 1
    assert [line[:8] for line in process[1].splitlines() if not line.startswith(" ")] == [
        *(f"ok   {k}/7" for k in range(1, 5)), *(f"FAIL {k}/7" for k in range(5, 8))
    ]  # fmt: skip
    assert "start the service (asof run)" in process[1]


def test_its_report_for_scripts_is_one_object(postgres, tmp_path):
    url = postgres.database(migrated=False)
    arguments = [
        sys.executable,
        str(SCRIPT),
        "--json",
        "--store",
        url,
        "--kafka",
        "127.0.0.1:9",
        "--url",
        "http://127.0.0.1:9",
        "--seconds",
        "1",
    ]
    code, out, err = finish(start(arguments, tmp_path))
    report = json.loads(out)
    assert (code, report["ok"], err) == (1, False, "")
    assert [c["check"] for c in report["checks"]] == NAMES
    assert [c["check"] for c in report["checks"] if c["ok"]] == ["database"]
    assert report["checks"][1]["mend"] == "run asof migrate"
    assert url.split(":")[2].split("@")[0] not in out


def test_a_database_that_is_not_there_is_told_with_its_mend(tmp_path):
    code, out, _ = finish(start([sys.executable, str(SCRIPT), "--store", "postgresql://a:hunter2@127.0.0.1:9/market", *BRIEFLY], tmp_path))
    assert code == 1
    assert "FAIL 1/7 the database is reachable: postgresql://a@127.0.0.1:9/market cannot be reached" in out
    assert "mend: name the database with --store" in out
    assert "hunter2" not in out
    code, out, _ = finish(start([sys.executable, str(SCRIPT), "--store", "duckdb:///asof.duckdb", *BRIEFLY], tmp_path))
    assert "duckdb:///asof.duckdb is no PostgreSQL" in out
