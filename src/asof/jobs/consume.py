"""Consume: enriched events from Kafka into a store, and bars where they are asked for.

1. Take a batch of messages: as many as there are, soon after the first.
2. Decode each. What cannot be used becomes a dead letter, which the brokers have acknowledged before anything moves past it.
3. In one transaction of the store, move the positions from where they were to behind the batch, and upsert its events.
4. Where the store or the brokers are away, wait, and do the same batch again; reading is paused meanwhile.

One thread takes part in the group and never waits for the store; another one writes. A reader that finds its positions moved (two held a
partition for a moment, or a commit came through and its answer did not) drops its batch and reads on from the store's.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from asof.config import Settings
from asof.errors import BrokerError, Overtaken, Stopped, StoreError
from asof.jobs.batches import BAR, EVENT, POSITIONS, Kind, Offsets, Read, Writer, position_name, positions_of, read, written_at
from asof.jobs.lag import Lag
from asof.sources.kafka import LARGEST, Brokers, Log, Partition
from asof.sources.kafka_consumer import Consumer
from asof.sources.kafka_producer import Producer
from asof.stores.store import Store
from asof.timeframes import duration

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

BATCH_MESSAGES = 5_000
"""Messages of a batch, at most."""
POLL_SECONDS = 0.2
"""How long to wait for a message before looking for other things to do."""
PATIENCE_SECONDS = 0.5
"""A batch that takes longer to write pauses the reading."""
LAG_SECONDS = 2.0
"""How often the lag is measured, and the group is told how far we are."""
STOP_SECONDS = 5.0
"""How long a batch may take to finish once we are to stop."""
FIRST_DELAY, LONGEST_DELAY = 0.2, 15.0
"""Seconds between the first two tries, and between any two."""
PARTITIONS = 6
"""Of a topic that is made because it is not there."""

T = TypeVar("T")


@dataclass(frozen=True)
class Feed:
    """Where messages come from: topics and what is in them, where dead letters go, the group that shares them, where to begin.

    `tickers` are those asked for (none for all), and rows that come more than `lateness` microseconds after they could be known are late.
    """

    kinds: Mapping[str, Kind]
    dead_letters: str
    group: str
    start: str
    tickers: frozenset[str]
    lateness: int

    @classmethod
    def of(cls, settings: Settings) -> Feed:
        """As the settings say."""
        kinds = {settings.enriched_topic: EVENT} | ({settings.bars_topic: BAR} if settings.mode == "stream" else {})
        tickers, lateness = frozenset(settings.tickers), duration(settings.allowed_lateness)
        return cls(kinds, settings.dead_letter_topic, settings.kafka_group, settings.kafka_start, tickers, lateness)


class Consumption:
    """The consumer of a feed. `run` returns when `stop` is set; it raises what no waiting mends, such as a `ConfigError`."""

    def __init__(
        self,
        feed: Feed,
        brokers: Brokers,
        store: Store,
        metrics: Metrics,
        stop: threading.Event,
        log: Log,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self._written = written
        self._feed = feed
        self._brokers = brokers
        self._store = store
        self._metrics = metrics
        self._stop = stop
        self._log = log
        self._lag = Lag(metrics)
        self._measured = 0.0
        self._positions: dict[Partition, int] = {}
        self._writer = Writer(store, Producer(brokers), feed.dead_letters, feed.lateness, metrics, log)

    def run(self) -> None:
        """Consume until `stop` is set."""
        try:
            self._again(self._consume)
        except Stopped:
            self._log.info("stopped reading", topics=list(self._feed.kinds))

    def _again(self, work: Callable[[], T]) -> T:
        """What `work` answers, tried again and again while the store or the brokers are away. Raises `Stopped` once we are to stop."""
        delays = _delays()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                return work()
            except Overtaken:
                raise
            except (StoreError, BrokerError) as error:
                if time.monotonic() > began + LONGEST_DELAY:
                    delays = _delays()  # it went well for a while
                delay = next(delays)
                (self._metrics.store_up if isinstance(error, StoreError) else self._metrics.broker_up).set(0)
                self._log.warning("trying again", error=str(error), seconds=round(delay, 1))
            self._stop.wait(delay)
        raise Stopped

    def _consume(self) -> None:
        feed = self._feed
        for topic in feed.kinds:
            self._brokers.ensure(topic, PARTITIONS)
        self._brokers.ensure(feed.dead_letters, 1, max_message_bytes=str(LARGEST))
        consumer = Consumer(self._brokers, list(feed.kinds), feed.group, self._starts, self._out_of_range)
        self._log.info("reading", topics=list(feed.kinds), group=feed.group, brokers=self._brokers.servers)
        try:
            while not self._stop.is_set():
                if batch := [read(message, feed.kinds, feed.tickers) for message in consumer.take(BATCH_MESSAGES, POLL_SECONDS)]:
                    self._finish(consumer, batch)
                self._measure(consumer, ())
        finally:
            consumer.close()

    def _starts(self, found: Collection[Partition]) -> Offsets:
        """Where to begin: at the store's positions; none of them where we are to stop."""
        try:
            starts = self._again(lambda: self._kept_starts(found))
        except Stopped:
            return {}
        self._positions |= starts
        self._metrics.store_up.set(1)
        self._log.info("reading partitions", offsets={f"{p.topic}/{p.number}": offset for p, offset in starts.items()})
        return starts

    def _kept_starts(self, found: Collection[Partition]) -> dict[Partition, int]:
        """The store's positions. Where it has none, the first one is kept at once: what it says today it may not say after a restart."""
        kept = self._store.positions(POSITIONS)
        new = self._brokers.offsets([p for p in found if position_name(p) not in kept], self._feed.start)
        if new:
            self._store.move(positions_of(new), since={})
        return new | {p: int(kept[position_name(p)]) for p in found if p not in new}

    def _out_of_range(self, partition: Partition, lost: int, first: int) -> None:
        self._metrics.offsets_out_of_range.inc()
        self._log.error(
            "the broker no longer has the messages at our position: reading on from its earliest",
            topic=partition.topic,
            partition=partition.number,
            position=lost,
            earliest=first,
        )

    def _finish(self, consumer: Consumer, batch: Sequence[Read]) -> None:
        """Have a batch written. While that takes long, or is tried again, reading is paused."""
        self._metrics.cached_events.set(len(batch))
        for one in batch:
            self._lag.waits(one.partition, written_at(one.message))
        newest = {one.partition: one.message for one in batch}
        since = {partition: self._positions[partition] for partition in newest}
        try:
            self._positions |= self._wait(consumer, lambda: self._again(lambda: self._writer.write(batch, since)), newest)
        except Overtaken as error:
            self._log.warning("reading on from the store's positions", error=str(error))
            ours = list(consumer.reached)
            consumer.restart(self._wait(consumer, lambda: self._starts(ours), newest))
        else:
            for partition, message in newest.items():
                self._lag.stored(partition, written_at(message))
            self._written()
        finally:
            self._metrics.cached_events.set(0)

    def _wait(self, consumer: Consumer, work: Callable[[], T], held: Collection[Partition]) -> T:
        """What `work` answers; reading is paused while that takes long."""
        done = _in_background(work)
        wait([done], PATIENCE_SECONDS)
        if not done.done():
            self._wait_paused(consumer, done, held)
        return done.result()

    def _wait_paused(self, consumer: Consumer, work: Future[T], held: Collection[Partition]) -> None:
        consumer.pause(True)
        self._metrics.paused.set(1)
        while not work.done():
            if self._stop.is_set() and not wait([work], STOP_SECONDS).done:
                self._log.warning("a batch is left as it is, and read again by whoever is next")
                raise Stopped
            consumer.serve(POLL_SECONDS)
            self._measure(consumer, held)
        self._metrics.paused.set(0)
        consumer.pause(False)

    def _measure(self, consumer: Consumer, held: Collection[Partition]) -> None:
        """Now and then show the lag, and tell the group. Where messages are held, it counts from what is stored, else from what is read."""
        if time.monotonic() < self._measured + LAG_SECONDS:
            return
        self._measured = time.monotonic()
        reached = {p: self._positions[p] if p in held else offset for p, offset in consumer.reached.items()}
        try:
            ends = self._brokers.offsets(reached, "latest")
            if not reached:
                self._brokers.topics()  # they answer, though nothing is ours
            consumer.tell({partition: self._positions[partition] for partition in reached})
        except BrokerError as error:
            self._metrics.broker_up.set(0)
            self._log.warning("the lag cannot be measured", error=str(error))
        else:
            self._lag.show(reached, ends)
            self._metrics.broker_up.set(1)


def _delays() -> Iterator[float]:
    """Seconds to wait before each further try; by chance a little less, so that many do not all come back at once."""
    delay = FIRST_DELAY
    while True:
        yield delay * random.uniform(0.7, 1.0)  # noqa: S311  # no secret
        delay = min(delay * 2, LONGEST_DELAY)


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread that nobody has to wait for, should the store never answer."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  # whoever asks for the result gets it
            done.set_exception(error)

    threading.Thread(target=run, name="asof-event-writer", daemon=True).start()
    return done
