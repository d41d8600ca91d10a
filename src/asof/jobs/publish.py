"""Publishing: vectors to a topic, once they are stored. A message's key is instrument and timeframe, its value `features.v1`.

Where a vector could be known at another time than when a bar of its length ends, a header says so, for those who serve from the topic.

The topic is compacted, so the last message of a key has to be its newest vector. What is published after older vectors were corrected, or
the newest was withdrawn, is therefore followed by the newest once more. Whoever follows changes tells of them before it moves on: after
a crash the same is told again, and a message that is there twice says the same.

A replay is published by the same code, to a topic of its own: `for_replay` refuses those of the service, and any that has messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from asof.config import Settings
from asof.errors import BrokerError, DefinitionError
from asof.jobs.formats import lines, recorded
from asof.jobs.work import Work
from asof.records import micros
from asof.sources.dead_letters import Header
from asof.sources.kafka import Brokers, Silent
from asof.sources.kafka_producer import Outgoing, Producer
from asof.sources.vectors import AVAILABLE_AT, REPLAYED
from asof.stores.store import Selection
from asof.timeframes import timeframe as timeframe_micros

PARTITIONS = 6
"""Of a topic of vectors that is made because it is not there."""
SENT_ROWS = 10_000
"""Vectors that are sent before the brokers' answer is waited for."""


def for_replay(settings: Settings, version: str, topic: str) -> Publisher:
    """Who publishes the vectors of a replay: to a topic without messages, which is made where it is not there, under a header that says so.

    The topic is not compacted, so all of the replay stays there. Raises `DefinitionError` for a topic of the service, `BrokerError` for one
    that has messages.
    """
    if topic in _of_the_service(settings, version):
        raise DefinitionError(
            f"{topic} is a topic of the service, whose readers would take the replay for what is: name another, such as {topic}.replay"
        )
    brokers = Brokers(settings, Silent())
    if (partitions := brokers.topics().get(topic)) is None:
        brokers.ensure(topic, PARTITIONS)
    elif brokers.offsets(partitions, "earliest") != brokers.offsets(partitions, "latest"):
        raise BrokerError(f"{topic} has messages already: a replay goes into a topic of its own, so name another")
    return Publisher(Producer(brokers), {version: topic}, (REPLAYED,))


def _of_the_service(settings: Settings, version: str) -> set[str]:
    """The topics that the service reads and writes, or would for this feature set."""
    topic = settings.features_topic
    written = {*settings.vector_topics.values(), topic, f"{topic}.{version}", settings.dead_letter_topic}
    return {*written, settings.bars_topic, settings.enriched_topic}


def key_of(instrument: str, timeframe: str) -> bytes:
    """The key of an instrument's vectors."""
    return f"{instrument}|{timeframe}".encode()


class Publisher:
    """Publishes the vectors of each feature set to its topic."""

    def __init__(self, producer: Producer, topics: Mapping[str, str], headers: tuple[Header, ...] = ()) -> None:
        self._producer = producer
        self._topics = topics
        self._headers = headers
        self._newest: dict[tuple[str, str], dict[str, int]] = {}

    def begin(self, work: Work) -> None:
        """Publish the newest vector of every instrument, as the store has it. Raises `BrokerError`."""
        newest = work.store.latest(work.table, Selection(work.timeframe))
        self._newest[work.feature_set.version, work.timeframe] = {}
        self._send(work, newest)

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """Publish vectors that were stored, by time, and what is left of those whose keys are `gone`."""
        made = made.sort_by([("ts", "ascending"), ("instrument_id", "ascending")])
        newest, last = self._newest[work.feature_set.version, work.timeframe], _last(made)
        behind = {name for name, ts in last.items() if ts < newest.get(name, ts)} | set(gone["instrument_id"].to_pylist())
        for name in behind:
            newest.pop(name, None)
        if behind:
            left = work.store.latest(work.table, Selection(work.timeframe, tuple(sorted(behind))))
            made = pa.concat_tables([made, left.select(made.column_names)])
            self._send(work, made, behind - set(left["instrument_id"].to_pylist()))
        else:
            self._send(work, made)

    def _send(self, work: Work, vectors: pa.Table, without: Iterable[str] = ()) -> None:
        for begin in range(0, len(vectors), SENT_ROWS):
            some = recorded(work.feature_set, vectors.slice(begin, SENT_ROWS))
            written = zip(lines(work.feature_set, some), _late(work, some), strict=True)
            self._write(work, ((name, line, headers) for (name, line), headers in written))
        self._write(work, ((name, None, ()) for name in sorted(without)))
        newest = self._newest[work.feature_set.version, work.timeframe]
        newest.update({name: max(ts, newest.get(name, ts)) for name, ts in _last(vectors).items()})

    def _write(self, work: Work, values: Iterable[tuple[str, bytes | None, tuple[Header, ...]]]) -> None:
        """Messages of instruments, in their order, with headers of their own."""
        topic, ours = self._topics[work.feature_set.version], self._headers
        if self._producer.send([Outgoing(topic, key_of(name, work.timeframe), value, ours + own) for name, value, own in values]):
            raise BrokerError(f"{topic} takes no message of the size of a vector: raise its max.message.bytes")


def _late(work: Work, vectors: pa.Table) -> list[tuple[Header, ...]]:
    """The header that says when a vector could be known, for each of which that is not when a bar of its length ends."""
    known, usual = micros(vectors["available_at"]), micros(vectors["ts"]) + timeframe_micros(work.timeframe)
    if (known == usual).all():
        return [()] * len(vectors)
    return [() if at == end else ((AVAILABLE_AT, str(at).encode()),) for at, end in zip(known.tolist(), usual.tolist(), strict=True)]


def _last(vectors: pa.Table) -> dict[str, int]:
    """The time of the last row of each instrument."""
    return dict(zip(vectors["instrument_id"].to_pylist(), micros(vectors["ts"]).tolist(), strict=True))
