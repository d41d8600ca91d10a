"""A replica that begins with nothing: from its start until it has every newest vector of the topics, and what it holds them in.

`fs_v1` vectors of 100,000 instruments over several timeframes lie in a compacted topic of six partitions. The peer is the loop that one
writes first: `poll`, and `json.loads` of each message. The replica has the machine to itself but for the broker.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import confluent_kafka
from measure import Figure, Result, Settings

from asof.config import Settings as Configured
from asof.serving.newest import Newest
from asof.serving.topic import TopicReplica
from asof.sources.kafka import Brokers, Silent
from asof.telemetry.metrics import Metrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.servers import kafka as brokers
from tests.servers.kafka import Kafka

VECTORS, INSTRUMENTS, PEER = 2_000_000, 100_000, 100_000
WANTED, SECONDS = 10_000_000, 60
LINE = (
    '{{"schema_version":"features.v1","feature_id":"0f0f0f0f-0000-5000-8000-{number:012d}","instrument_id":"{name}","timeframe":"{frame}"'
    ',"ts_utc":"2024-01-02T10:00:00Z","feature_set_version":"fs_v1","features":{{"ret_1":0.0012345678901{digits},"ret_5":-0.0034567890{digits}'
    ',"vol_20":0.0123456789{digits},"event_count_1h":3.0,"sentiment_mean_1h":0.1234567890{digits},"sentiment_conf_mean_1h":0.8765432{digits}'
    ',"sentiment_weighted_1h":0.12345678{digits},"sentiment_std_1h":0.234567{digits}}},"quality_flags":["LOW_SENTIMENT_CONFIDENCE"]'
    ',"computed_at_utc":"2024-01-02T10:01:00.123456Z","pipeline_version":"feature-store.v1.0","source_refs":{{"ohlcv_count":21'
    ',"event_count":3,"event_window_start":"2024-01-02T09:00:00Z","event_window_end":"2024-01-02T10:00:00Z"}}}}'
)


def run(settings: Settings) -> Result:
    """Measure it."""
    vectors = max(2_000, round(VECTORS * settings.scale))
    with brokers.mocked() if brokers.missing() else brokers.private() as kafka:
        topic = kafka.topic(6, cleanup_policy="compact") if kafka.real else kafka.topic()
        _write(kafka, topic, vectors)
        before, began = _memory(), time.perf_counter()
        newest = _filled(kafka, topic)
        seconds, each = time.perf_counter() - began, (_memory() - before) / len(newest)
        some = min(vectors, PEER)
        peer = _plain(kafka, topic, some)
    rate = len(newest) / seconds
    line = len(newest.entry("fs_v1", "1m", "I0000000").line)
    problems = [] if len(newest) == vectors else [f"{len(newest)} of {vectors} vectors are held"]
    return Result(
        f"a replica filled from Kafka with {vectors:,} vectors of {line} bytes, until it is ready",
        [
            Figure("asof", seconds, len(newest), f"{each:.0f} bytes a vector", f"{WANTED / rate:.0f} s for {WANTED:,}, extrapolated"),
            Figure("poll and json.loads", peer, some, note=f"{some:,} vectors; {WANTED * peer / some:.0f} s for {WANTED:,}"),
        ],
        f"{WANTED:,} vectors within {SECONDS} s",
        f"{WANTED / rate:.0f} s for {WANTED:,}, extrapolated from {vectors:,}",
        WANTED / rate <= SECONDS,
        problems,
    )


def _write(kafka: Kafka, topic: str, vectors: int) -> None:
    """One vector of each key."""
    for number in range(vectors):
        name, frame = f"I{number % INSTRUMENTS:07d}", f"{number // INSTRUMENTS + 1}m"
        line = LINE.format(number=number, name=name, frame=frame, digits=number % 1_000_000 + 1_000_000)
        kafka.producer.produce(topic, line.encode(), f"{name}|{frame}".encode())
        if number % 10_000 == 0:
            kafka.producer.flush()
    kafka.producer.flush()


def _filled(kafka: Kafka, topic: str) -> Newest:
    """What a replica holds once it is ready."""
    stop, newest = threading.Event(), Newest()
    settings = Configured(kafka_bootstrap_servers=kafka.bootstrap)
    replica = TopicReplica(Brokers(settings, Silent()), topic, newest, Metrics(), stop, Silent())
    thread = threading.Thread(target=replica.run)
    thread.start()
    while not replica.ready:
        time.sleep(0.005)
    stop.set()
    thread.join()
    return newest


def _plain(kafka: Kafka, topic: str, vectors: int) -> float:
    """How long the loop that one writes first takes."""
    client = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "plain", "enable.auto.commit": False})
    partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
    client.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
    held: dict[tuple[str, str], object] = {}
    began = time.perf_counter()
    while len(held) < vectors:
        message = client.poll(10)
        if message is not None and not message.error():
            found = json.loads(message.value())
            held[found["instrument_id"], found["timeframe"]] = found
    seconds = time.perf_counter() - began
    client.close()
    return seconds


def _memory() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
