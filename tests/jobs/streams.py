"""Streams of enriched events for the tests: messages, and the consumer that runs while a test looks on."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asof.config import Settings
from asof.errors import AsofError
from asof.jobs.consume import Consumption, Feed
from asof.sources.kafka import Brokers
from asof.stores.store import EVENTS_TABLE, Store
from asof.telemetry.metrics import Metrics
from tests.servers.kafka import Kafka
from tests.stores.rows import rows_in

WHOLE = json.loads((Path(__file__).parents[2] / "schemas/samples/enriched_event_v1_valid.json").read_text())
QUICK = {"session.timeout.ms": "1000", "heartbeat.interval.ms": "200", "topic.metadata.refresh.interval.ms": "1000"}
"""A group that notices within a second that a member is gone."""

Key = tuple[str, str]
"""An instrument and an event's id."""


def event(number: int, symbol: str = "AAPL", **changes: object) -> dict[str, Any]:
    """A valid event; each number is another one."""
    tickers = [{"symbol": symbol, "confidence": 0.9, "method": "ner"}]
    return WHOLE | {"event_id": identity(number), "tickers": tickers} | changes


def identity(number: int) -> str:
    """The id of an event."""
    return str(uuid.UUID(int=number))


def message(number: int, symbol: str = "AAPL", **changes: object) -> bytes:
    """An event as bytes."""
    return json.dumps(event(number, symbol, **changes)).encode()


def keys(*numbers: int, symbol: str = "AAPL") -> set[Key]:
    """The keys of events."""
    return {(symbol, identity(number)) for number in numbers}


def stored(store: Store) -> list[Key]:
    """The keys of what is in a store, in order."""
    return [(str(row["instrument_id"]), str(row["event_id"])) for row in rows_in(store, EVENTS_TABLE)]


def settings_of(broker: Kafka, topic: str, **more: object) -> Settings:
    """The settings of a consumer, with a dead-letter topic and a group of its own."""
    ours = {"kafka_bootstrap_servers": broker.bootstrap, "enriched_topic": topic, "dead_letter_topic": f"{topic}.dlq", "kafka_group": topic}
    properties = (QUICK if broker.real else {}) | more.pop("kafka", {})  # type: ignore[operator]  # a dictionary; mock groups are slow
    return Settings(**(ours | {"kafka": properties} | more))  # type: ignore[arg-type]  # pydantic reads them


class Lines:
    """A log that a test can look into."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **facts: object) -> None:
        """Note a line."""
        self.lines.append((event, facts))

    warning = error = info

    def says(self, text: str) -> bool:
        """Whether a line holds a text."""
        return any(text in f"{event} {facts}" for event, facts in self.lines)


class Running:
    """A consumer in a thread of its own."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store, self.metrics, self.log, self.stop = store, Metrics(), Lines(), threading.Event()
        self.failure: BaseException | None = None
        self._job = Consumption(Feed.of(settings), Brokers(settings, self.log), store, self.metrics, self.stop, self.log)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._job.run()
        except AsofError as error:
            self.failure = error

    def end(self) -> float:
        """Stop it; how many seconds that took."""
        began = time.monotonic()
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return time.monotonic() - began

    def value(self, name: str, **labels: str) -> float:
        """A metric's value: the sum over all labels that are not given, for there may be none yet."""
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == f"feature_store_{name}" and labels.items() <= sample.labels.items()
        )


@contextmanager
def running(settings: Settings, store: Store) -> Iterator[Running]:
    """A consumer that runs for the block."""
    consumer = Running(settings, store)
    try:
        yield consumer
    finally:
        consumer.end()


def eventually(holds: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come to hold"
        time.sleep(0.02)


class Stream:
    """A producer that writes numbered events, with a bad message now and then, until it is ended."""

    def __init__(self, kafka: Kafka, topic: str, make: Callable[[int], bytes]) -> None:
        self.count = self.junk = 0
        self._kafka, self._topic, self._make = kafka, topic, make
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            for _ in range(20):
                self._kafka.producer.produce(self._topic, self._make(self.count), str(self.count))
                self.count += 1
            self._kafka.producer.produce(self._topic, b"junk")
            self.junk += 1
            self._kafka.producer.poll(0)

    def end(self) -> None:
        """Stop writing; all that was written is acknowledged."""
        self._ended.set()
        self._thread.join()
        assert self._kafka.producer.flush(60) == 0


@contextmanager
def streaming(kafka: Kafka, topic: str, make: Callable[[int], bytes] = message) -> Iterator[Stream]:
    """A stream for the block, which has been written whole after it."""
    stream = Stream(kafka, topic, make)
    try:
        yield stream
    finally:
        stream.end()


def all_there(store: Store, stream: Stream, kafka: Kafka, topic: str) -> None:
    """Every event once, none else, and every bad message among the dead letters."""
    ends = {f"kafka/{topic}/{number}": str(end) for number, end in kafka.ends(topic).items() if end}
    eventually(lambda: store.positions(f"kafka/{topic}/").items() >= ends.items(), 60)
    assert sorted(stored(store)) == sorted(keys(*range(stream.count)))
    places = {(m.headers()[1][1], m.headers()[2][1]) for m in kafka.read(f"{topic}.dlq")}
    assert len(places) == sum(m.value() == b"junk" for m in kafka.read(topic)) >= stream.junk
