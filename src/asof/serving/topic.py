"""A replica of the newest vectors that is filled from Kafka's topics of them, and follows these.

1. Read all partitions of `features.v1` and of `features.v1.<feature set>` from their first message on, without a group.
2. What of a message is served is its bytes; only what they are found by is read. Later messages of a key take the place of earlier ones,
   and one without a value takes it away. A message that cannot be used is counted, and passed over.
3. The replica is ready once it has read everything that was there when it began. Until then nobody is told of anything.
4. Brokers that are away are waited for, and what is here is served meanwhile. Where messages are gone that had not been read, deletions
   may be among them: everything is forgotten, and read again.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from asof.errors import BrokerError
from asof.jobs.lag import Lag
from asof.serving.newest import Entry, Key, Newest
from asof.sources.kafka import Brokers, Log, Message, Partition, headers_of, partition_of
from asof.sources.kafka_follower import Follower, Gap
from asof.sources.vectors import Decoder, whose

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

BATCH_MESSAGES = 2_500
"""What fits in the cache of a processor: larger batches are slower."""
POLL_SECONDS = 0.1
LOOK_SECONDS = 10.0
"""How often the brokers are asked for partitions that are new."""
AGAIN_SECONDS = 2.0
"""How soon they are asked again where they did not answer."""
MEASURE_SECONDS = 0.2
"""How often it is measured how far behind it is, while there is something to read."""
QUIET_SECONDS = 10.0
"""How long nothing more is said of messages that cannot be used; they are counted meanwhile."""

Row = tuple[str, Entry | None]
"""An instrument and its vector, or None where it has none any more."""
Rows = dict[tuple[str | None, str, str], list[Row]]
"""The rows of a topic, a feature set and a timeframe."""


class TopicReplica:
    """Fills `newest` from a topic and those named after feature sets. `run` returns when `stop` is set."""

    def __init__(self, brokers: Brokers, topic: str, newest: Newest, metrics: Metrics, stop: threading.Event, log: Log) -> None:
        self.newest = newest
        self.ready = False
        self._brokers = brokers
        self._topic = topic
        self._named = re.compile(rf"{re.escape(topic)}(?:\.(\w+))?")
        self._metrics = metrics
        metrics.vectors_held.set_function(lambda: len(newest))
        self._stop = stop
        self._log = log
        self._lag = Lag(metrics)
        self._decoder = Decoder()
        self._home: dict[Key, str | None] = {}
        self._reached: dict[Partition, int] = {}
        self._behind = 0
        self._trouble = "it has not reached the brokers yet"
        self._refused = 0
        self._said = -QUIET_SECONDS

    def report(self) -> dict[str, object]:
        """How it is: whether it is ready, how far behind the topic, and what is wrong."""
        return {
            "source": f"kafka://{self._brokers.servers}",
            "ready": self.ready,
            "vectors": len(self.newest),
            "messages_behind": self._behind,
            "seconds_behind": round(self._metrics.value(self._metrics.lag_seconds), 3),
            "messages_refused": self._refused,
            "trouble": self._trouble or None,
        }

    def run(self) -> None:
        """Fill it, and keep it filled."""
        while not self._stop.is_set():
            try:
                self._follow()
            except Gap as gap:
                self._log.error("reading everything again", error=str(gap))
                self.ready, self._reached, self._home = False, {}, {}
                self._metrics.offsets_out_of_range.inc()
                self.newest.clear()
            except BrokerError as error:
                self._failed(error)
                self._stop.wait(AGAIN_SECONDS)

    def _follow(self) -> None:
        follower = Follower(self._brokers, lambda name: bool(self._named.fullmatch(name)), self._reached)
        try:
            look_at = measure_at = 0.0
            while not self._stop.is_set():
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._look(follower)
                if batch := follower.take(BATCH_MESSAGES, POLL_SECONDS):
                    self._take(batch)
                if not batch or time.monotonic() >= measure_at:
                    measure_at = time.monotonic() + MEASURE_SECONDS
                    self._reached = follower.reached
                    self._measure(follower)
        finally:
            follower.close()

    def _look(self, follower: Follower) -> float:
        """Take on new partitions; after how many seconds to look again."""
        try:
            follower.look()
        except BrokerError as error:
            self._failed(error)
            return AGAIN_SECONDS
        self._trouble = "" if follower.reached else f"there is no topic {self._topic} yet"
        self._metrics.broker_up.set(1)
        return LOOK_SECONDS if follower.reached else AGAIN_SECONDS

    def _failed(self, error: BrokerError) -> None:
        self._trouble = str(error)
        self._metrics.broker_up.set(0)
        self._log.warning("trying again", error=str(error), seconds=AGAIN_SECONDS)

    def _measure(self, follower: Follower) -> None:
        """How far behind it is, and whether it has caught up with what was there when it began."""
        ends = follower.ends()
        self._behind = sum(max(0, end - follower.reached[partition]) for partition, end in ends.items())
        self._lag.show(follower.reached, ends)
        if not self.ready and follower.reached and follower.caught_up:
            self.ready = True
            self._log.info("caught up", vectors=len(self.newest), partitions=len(ends))
        self._metrics.replica_ready.set(int(self.ready))

    def _take(self, batch: list[Message]) -> None:
        """Take messages in, in their order."""
        rows: Rows = defaultdict(list)
        decode, shared = self._decoder.vector, self.newest.shared
        for message in batch:
            try:
                value, headers, topic = message.value(), message.headers(), message.topic()
                if value is None:
                    self._read_deletion(message, rows)
                elif (found := decode(value, headers_of(message) if headers else None)) is not None:
                    version, timeframe, instrument, ts, known, line = found
                    at = topic, version, timeframe
                    if at not in rows:
                        self._meet(*at)
                    rows[at].append((shared(instrument, instrument), Entry(ts, known, line)))
            except ValueError as error:
                self._refuse(message, error)
        for (topic, *key), some in rows.items():
            self._put(Key(*key), self._of_home(topic, Key(*key), some))
        last = batch[-1]
        self._lag.stored(partition_of(last), last.timestamp()[1] / 1_000)

    def _read_deletion(self, message: Message, rows: Rows) -> None:
        instrument, timeframe = whose(message.key())
        topic = message.topic()
        for key in self._kept_by(topic, timeframe):
            rows[topic, *key].append((instrument, None))

    def _meet(self, topic: str | None, version: str, timeframe: str) -> None:
        """A feature set and timeframe of a batch. Raises `ValueError` where it is not in its topic."""
        if topic not in (self._topic, f"{self._topic}.{version}"):
            raise ValueError(f"it is of the feature set {version}")
        self._home.setdefault(Key(version, timeframe), topic)

    def _kept_by(self, topic: str | None, timeframe: str) -> list[Key]:
        """What a message without a value is about: it says a topic and a timeframe, and no feature set."""
        named = self._named.fullmatch(topic or "")
        assert named is not None
        if named[1]:
            return [Key(named[1], timeframe)]
        return [key for key, home in self._home.items() if home == topic and key.timeframe == timeframe]

    def _of_home(self, topic: str | None, key: Key, rows: list[Row]) -> list[Row]:
        """What counts of a topic. Where vectors of one set are in two, as after a change of settings, that with the newer ones has it."""
        if self._home.setdefault(key, topic) == topic:
            return rows
        held = self.newest.of(*key) or {}
        newer = [(name, entry) for name, entry in rows if entry is not None and (name not in held or entry.ts > held[name].ts)]
        if newer:
            self._home[key] = topic
        return list(newer)

    def _put(self, key: Key, rows: list[Row]) -> None:
        last = dict(rows)
        gone = [name for name, entry in last.items() if entry is None]
        if not self.ready:
            self.newest.fill(*key, [(name, entry) for name, entry in last.items() if entry is not None])
        else:
            held = self.newest.of(*key) or {}
            self.newest.put(*key, [(name, e) for name, e in rows if e is not None and (e is last[name] or not _older(e, held.get(name)))])
        if gone:
            self.newest.drop(*key, gone)

    def _refuse(self, message: Message, error: ValueError) -> None:
        """A message that cannot be used."""
        self._refused += 1
        self._metrics.messages_refused.labels("no_vector").inc()
        if time.monotonic() >= self._said + QUIET_SECONDS:
            self._said = time.monotonic()
            where = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
            self._log.warning("a message is no vector", **where, error=str(error), refused=self._refused)


def _older(entry: Entry, held: Entry | None) -> bool:
    """Whether it is a correction of an older vector, which the newest one follows."""
    return held is not None and entry.ts < held.ts
