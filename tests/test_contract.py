"""What deployments rely on, a test for each line of it, against a service that runs between a real database and a real broker.

Bars are inserted as another program does, events are published as the enrichment does; nothing is looked at but what a deployment sees.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from asof import compute, fs_v1
from asof.config import load_settings, variables
from asof.jobs.formats import write_jsonl
from asof.stores.postgres import PostgresStore
from asof.stores.store import Selection, vectors_table
from scripts.validate_schema_samples import errors, load_schemas
from tests.jobs.streams import event, eventually
from tests.processes import command, finish
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.prometheus import program
from tests.servers.service import Service, database, service

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
NEWEST = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
BAR = "INSERT INTO ohlcv (instrument_id, timeframe, ts, open, high, low, close, volume, source) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
BARS = {("AAPL", "1m"): 60, ("MSFT", "1m"): 10, ("AAPL", "1d"): 25}
COUNTERS = ("compute_runs_total", "feature_vectors_upserted_total", "quality_flag_total")
HISTOGRAMS = ("compute_duration_seconds", "db_upsert_duration_seconds")
DEFAULTS = {
    "FEATURE_TICKERS": "AAPL,MSFT,TSLA",
    "FEATURE_TIMEFRAMES": "1m,1d",
    "FEATURE_SET_VERSION": "fs_v1",
    "FEATURE_REFRESH_SECONDS": "60",
    "FEATURE_LOOKBACK_PERIODS": "200",
    "FEATURE_EVENT_WINDOW_MINUTES": "60",
    "PIPELINE_VERSION": "feature-store.v1.0",
    "POSTGRES_HOST": "timescaledb",
    "POSTGRES_PORT": "5432",
    "POSTGRES_DB": "market",
    "POSTGRES_USER": "market",
    "KAFKA_BOOTSTRAP_SERVERS": "redpanda:29092",
    "ENRICHED_TOPIC": "events.enriched.v1",
    "HEALTH_PORT": "8000",
}
INDEXES = (
    "(instrument_id, timeframe, ts DESC)",
    "(feature_set_version)",
    "(computed_at DESC)",
    "gin (quality_flags)",
    "(instrument_id, timeframe, feature_set_version)",
)


def news(number: int, minutes: float, symbols: tuple[str, ...] = ("AAPL", "MSFT"), **changes: object) -> bytes:
    """An event that was scored so many minutes before the newest bar opened."""
    at = (NEWEST - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    tickers = [{"symbol": symbol, "confidence": 0.9, "method": "ner"} for symbol in symbols]
    return json.dumps(event(number) | {"tickers": tickers, "enriched_at_utc": at, "event_time_utc": at} | changes).encode()


def scores(score: float, confidence: float) -> dict[str, object]:
    return {"score": score, "confidence": confidence, "model": "m"}


EVENTS = {
    "first": news(1, 10, sentiment=scores(0.5, 0.9)),
    "again": news(1, 10, sentiment=scores(0.5, 0.9)),
    "second": news(2, 20, sentiment=scores(-0.25, 0.5)),
    "scored anew": news(2, 5, sentiment=scores(0.75, 0.25), event_time_utc=None),
    "of nobody": news(3, 10, ("TSLA", "GOOG")),
    "other property": news(4, 10, mood="good"),
    "out of range": news(5, 10, sentiment=scores(1.5, 0.5)),
    "broken": b"{",
}


@dataclass
class Deployment:
    """A service at work, its database and its topic."""

    postgres: Postgres
    url: str
    kafka: Kafka
    topic: str
    service: Service

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What a query answers."""
        return self.postgres.run(sql, self.url)

    def vectors(self, instrument: str, timeframe: str = "1m") -> list[dict[str, object]]:
        """The vectors of an instrument, in order."""
        with PostgresStore(self.url) as store:
            found = store.read(vectors_table(fs_v1), Selection(timeframe, (instrument,)))
            return [row for table in found for row in table.to_pylist()]


