"""The smoke test itself: against the real service, against one that is broken, and against none."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.processes import finish, start
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.service import Service, service

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test_feature_store_smoke.py"
BRIEFLY = ("--url", "http://127.0.0.1:9", "--seconds", "1")
NAMES = ["database", "tables", "bars", "events", "health", "vectors", "metrics"]


def deployed(postgres: Postgres, kafka: Kafka, folder: Path, **variables: str) -> tuple[str, str, AbstractContextManager[Service]]:
    """A database, a topic, and a service over them."""
    url, topic = postgres.database(), kafka.topic()
    ours = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "ENRICHED_TOPIC": topic, "FEATURE_DLQ_TOPIC": f"{topic}.dlq", "KAFKA_GROUP": topic}
    return url, topic, service(folder, url, **(ours | {"FEATURE_TIMEFRAMES": "1m"} | variables))


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
def test_a_stack_that_keeps_its_promises_passes_all_seven_and_nothing_is_left(postgres, kafka, tmp_path):
    url, topic, running = deployed(postgres, kafka, tmp_path / "service")
    with running as serving:
        asked = {"kafka": kafka.bootstrap, "topic": topic, "url": serving.address, "seconds": "60"}
        code, out, err = smoke(tmp_path, url, **asked)
        assert code == 0, out + err
        assert [line[:8] for line in out.splitlines()] == [f"ok   {k}/7" for k in range(1, 8)]
        again = smoke(tmp_path, url, **asked)
        assert again[0] == 0, again[1] + again[2]
    assert left_over(postgres, url) == 0


@pytest.mark.slow
def test_a_service_that_does_not_read_the_events_is_found_out(postgres, kafka, tmp_path):
    url, topic, running = deployed(postgres, kafka, tmp_path / "service", KAFKA_BOOTSTRAP_SERVERS="")
    with running as serving:
        code, out, err = smoke(tmp_path, url, kafka=kafka.bootstrap, topic=topic, url=serving.address, seconds="6")
    assert code == 1, out + err
    assert "FAIL 6/7 vectors appear, and are right: event_count_1h at" in out
    assert "mend: where only features of events differ" in out
    assert "FAIL 7/7 metrics move: not tried: it needs vectors" in out
    assert left_over(postgres, url) == 0


def test_without_a_service_what_does_not_need_it_is_told_apart(postgres, kafka, tmp_path):
    url = postgres.database()
    process = smoke(tmp_path, url, kafka=kafka.bootstrap, topic=kafka.topic(), url="http://127.0.0.1:9", seconds="1")
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
