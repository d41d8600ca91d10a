"""A replay that is published: to a topic of its own, what the live service would have published, in that order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from asof import FeatureSet, bars, connect, events
from asof.config import Settings
from asof.errors import BrokerError, DefinitionError
from asof.feature_store import FeatureStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Selection, revised, vectors_table
from tests.cli.conftest import Command, asof, folder
from tests.servers.kafka import Kafka
from tests.stores.rows import NOON, bar, bars_of, event, events_of, minute

__all__ = ["asof", "folder"]

SET = FeatureSet("published", {"gain": bars.close / bars.close.lag(1) - 1, "mood": events.window("3m").sentiment.mean()})
Message = tuple[str, str, dict[str, float]]
"""Its key, the open of the bar, and the features."""


@pytest.fixture
def source(kafka: Kafka) -> Iterator[FeatureStore]:
    """Bars of A and B, an event that came late, two corrections, one of them of the newest bar by then."""
    kafka.needs_real("the mock cluster makes every topic that it is asked for")
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap)  # type: ignore[call-arg]
    with connect("duckdb://") as opened:
        store = opened.store
        store.upsert(BARS_TABLE, bars_of(*(bar(n, math.exp(n / 10), name) for name in "AB" for n in range(8))), NOON)
        store.upsert(EVENTS_TABLE, events_of(event("x", 3.2, scored_at_utc=minute(6.5))), NOON)
        store.upsert(BARS_TABLE, bars_of(bar(2, 3.0)), NOON + timedelta(minutes=1))
        store.upsert(BARS_TABLE, bars_of(bar(7, 4.0, "B")), NOON + timedelta(minutes=2))
        yield FeatureStore(store, settings)


def messages(kafka: Kafka, topic: str) -> list[Message]:
    """What was published, under the header of a replay."""
    found = kafka.read(topic)
    assert all(message.headers() == [("asof-replay", b"true")] for message in found)
    vectors = [json.loads(message.value()) for message in found]
    return [(m.key().decode(), v["ts_utc"], v["features"]) for m, v in zip(found, vectors, strict=True)]


def as_message(row: dict[str, object]) -> Message:
    """What is said of a stored vector."""
    ts = row["ts"]
    assert isinstance(ts, datetime)
    features = {name: row[name] for name in SET.features if row[name] is not None}
    return f"{row['instrument_id']}|1m", f"{ts:%Y-%m-%dT%H:%M:%SZ}", features  # type: ignore[return-value]


def expected(stored: FeatureStore) -> list[Message]:
    """The oracle: every revision as it became known, and behind one that is not the newest of its instrument, the newest again."""
    table = vectors_table(SET)
    rows = [row for t in stored.store.revisions(table, Selection()) for row in t.select(revised(table).names).to_pylist()]
    newest: dict[str, dict[str, object]] = {}
    said = []
    for _, group in groupby(sorted(rows, key=lambda r: (r["known_from"], r["ts"], r["instrument_id"])), lambda r: r["known_from"]):
        made = list(group)
        last = {row["instrument_id"]: row for row in made}
        again = sorted(name for name, row in last.items() if name in newest and row["ts"] < newest[name]["ts"])
        said += made + [newest[name] for name in again]
        newest |= {name: row for name, row in last.items() if name not in again}
    return [as_message(row) for row in said if any(row[name] is not None for name in SET.features)]


def test_every_vector_is_published_as_it_came_to_be(kafka: Kafka, source: FeatureStore) -> None:
    topic = kafka.topic(partitions=1)
    with connect("duckdb://") as scratch:
        done = source.replay(SET, "1m", scratch, topic=topic)
        assert done.changes.corrected > 0
        found = messages(kafka, topic)
        assert found == expected(scratch)
    assert [key for key, ts, _ in found if ts.startswith("2024-01-01T00:01")] == ["A|1m", "B|1m"]
    source.backfill(SET, "1m")
    for row in source.latest(SET, "1m").to_arrow().to_pylist():
        assert [message for message in found if message[0] == f"{row['instrument_id']}|1m"][-1] == as_message(row)


def test_from_a_moment_on_the_newest_come_first(kafka: Kafka, source: FeatureStore) -> None:
    topic = kafka.topic(partitions=1)
    with connect("duckdb://") as scratch:
        source.replay(SET, "1m", scratch, topic=topic, start="2024-01-01T00:05:30Z", end="2024-01-01T00:06:10Z", instruments=["A", "B"])
    assert [(key, ts[11:16]) for key, ts, _ in messages(kafka, topic)] == [(f"{n}|1m", f"00:0{k}") for k in (4, 5) for n in "AB"]


def test_at_a_pace_the_same_is_published(kafka: Kafka, source: FeatureStore) -> None:
    topic = kafka.topic(partitions=1)
    with connect("duckdb://") as scratch:
        source.replay(SET, "1m", scratch, topic=topic, end="2024-01-01T00:06:10Z", pace=1200.0)
        assert messages(kafka, topic) == expected(scratch)


@pytest.mark.parametrize("topic", ["features.v1", "features.v1.published", "market.ohlcv.v1", "events.enriched.v1", "features.dlq.v1"])
def test_a_topic_of_the_service_is_refused(source: FeatureStore, topic: str) -> None:
    with (
        connect("duckdb://") as scratch,
        pytest.raises(DefinitionError, match=rf"is a topic of the service.*name another, such as {topic}"),
    ):
        source.replay(SET, "1m", scratch, topic=topic)


def test_a_topic_with_messages_is_refused_and_one_that_is_not_there_is_made(kafka: Kafka, source: FeatureStore) -> None:
    topic = kafka.name()
    with connect("duckdb://") as scratch:
        source.replay(SET, "1m", scratch, topic=topic)
    assert len(kafka.ends(topic)) == 6
    with connect("duckdb://") as scratch, pytest.raises(BrokerError, match="has messages already: a replay goes into a topic of its own"):
        source.replay(SET, "1m", scratch, topic=topic)


def test_a_broker_that_refuses_ends_the_replay_with_its_reason(kafka: Kafka, source: FeatureStore) -> None:
    topic = kafka.topic(partitions=1, max_message_bytes="100")
    with connect("duckdb://") as scratch, pytest.raises(BrokerError, match=r"raise its max.message.bytes"):
        source.replay(SET, "1m", scratch, topic=topic)


def test_the_command_publishes_to_the_topic_that_is_named(
    kafka: Kafka, asof: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.needs_real("the mock cluster makes every topic that it is asked for")
    topic = kafka.topic(partitions=1)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    (folder / "bars.csv").write_text("instrument_id,ts,close\n" + "".join(f"A,2024-01-0{n}T00:00:00Z,{n}\n" for n in (1, 2, 3)))
    asof("ingest", "bars", "bars.csv", "-t", "1d")
    done = asof("replay", "fs_v1", "-t", "1d", "--topic", topic, "--speed", "max")
    assert (done.code, f"in memory and published to {topic}" in done.text) == (0, True)
    assert len(kafka.read(topic)) == 3
    refused = asof("replay", "fs_v1", "-t", "1d", "--topic", "features.v1")
    assert (refused.code, "name another, such as features.v1.replay" in refused.said) == (3, True)