@pytest.fixture(scope="module")
def deployed(postgres: Postgres, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment whose service has done all there is to do."""
    url, topic = postgres.database(), kafka.topic()
    with psycopg.connect(url) as connection:
        for (instrument, timeframe), count in BARS.items():
            step = timedelta(minutes=1) if timeframe == "1m" else timedelta(days=1)
            newest = NEWEST if timeframe == "1m" else NEWEST.replace(hour=0, minute=0) - timedelta(days=1)
            for k in range(count):
                close = math.nan if (instrument, timeframe, k) == ("AAPL", "1m", 5) else 100 + k % 7 / 4
                connection.execute(BAR, [instrument, timeframe, newest - (count - 1 - k) * step, 100, 103, 99, close, 1000 + k, "ingestor"])
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "ENRICHED_TOPIC": topic,
        "FEATURE_DLQ_TOPIC": f"{topic}.dlq",
        "KAFKA_GROUP": topic,
        "FEATURE_TICKERS": "AAPL,MSFT,NVDA",
        "FEATURE_TIMEFRAMES": "1m,1d",
        "FEATURE_LATEST_REFRESH_SECONDS": "0.5",
    }
    with service(tmp_path_factory.mktemp("service"), url, **settings) as running:
        kafka.write(topic, *EVENTS.values())
        eventually(lambda: running.value("events_total") >= 12, 60)
        eventually(lambda: running.health()["code"] == 200, 60)
        found = Deployment(postgres, url, kafka, topic, running)
        eventually(lambda: found.rows("SELECT 1 FROM feature_vectors WHERE event_count = 2 AND timeframe = '1m'"), 60)
        runs = running.value("compute_runs_total")
        eventually(lambda: running.value("compute_runs_total") > runs + 3, 60)
        yield found


# Records


def test_bars_may_be_written_by_another_program(deployed: Deployment) -> None:
    assert deployed.rows("SELECT DISTINCT source FROM ohlcv") == [("ingestor",)]
    assert {(i, t): len(deployed.vectors(i, t)) for i, t in BARS} == BARS


def test_a_price_may_be_missing(deployed: Deployment) -> None:
    flagged = ["MISSING_OHLCV" in v["quality_flags"] for v in deployed.vectors("AAPL")]
    assert flagged == [5 <= k < 26 for k in range(60)]


def test_a_bar_is_known_at_its_close(deployed: Deployment) -> None:
    assert all(v["available_at"] == v["ts"] + timedelta(minutes=1) for v in deployed.vectors("AAPL"))


def test_one_event_that_names_many_tickers_counts_once_for_each(deployed: Deployment) -> None:
    assert [deployed.vectors(name)[-1]["event_count"] for name in ("AAPL", "MSFT")] == [2, 2]


def test_an_event_has_no_other_properties(deployed: Deployment) -> None:
    refused = {letter.value() for letter in deployed.kafka.read(f"{deployed.topic}.dlq")}
    assert refused == {EVENTS[name] for name in ("other property", "out of range", "broken")}


def test_a_vector_in_json_is_a_features_v1(deployed: Deployment) -> None:
    validator, out = load_schemas()["features.v1"], BytesIO()
    with PostgresStore(deployed.url) as store:
        write_jsonl(fs_v1, pa.concat_tables(store.read(vectors_table(fs_v1), Selection("1m"))), out)
    lines = out.getvalue().splitlines()
    assert len(lines) == 70
    assert [errors(validator, line) for line in lines] == [[]] * 70
    assert len({json.loads(line)["feature_id"] for line in lines}) == 70


def test_the_schemas_are_there_with_their_samples() -> None:
    assert set(load_schemas()) == {"features.v1", "enriched_event.v1", "ohlcv.v1"}
    assert (ROOT / "schemas/samples/features_v1_valid.json").exists()


# The feature set


@pytest.mark.parametrize("timeframe", ["1m", "1d"])
def test_the_vectors_are_those_of_the_engine_to_the_last_bit(deployed: Deployment, timeframe: str) -> None:
    columns = "instrument_id, ts, open::float8, high::float8, low::float8, close::float8, volume::float8"
    bars = table(deployed, f"SELECT {columns} FROM ohlcv WHERE timeframe = '{timeframe}'")
    events = table(deployed, "SELECT event_id, instrument_id, enriched_at_utc, event_time_utc, score, confidence FROM events")
    wanted = compute(fs_v1, bars, events, timeframe=timeframe).to_pylist()
    found = [vector for name in ("AAPL", "MSFT") for vector in deployed.vectors(name, timeframe)]
    shown = ("instrument_id", "ts", *fs_v1.features, "quality_flags", "event_count", "ohlcv_count")
    assert [[row[name] for name in shown] for row in found] == [[row[name] for name in shown] for row in wanted]


def table(deployed: Deployment, sql: str) -> pa.Table:
    names = [part.split("::")[0] for part in sql.removeprefix("SELECT ").partition(" FROM")[0].split(", ")]
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in deployed.rows(sql)])


def test_an_event_that_is_delivered_twice_counts_once_and_new_scores_replace_the_old_in_its_place(deployed: Deployment) -> None:
    scored = deployed.rows("SELECT score, confidence, enriched_at_utc FROM events WHERE instrument_id = 'AAPL' ORDER BY score")
    assert scored == [(0.5, 0.9, NEWEST - timedelta(minutes=10)), (0.75, 0.25, NEWEST - timedelta(minutes=20))]


def test_a_return_is_that_of_closes_and_a_count_that_of_the_hour(deployed: Deployment) -> None:
    newest, closes = deployed.vectors("AAPL")[-1], [100 + k % 7 / 4 for k in range(60)]
    assert newest["ret_1"] == closes[-1] / closes[-2] - 1
    assert (newest["event_count_1h"], newest["sentiment_mean_1h"]) == (2, (0.5 + 0.75) / 2)
    assert newest["quality_flags"] == ["LOW_EVENT_COUNT"]


def test_flags_say_what_is_wrong(deployed: Deployment) -> None:
    first = deployed.vectors("AAPL")[0]
    assert {"INSUFFICIENT_OHLCV", "NO_EVENTS"} <= set(first["quality_flags"])
    assert first["ret_1"] is None


def test_an_instrument_without_bars_gets_no_vector_and_a_row_in_the_quality_log_for_each_timeframe(deployed: Deployment) -> None:
    assert deployed.vectors("NVDA") == []
    log = "SELECT timeframe, feature_set_version, issue_type FROM feature_quality_log WHERE instrument_id = 'NVDA' ORDER BY timeframe"
    assert deployed.rows(log) == [("1d", "fs_v1", "NO_BARS"), ("1m", "fs_v1", "NO_BARS")]


def test_a_registered_version_never_changes(deployed: Deployment, tmp_path: Path) -> None:
    process = command(
        "run", folder=tmp_path, **database(deployed.url), KAFKA_BOOTSTRAP_SERVERS="", HEALTH_PORT="0", FEATURE_EVENT_WINDOW_MINUTES="30"
    )
    code, _, said = finish(process)
    assert code == 3
    assert "registered with another definition" in said
    assert '-feature event_count_1h = events.window("1h").count()' in said


# The database


def test_the_key_of_a_vector_is_unique(deployed: Deployment) -> None:
    keys = deployed.rows(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'feature_vectors'::regclass AND contype = 'p'"
    )
    assert keys == [("PRIMARY KEY (instrument_id, timeframe, ts, feature_set_version)",)]


def test_a_vector_has_its_columns(deployed: Deployment) -> None:
    found = deployed.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'feature_vectors' AND table_schema = 'public'"
    )
    wanted = ["instrument_id", "timeframe", "ts", "feature_set_version", "features", "quality_flags", "computed_at", "pipeline_version"]
    assert {*wanted, "event_window_start", "event_window_end", "event_count", "ohlcv_count"} <= {name for (name,) in found}


@pytest.mark.parametrize("columns", INDEXES)
def test_there_are_five_indexes_beside_the_keys(deployed: Deployment, columns: str) -> None:
    found = deployed.rows(
        "SELECT indexdef FROM pg_indexes WHERE tablename IN ('feature_vectors', 'feature_vectors_latest') AND schemaname = 'public'"
    )
    assert any(text.endswith(columns) for (text,) in found)


def test_features_can_be_read_by_name(deployed: Deployment) -> None:
    features = "SELECT features->>'event_count_1h', features ? 'sentiment_std_1h' FROM feature_vectors_json"
    newest = f"{features} WHERE instrument_id = 'AAPL' AND timeframe = '1m'"
    assert deployed.rows(f"{newest} ORDER BY ts DESC LIMIT 1") == [("2", True)]
    assert deployed.rows(f"{newest} ORDER BY ts LIMIT 1") == [("0", False)]


def test_the_view_of_the_newest_vectors_is_refreshed(deployed: Deployment) -> None:
    eventually(lambda: newest(deployed) == [("AAPL", "1d"), ("AAPL", "1m"), ("MSFT", "1m")])
    assert deployed.rows("SELECT refresh_feature_vectors_latest()") == [("",)]
    assert deployed.rows("SELECT max(ts) FROM feature_vectors_latest") == [(NEWEST,)]


def newest(deployed: Deployment) -> list[tuple[object, ...]]:
    return deployed.rows("SELECT instrument_id, timeframe FROM feature_vectors_latest ORDER BY 1, 2")


def test_computing_again_is_always_safe(deployed: Deployment, tmp_path: Path) -> None:
    before = deployed.rows("SELECT * FROM feature_vectors ORDER BY 1, 2, 3")
    code, out, _ = finish(command("backfill", "fs_v1", "-t", "1m", "--json", folder=tmp_path, **database(deployed.url)))
    assert (code, json.loads(out)["unchanged"]) == (0, 70)
    assert deployed.rows("SELECT * FROM feature_vectors ORDER BY 1, 2, 3") == before


# The settings


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_variable_has_its_default_and_can_be_set(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (field,) = (field for field, variable in variables().items() if variable == name)
    monkeypatch.delenv(name, raising=False)
    default = getattr(load_settings(), field)
    monkeypatch.setenv(name, DEFAULTS[name])
    given = getattr(load_settings(), field)
    assert given == default or name == "FEATURE_TICKERS"
    monkeypatch.setenv(name, {"FEATURE_TIMEFRAMES": "5m"}.get(name, "77"))
    assert getattr(load_settings(), field) != given


def test_there_is_no_default_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSTGRES_PASSWORD", raising=False)
    assert load_settings().postgres_password is None


# The service


def test_health_says_how_it_is(deployed: Deployment) -> None:
    said = deployed.service.health()
    assert said.pop("last_success_age_seconds") < 15
    wanted = {
        "status": "ok",
        "compute_active": True,
        "cached_events": 0,
        "feature_set_version": "fs_v1",
        "pipeline_version": "feature-store.v1.0",
    }
    assert said == wanted | {"code": 200}


def test_health_answers_503_until_it_is_ready(tmp_path: Path) -> None:
    with service(tmp_path / "service", "postgresql://nobody:wrong@127.0.0.1:9/nothing") as running:
        said = running.health()
        assert (said["code"], said["status"], said["last_success_age_seconds"]) == (503, "starting", None)
        eventually(lambda: running.value("compute_failed_total", reason="store"))
        assert running.says("cannot be reached")
        assert running.end() == 0


@pytest.mark.parametrize("name", COUNTERS)
def test_a_counter_moves(deployed: Deployment, name: str) -> None:
    assert deployed.service.value(name) > 0


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_a_histogram_moves(deployed: Deployment, name: str) -> None:
    assert deployed.service.value(f"{name}_count") > 0
    assert deployed.service.value(f"{name}_bucket", le="+Inf") == deployed.service.value(f"{name}_count")


def test_flags_are_counted_by_name(deployed: Deployment) -> None:
    assert deployed.service.value("quality_flag_total", flag="MISSING_OHLCV") >= 21


def test_gauges_tell_when_the_last_success_was_and_how_new_the_features_are(deployed: Deployment) -> None:
    assert abs(deployed.service.value("last_success_timestamp") - time.time()) < 15
    assert deployed.service.value("last_feature_ts_timestamp", timeframe="1m") == NEWEST.timestamp()
    assert deployed.service.value("last_feature_ts_timestamp", timeframe="1d") < NEWEST.timestamp()


def test_failures_are_counted_by_reason(deployed: Deployment) -> None:
    before = deployed.service.value("compute_failed_total", reason="store")
    deployed.postgres.cut_off(deployed.url)
    eventually(lambda: deployed.service.value("compute_failed_total", reason="store") > before)
    eventually(lambda: deployed.service.health()["status"] == "ok")


def test_events_that_wait_are_counted(deployed: Deployment) -> None:
    with psycopg.connect(deployed.url) as other:
        other.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        deployed.kafka.write(deployed.topic, EVENTS["again"], EVENTS["first"])
        eventually(lambda: deployed.service.value("cached_events") > 0)
    eventually(lambda: deployed.service.value("cached_events") == 0)


def test_no_label_holds_an_instrument(deployed: Deployment) -> None:
    assert re.search("AAPL|MSFT|NVDA", deployed.service.get("/metrics")[1]) is None


def test_metrics_follow_the_conventions_of_prometheus(deployed: Deployment) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=deployed.service.get("/metrics")[1], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_messages_that_cannot_be_used_go_to_their_topic_as_they_were(deployed: Deployment) -> None:
    letters = deployed.kafka.read(f"{deployed.topic}.dlq")
    assert {dict(letter.headers())["asof.topic"] for letter in letters} == {deployed.topic.encode()}
    assert len(letters) == 3


def test_a_signal_ends_it_within_seconds(deployed: Deployment, tmp_path: Path) -> None:
    with service(tmp_path / "service", deployed.url) as running:
        eventually(lambda: running.health()["code"] == 200)
        assert running.end(seconds=10) == 0
        assert running.says("stopping")
