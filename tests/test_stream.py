"""The service in stream mode: bars come from Kafka, vectors go into the store and out to a topic."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet
import pytest

from asof import connect
from scripts.validate_schema_samples import errors, load_schemas
from tests.jobs.streams import eventually, message
from tests.processes import command, finish
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres
from tests.servers.service import Service, service

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)


def bar(minutes_ago: int, close: float | None, instrument: str = "AAPL", **changes: object) -> bytes:
    """The bar that opened so many minutes ago."""
    ts = (NOW - timedelta(minutes=minutes_ago)).isoformat().replace("+00:00", "Z")
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return json.dumps({"instrument_id": instrument, "timeframe": "1m", "ts": ts, "volume": 1.0} | prices | changes).encode()


@dataclass
class Stream:
    """A service in stream mode, and its topics."""

    kafka: Kafka
    url: str
    bars: str
    events: str
    features: str
    service: Service

    def write(self, *bars: bytes) -> None:
        """Bars, keyed by their instruments."""
        for one in bars:
            self.kafka.write(self.bars, one, key=json.loads(one)["instrument_id"].encode())

    def published(self) -> list[tuple[str, dict[str, object] | None]]:
        """All that was published: key and vector."""
        return [(m.key().decode(), m.value() and json.loads(m.value())) for m in self.kafka.read(self.features)]

    def last(self) -> dict[str, dict[str, object] | None]:
        """What compaction leaves."""
        return dict(self.published())

    def until(self, holds: Callable[[list[tuple[str, dict[str, object] | None]]], object]) -> None:
        """Wait until something holds of what was published."""
        eventually(lambda: holds(self.published()))

    def is_right(self, vectors: int) -> None:
        """The stored vectors are those of their inputs and of a replay."""
        with connect(self.url) as store:
            for against in ("inputs", "replay"):
                found = store.verify("fs_v1", "1m", against=against)
                assert (found.right, found.equal) == (True, vectors), found


@contextmanager
def streaming(kafka: Kafka, url: str, folder: Path, **more: str) -> Iterator[Stream]:
    topics = {"OHLCV_TOPIC": kafka.topic(), "ENRICHED_TOPIC": kafka.topic(), "FEATURES_TOPIC": kafka.topic()} | more
    ours = {"FEATURE_DLQ_TOPIC": f"{topics['ENRICHED_TOPIC']}.dlq", "KAFKA_GROUP": topics["ENRICHED_TOPIC"], "ASOF_MODE": "stream"}
    quiet = {"FEATURE_REFRESH_SECONDS": "60", "FEATURE_TIMEFRAMES": "1m", "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap}
    with service(folder, url, **(topics | ours | quiet)) as running:
        eventually(lambda: running.health()["code"] == 200, 60)
        yield Stream(kafka, url, topics["OHLCV_TOPIC"], topics["ENRICHED_TOPIC"], topics["FEATURES_TOPIC"], running)


@pytest.fixture
def stream(kafka: Kafka, postgres: Postgres, tmp_path: Path) -> Iterator[Stream]:
    with streaming(kafka, postgres.database(), tmp_path / "service") as found:
        yield found


def closes_known(found: list[tuple[str, dict[str, object] | None]]) -> int:
    return len({vector["ts_utc"] for _, vector in found if vector})


def test_bars_become_vectors_in_the_store_and_in_the_topic_in_order(stream: Stream) -> None:
    stream.write(*(bar(n, 100.0 + n % 7) for n in range(30, 1, -1)))
    stream.until(lambda found: closes_known(found) == 29)
    assert {key for key, _ in stream.published()} == {"AAPL|1m"}
    times = [vector["ts_utc"] for _, vector in stream.published() if vector]
    assert times == sorted(times)
    validator = load_schemas()["features.v1"]
    assert [errors(validator, m.value()) for m in stream.kafka.read(stream.features)] == [[]] * len(times)
    stream.is_right(29)


def test_late_corrected_and_repeated_bars_and_late_news_end_right_and_the_newest_stays_last(stream: Stream) -> None:
    stream.write(*(bar(n, 100.0 + n % 7) for n in range(30, 1, -1) if n != 20))
    stream.until(lambda found: closes_known(found) == 28)
    stream.write(bar(20, 55.0), bar(10, 77.0), bar(10, 77.0), bar(10, 78.0))
    at = (NOW - timedelta(minutes=15)).isoformat()
    stream.kafka.write(stream.events, message(1, enriched_at_utc=at, event_time_utc=None))
    stream.until(lambda found: any(vector and vector["features"]["event_count_1h"] for _, vector in found))
    eventually(lambda: stream.service.value("late_total", kind="bar") >= 4)
    newest = (NOW - timedelta(minutes=2)).isoformat().replace("+00:00", "Z")
    eventually(lambda: stream.last()["AAPL|1m"]["ts_utc"] == newest)
    stream.is_right(29)


def test_a_bar_that_has_not_closed_is_used_when_it_has_and_not_before(stream: Stream) -> None:
    stream.write(*(bar(n, 100.0 + n % 7) for n in range(30, 1, -1)))
    stream.until(lambda found: closes_known(found) == 29)
    now = datetime.now(UTC)
    opened = now.replace(second=0, microsecond=0)
    stream.write(bar(0, 60.0, ts=opened.isoformat().replace("+00:00", "Z")))
    eventually(lambda: closes_known(stream.published()) == 30, 90)
    said = datetime.fromisoformat(str(stream.last()["AAPL|1m"]["computed_at_utc"]))
    assert timedelta(0) <= said - (opened + timedelta(minutes=1)) < timedelta(seconds=5)


def test_what_cannot_be_used_is_a_dead_letter_and_bars_of_others_are_ignored(kafka: Kafka, postgres: Postgres, tmp_path: Path) -> None:
    with streaming(kafka, postgres.database(), tmp_path / "service", FEATURE_TICKERS="AAPL") as stream:
        stream.write(bar(5, 1.0), bar(4, 1.0, high=1.0, low=2.0), bar(3, 1.0, "MSFT"), bar(2, 0.0))
        stream.until(lambda found: closes_known(found) == 2)
        (letter,) = kafka.read(f"{stream.events}.dlq")
        assert letter.value() == bar(4, 1.0, high=1.0, low=2.0)
        assert stream.service.value("bars_total", outcome="ignored") == 1
        assert stream.service.value("messages_refused_total", reason="high_below_low") == 1


def test_killed_at_any_moment_every_vector_is_stored_and_published(kafka: Kafka, postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database()
    topics = {"OHLCV_TOPIC": kafka.topic(), "ENRICHED_TOPIC": kafka.topic(), "FEATURES_TOPIC": kafka.topic()}
    quick = {"KAFKA_PROPERTIES": "session.timeout.ms=1000,heartbeat.interval.ms=200"} if kafka.real else {}
    for run in range(3):
        with streaming(kafka, url, tmp_path / "service", **topics, **quick) as stream:
            stream.write(*(bar(n, 100.0 + n % 7, name) for n in range(90 - 30 * run, 61 - 30 * run, -1) for name in ("AAPL", "MSFT")))
    with streaming(kafka, url, tmp_path / "service", **topics, **quick) as stream:
        keys = [("AAPL|1m", n) for n in range(87)]
        eventually(lambda: len({(key, vector["ts_utc"]) for key, vector in stream.published() if vector}) == 2 * len(keys), 60)
        stream.is_right(2 * len(keys))


def test_real_minutes_streamed_are_what_a_backfill_makes_of_them(stream: Stream, shared_data: Path) -> None:
    rows = pyarrow.parquet.read_table(shared_data / "bars_1m/binance_btcusdt_1m.parquet").slice(0, 20_000).to_pylist()
    prices = ("open", "high", "low", "close", "volume")
    for row in rows:
        told = {"instrument_id": "BTCUSDT", "timeframe": "1m", "ts": row["ts_open_utc"].isoformat()} | {name: row[name] for name in prices}
        stream.kafka.producer.produce(stream.bars, json.dumps(told), b"BTCUSDT")
        stream.kafka.producer.poll(0)
    stream.kafka.producer.flush(30)
    eventually(lambda: stream.service.value("feature_vectors_upserted_total") >= 20_000, 120)
    stream.is_right(20_000)


def test_it_needs_brokers(tmp_path: Path) -> None:
    code, _, said = finish(command("run", "--mode", "stream", folder=tmp_path, KAFKA_BOOTSTRAP_SERVERS="", ASOF_STORE="duckdb://"))
    assert (code, "name its brokers with KAFKA_BOOTSTRAP_SERVERS" in said) == (2, True)
    code, _, said = finish(command("run", "--mode", "streams", folder=tmp_path, ASOF_STORE="duckdb://"))
    assert (code, "'periodic' or 'stream'" in said) == (2, True)
