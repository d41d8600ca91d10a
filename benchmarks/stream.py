"""From a bar at the broker to its vector in the topic and in PostgreSQL: `asof run --mode stream`, at a steady rate of bars.

Each second so many one-minute bars are written, evenly, and each is timed from being given to the producer until its vector is read from
the topic, which is after it was stored. Broker, database, service, producer and reader share the machine. `--picture` draws the histogram.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

import confluent_kafka
import numpy as np
from measure import Figure, Result, Settings
from postgres_io import private_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.servers import kafka as brokers
from tests.servers.kafka import Kafka
from tests.servers.service import service

TARGET = 0.010
RATES = (100, 1_000, 10_000)
SECONDS = 10
INSTRUMENTS = 500
EDGES = (0, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 1_000_000)


def run(settings: Settings) -> Result:
    """Measure it."""
    seconds = max(1, round(SECONDS * settings.scale))
    figures, notes, best, drawn = [], [], {}, {}
    with private_server() as postgres, brokers.mocked() if brokers.missing() else brokers.private() as kafka:
        for rate in RATES if settings.scale >= 0.1 else RATES[:1]:
            found = _latencies(kafka, postgres.database(), settings.folder / f"service-{rate}", rate, seconds)
            p50, p99 = np.quantile(found, [0.5, 0.99])
            best[rate], drawn[rate] = float(p99), found
            figures.append(Figure(f"{rate:,} bars/s", float(p50), value=f"p99 {p99 * 1000:.0f} ms", note=_drawn(found)))
            notes += [] if len(found) == rate * seconds else [f"at {rate} bars/s {len(found)} vectors of {rate * seconds} came"]
    if settings.picture:
        from histogram import draw  # noqa: PLC0415  # matplotlib is an extra

        draw(drawn, settings.picture)
    last = max(best)
    return Result(
        f"a bar at the broker to its vector in the topic and in PostgreSQL, {INSTRUMENTS} instruments, medians",
        figures,
        f"p99 below {TARGET * 1000:g} ms at {RATES[-1]:,} bars/s",
        f"p99 {best[last] * 1000:.0f} ms at {last:,} bars/s",
        last == RATES[-1] and best[last] < TARGET,
        notes,
    )


def _latencies(kafka: Kafka, url: str, folder: Path, rate: int, seconds: int) -> np.ndarray:
    bars, features, events = kafka.topic(), kafka.topic(), kafka.topic()
    topics = {"OHLCV_TOPIC": bars, "FEATURES_TOPIC": features, "ENRICHED_TOPIC": events, "FEATURE_DLQ_TOPIC": f"{events}.dlq"}
    settings = {"ASOF_MODE": "stream", "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "KAFKA_GROUP": events, "FEATURE_TIMEFRAMES": "1m"}
    with service(folder, url, **topics, **settings, FEATURE_REFRESH_SECONDS="60") as running:
        while running.health()["code"] != 200 or "reading partitions" not in running.log.read_text():
            time.sleep(0.2)
        _warm(kafka, bars, features)
        sent: dict[tuple[str, str], float] = {}
        found: list[float] = []
        reader = threading.Thread(target=_read, args=(kafka, features, kafka.ends(features), sent, found, rate * seconds))
        reader.start()
        _write(kafka, bars, rate, seconds, sent)
        reader.join()
    return np.asarray(found)


def _bar(minute: int, instrument: int) -> tuple[str, str, bytes]:
    ts = (datetime(2024, 1, 2, tzinfo=UTC) + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")
    name, close = f"I{instrument:04d}", 100.0 + (minute * 7 + instrument) % 13
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return name, ts, json.dumps({"instrument_id": name, "timeframe": "1m", "ts": ts, "volume": 1.0} | prices).encode()


def _warm(kafka: Kafka, bars: str, features: str) -> None:
    """Thirty bars of each instrument, and their vectors."""
    for minute in range(30):
        for instrument in range(INSTRUMENTS):
            name, _, value = _bar(minute, instrument)
            kafka.producer.produce(bars, value, name.encode())
        kafka.producer.poll(0)
    kafka.producer.flush(30)
    until = time.monotonic() + 60
    while sum(kafka.ends(features).values()) < 30 * INSTRUMENTS and time.monotonic() < until:
        time.sleep(0.2)


def _write(kafka: Kafka, bars: str, rate: int, seconds: int, sent: dict[tuple[str, str], float]) -> None:
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0, "log_level": 0})
    began = time.perf_counter()
    for number in range(rate * seconds):
        name, ts, value = _bar(30 + number // INSTRUMENTS, number % INSTRUMENTS)
        wait = began + number / rate - time.perf_counter()
        if wait > 0.0005:
            producer.poll(0)
            time.sleep(wait)
        sent[name, ts] = time.perf_counter()
        producer.produce(bars, value, name.encode())
    producer.flush(30)


def _read(kafka: Kafka, features: str, since: dict[int, int], sent: dict[tuple[str, str], float], found: list[float], wanted: int) -> None:
    client = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "bench", "log_level": 0, "fetch.wait.max.ms": 5})
    client.assign([confluent_kafka.TopicPartition(features, number, end) for number, end in since.items()])
    seen: set[tuple[str, str]] = set()
    waits = deque([time.monotonic()], 1)
    while len(found) < wanted and time.monotonic() < waits[0] + 30:
        for message in client.consume(1_000, 0.01):
            now = time.perf_counter()
            vector = json.loads(message.value())
            key = (vector["instrument_id"], vector["ts_utc"])
            if key in sent and key not in seen:
                seen.add(key)
                found.append(now - sent[key])
                waits.append(time.monotonic())
    client.close()


def _drawn(found: np.ndarray) -> str:
    """The histogram, a mark for each range of milliseconds."""
    counts, _ = np.histogram(found * 1000, EDGES)
    marks = " ▁▂▃▄▅▆▇█"
    shares = np.ceil(counts / max(1, counts.max()) * (len(marks) - 1)).astype(int)
    drawn = "".join(marks[share] for share in shares)
    return f"{EDGES[0]}..{EDGES[-2]:,} ms |{drawn}|"
