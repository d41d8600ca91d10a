"""Events from Kafka into the table of events in PostgreSQL: this process has one core, broker and database have what is left.

Timed is the whole way: reading, holding each message to its schema, and writing it with the offset in one transaction. The topic is
written before the clock starts. Beside it, reading the messages and nothing else, and what one would write by hand.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import confluent_kafka
import psycopg
import structlog
from measure import Candidate, Figure, Result, Settings, take_turns
from postgres_io import private_server

from asof.config import Settings as Configuration
from asof.jobs.consume import Consumption, Feed
from asof.sources.kafka import Brokers
from asof.stores.postgres import PostgresStore
from asof.telemetry.metrics import Metrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.jobs.streams import message
from tests.servers import kafka as brokers
from tests.servers.kafka import Kafka
from tests.servers.postgres import Postgres

TARGET = 10_000
BY_HAND = """
INSERT INTO events (instrument_id, event_id, enriched_at_utc, event_time_utc, score, confidence, scored_at_utc)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (instrument_id, event_id) DO UPDATE SET score = excluded.score, confidence = excluded.confidence
"""


@dataclass
class Way:
    """A topic that is full of events, and a new database for each turn."""

    kafka: Kafka
    postgres: Postgres
    topic: str
    events: int
    url: str = ""

    def renew(self) -> None:
        """A database without events."""
        self.url = self.postgres.database()

    def consume(self) -> int:
        """As the service does it; how many events are there then."""
        group = {"kafka_group": self.kafka.name(), "enriched_topic": self.topic, "dead_letter_topic": f"{self.topic}.dlq"}
        settings = Configuration(kafka_bootstrap_servers=self.kafka.bootstrap, **group)
        stop, metrics, log = threading.Event(), Metrics(), structlog.get_logger()
        with closing(PostgresStore(self.url)) as store, one_core():
            job = Consumption(Feed.of(settings), Brokers(settings, log), store, metrics, stop, log)
            thread = threading.Thread(target=job.run)
            thread.start()
            while sum(map(int, store.positions(f"kafka/{self.topic}/").values())) < self.events:
                stop.wait(0.02)
        stop.set()
        thread.join()
        return self.stored()

    def stored(self) -> int:
        """How many events the database has."""
        return int(str(self.postgres.run("SELECT count(*) FROM events", self.url)[0][0]))

    def read(self) -> int:
        """Reading alone."""
        with one_core():
            return sum(map(len, self._batches()))

    def by_hand(self) -> int:
        """json.loads and executemany, a batch in a transaction."""
        with one_core(), psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            for batch in self._batches():
                cursor.executemany(BY_HAND, [row for one in batch for row in _rows(json.loads(one.value()))])
                connection.commit()
        return self.stored()

    def _batches(self) -> Iterator[list[confluent_kafka.Message]]:
        client = confluent_kafka.Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "bench", "enable.auto.commit": False})
        client.assign([confluent_kafka.TopicPartition(self.topic, number, 0) for number in self.kafka.ends(self.topic)])
        left = self.events
        while left:
            batch = [one for one in client.consume(5_000, 1) if not one.error()]
            left -= len(batch)
            yield batch
        client.close()


def _rows(event: dict[str, object]) -> list[tuple[object, ...]]:
    at, scored = datetime.fromisoformat(event["enriched_at_utc"]), event["sentiment"]
    told = (event["event_id"], at, event["event_time_utc"], scored["score"], scored["confidence"], at)
    return [(ticker["symbol"], *told) for ticker in event["tickers"]]


@contextmanager
def one_core() -> Iterator[None]:
    """This thread and those that it starts, on one processor, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(settings: Settings) -> Result:
    """Measure it."""
    events = max(1_000, round(200_000 * settings.scale))
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with private_server() as postgres, brokers.mocked() if brokers.missing() else brokers.private() as kafka:
        topic = kafka.topic()
        kafka.write(topic, *(message(number, f"T{number % 500}") for number in range(events)))
        way = Way(kafka, postgres, topic, events)
        candidates = {
            "asof": Candidate(way.consume, way.renew),
            "reading alone": Candidate(way.read),
            "json and executemany": Candidate(way.by_hand, way.renew),
        }
        counts: dict[str, int] = {}
        seconds = take_turns(candidates, settings.repeat, counts.__setitem__)
    rate = events / seconds["asof"]
    return Result(
        f"{events:,} events from Kafka into PostgreSQL, on one core",
        [Figure(name, found, events) for name, found in seconds.items()],
        f"at least {TARGET:,} events a second",
        f"{rate:,.0f} events a second",
        rate >= TARGET,
        [f"{name} has {count} events" for name, count in counts.items() if count != events],
    )
