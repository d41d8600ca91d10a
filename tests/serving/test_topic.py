"""A replica over a real broker: filled from the topics of vectors, and following them."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest
import structlog
from confluent_kafka.admin import NewTopic

from asof import FeatureSet, bars
from asof.config import Settings
from asof.jobs.live import Live, Plan, Several
from asof.jobs.publish import Publisher, key_of
from asof.serving import topic as replicas
from asof.serving.newest import Newest
from asof.serving.topic import TopicReplica
from asof.sources.kafka import Brokers, Silent
from asof.sources.kafka_producer import Producer
from asof.stores.store import BARS_TABLE
from asof.stores.urls import open_store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.jobs.streams import eventually
from tests.servers.kafka import Kafka, private
from tests.serving.test_newest import Clock
from tests.stores.rows import bar, bars_of, minute

SETS = (FeatureSet("served", {"close": bars.close + 0}), FeatureSet("doubled", {"twice": bars.close * 2}))


@dataclass
class Follow:
    """A replica that runs."""

    replica: TopicReplica
    stop: threading.Event = field(default_factory=threading.Event)

    def held(self, version: str = "fs", timeframe: str = "1m") -> dict[str, object]:
        return {name: json.loads(found.line)["ts_utc"][14:16] for name, found in (self.replica.newest.of(version, timeframe) or {}).items()}

    def told(self) -> list[tuple[str, str | None]]:
        told = self.replica.newest.recent.after(0, 1000) or []
        return [(one.instrument, json.loads(one.line)["ts_utc"][14:16] if one.line else None) for one in told]


def vector(instrument: str, n: int, version: str = "fs", timeframe: str = "1m", **changes: object) -> bytes:
    ts = minute(n).isoformat().replace("+00:00", "Z")
    found = {"schema_version": "features.v1", "instrument_id": instrument, "timeframe": timeframe, "ts_utc": ts}
    return json.dumps(found | {"feature_set_version": version, "features": {"x": 1.0}, "quality_flags": []} | changes).encode()


def write(kafka: Kafka, topic: str, *names: tuple[str, int | None]) -> None:
    """Vectors of one-minute bars, and None for a deletion."""
    for name, n in names:
        kafka.write(topic, None if n is None else vector(name, n), key=key_of(name, "1m"))


@contextmanager
def following(kafka: Kafka, topic: str, wait: bool = True, **kafka_settings: str) -> Iterator[Follow]:
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap, kafka=kafka_settings)
    stop, metrics = threading.Event(), Metrics()
    replica = TopicReplica(Brokers(settings, Silent()), topic, Newest(), metrics, stop, structlog.get_logger("test"))
    thread = threading.Thread(target=replica.run)
    thread.start()
    try:
        if wait:
            eventually(lambda: replica.ready)
        yield Follow(replica, stop)
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_it_is_filled_with_the_last_message_of_each_key_and_follows_what_comes(kafka: Kafka) -> None:
    topic = kafka.topic()
    write(kafka, topic, *((name, n) for n in range(3) for name in "ABC"), ("C", None), ("D", 1), ("D", None), ("D", 2))
    with following(kafka, topic) as found:
        assert found.held() == {"A": "02", "B": "02", "D": "02"}
        assert found.told() == []
        write(kafka, topic, ("A", 3), ("B", None), ("E", 1))
        eventually(lambda: found.held() == {"A": "03", "D": "02", "E": "01"})
        assert sorted(found.told(), key=str) == [("A", "03"), ("B", None), ("E", "01")]
        eventually(lambda: found.replica.report()["messages_behind"] == 0)
        assert found.replica.report()["trouble"] is None


def test_a_topic_without_messages_is_caught_up_with_at_once_and_one_that_comes_later_is_found(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.needs_real("topics of the mock cluster are made by asking for them")
    monkeypatch.setattr(replicas, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(replicas, "AGAIN_SECONDS", 0.3)
    topic = kafka.name()
    with following(kafka, topic, wait=False) as found:
        eventually(lambda: "there is no topic" in str(found.replica.report()["trouble"]))
        assert not found.replica.ready
        made = confirmed(kafka, topic)
        eventually(lambda: found.replica.ready)
        confirmed(kafka, f"{made}.other")
        kafka.write(f"{made}.other", vector("A", 1, "other"), key=b"A|1m")
        eventually(lambda: found.held("other") == {"A": "01"})


def confirmed(kafka: Kafka, topic: str) -> str:
    """A topic of this name."""
    kafka.admin.create_topics([NewTopic(topic, 2)])[topic].result()
    return topic


def test_messages_that_are_no_vectors_are_counted_and_passed_over(kafka: Kafka) -> None:
    topic = kafka.topic()
    bad = [b"", b"{", b"\xff", b"[]", b'"x"', vector("A", 1, timeframe="5x"), vector("A", 1, schema_version="features.v2")]
    bad += [vector("A", 1, ts_utc="yesterday"), vector("A", 1, ts_utc="2024-01-01"), vector("A", 1).replace(b'"features"', b'"f"')]
    kafka.write(topic, *bad, key=b"A|1m")
    kafka.write(topic, None, key=b"no key")
    kafka.write(topic, vector("A", 1), key=b"A|1m", headers=[("asof-available-at", b"soon")])
    kafka.write(topic, vector("R", 1), key=b"R|1m", headers=[("asof-replay", b"true")])
    kafka.write(topic, json.dumps(json.loads(vector("A", 2)), indent=1).encode(), key=b"A|1m")
    with following(kafka, topic) as found:
        assert found.held() == {"A": "02"}
        assert found.replica.report()["messages_refused"] == len(bad) + 2
        assert b"\n" not in found.replica.newest.entry("fs", "1m", "A").line


def test_a_replica_holds_what_the_loop_holds_whatever_is_told(kafka: Kafka) -> None:
    """Corrections, withdrawals, several sets, and vectors that can be known later: by the topics, or beside the loop."""
    topic, clock = kafka.topic(), Clock(minute(20))
    topics = {"served": topic, "doubled": f"{topic}.doubled"}
    if kafka.real:
        confirmed(kafka, topics["doubled"])
    else:
        kafka.admin.list_topics(topics["doubled"], timeout=10)
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap)
    with closing(open_store("duckdb://")) as store:
        newest = Newest(clock.micros)
        publisher = Publisher(Producer(Brokers(settings, Silent())), topics)
        plan = Plan(SETS, ("1m",), None, "test", 60)
        loop = Live(store, plan, Metrics(), Health("served", "test", 60), clock, published=Several((newest, publisher)))

        def cycle(*rows: dict[str, object]) -> None:
            store.upsert(BARS_TABLE, bars_of(*rows), clock.now)
            loop.cycle()

        cycle(*(bar(n, float(n + 1), name) for n in range(5) for name in "ABC"))
        with following(kafka, topic) as found:
            found.replica.newest._clock = clock.micros

            def same() -> bool:
                return all(dict(found.replica.newest.of(s.version, "1m") or {}) == newest.of(s.version, "1m") for s in SETS)

            eventually(same)
            cycle(bar(1, 9.0), bar(4, 7.0, "B"), bar(5, 7.0, "D"), bar(5, 3.0, "C", available_at=minute(25)))
            eventually(same)
            store.withdraw(BARS_TABLE, bars_of(bar(4), bar(5, 1.0, "D")).select(BARS_TABLE.key), clock.now)
            loop.cycle()
            eventually(same)
            clock.now = minute(25)
            eventually(lambda: found.held("doubled") == {"A": "03", "B": "04", "C": "05"})
            assert same()


def test_where_a_set_is_in_two_topics_the_one_with_the_newer_vectors_counts(kafka: Kafka) -> None:
    kafka.needs_real("topics of the mock cluster are made by asking for them")
    first = kafka.topic()
    own = confirmed(kafka, f"{first}.fs")
    for name, n in (("A", 1), ("B", 9)):
        kafka.write(first, vector(name, n), key=key_of(name, "1m"))
    with following(kafka, first) as found:
        assert found.held() == {"A": "01", "B": "09"}
        kafka.write(own, vector("A", 5), vector("B", 5), key=b"A|1m")
        eventually(lambda: found.held()["A"] == "05")
        kafka.write(first, vector("A", 2), key=b"A|1m")
        kafka.write(own, vector("C", 6), key=b"C|1m")
        eventually(lambda: "C" in found.held())
        assert found.held() == {"A": "05", "B": "09", "C": "06"}


@pytest.mark.slow
def test_it_serves_on_while_the_broker_is_away_says_so_and_goes_on_after(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with private() as kafka:
        topic = kafka.topic()
        write(kafka, topic, ("A", 1), ("B", 1))
        with following(kafka, topic, **{"reconnect.backoff.max.ms": "500"}) as found:
            looked(found.replica)
            assert kafka.server is not None
            kafka.server.end(signal.SIGKILL)
            eventually(lambda: found.replica.report()["trouble"], 30)
            assert found.replica.ready
            assert found.held() == {"A": "01", "B": "01"}
            kafka.server.start()
            write(kafka, topic, ("A", 2), ("C", 2))
            eventually(lambda: found.held() == {"A": "02", "B": "01", "C": "02"}, 40)
            eventually(lambda: found.replica.report()["trouble"] is None, 20)


def looked(replica: TopicReplica) -> None:
    """From now on it looks for new partitions every half second."""
    look = replica._look
    replica._look = lambda follower: min(0.5, look(follower))  # type: ignore[method-assign]


def test_where_messages_are_gone_that_were_not_read_all_is_forgotten_and_read_again(kafka: Kafka) -> None:
    kafka.needs_real("the mock cluster deletes nothing")
    topic = kafka.topic(1)
    write(kafka, topic, ("A", 1), ("B", 1))
    with following(kafka, topic) as found:
        partition = next(iter(found.replica._reached))
        epoch = found.replica.newest.recent.epoch
        found.replica.newest.fill("fs", "1m", [("Z", found.replica.newest.entry("fs", "1m", "A"))])
    settings = Settings(kafka_bootstrap_servers=kafka.bootstrap)
    replica, stop = found.replica, threading.Event()
    replica._stop, replica._reached, replica._brokers = stop, {partition: 99}, Brokers(settings, Silent())
    thread = threading.Thread(target=replica.run)
    thread.start()
    eventually(lambda: replica.newest.recent.epoch != epoch and replica.ready)
    stop.set()
    thread.join(20)
    assert found.held() == {"A": "01", "B": "01"}
