"""Publishing: vectors to a topic, once they are stored. A message's key is instrument and timeframe, its value `features.v1`.

The topic is compacted, so the last message of a key has to be its newest vector. What is published after older vectors were corrected, or
the newest was withdrawn, is therefore followed by the newest once more. Whoever follows changes tells of them before it moves on: after
a crash the same is told again, and a message that is there twice says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from asof.errors import BrokerError
from asof.jobs.formats import lines
from asof.jobs.work import Work
from asof.sources.kafka_producer import Outgoing, Producer
from asof.stores.store import Selection


def key_of(instrument: str, timeframe: str) -> bytes:
    """The key of an instrument's vectors."""
    return f"{instrument}|{timeframe}".encode()


class Publisher:
    """Publishes the vectors of each feature set to its topic."""

    def __init__(self, producer: Producer, topics: Mapping[str, str]) -> None:
        self._producer = producer
        self._topics = topics
        self._newest: dict[tuple[str, str], dict[str, datetime]] = {}

    def begin(self, work: Work) -> None:
        """Publish the newest vector of every instrument, as the store has it. Raises `BrokerError`."""
        newest = work.store.latest(work.table, Selection(work.timeframe))
        self._newest[work.feature_set.version, work.timeframe] = {}
        self._send(work, newest)

    def tell(self, work: Work, made: pa.Table, gone: pa.Table) -> None:
        """Publish vectors that were stored, by instrument and time, and what is left of those whose keys are `gone`."""
        newest = self._newest[work.feature_set.version, work.timeframe]
        last = dict(zip(made["instrument_id"].to_pylist(), made["ts"].to_pylist(), strict=True))
        behind = {name for name, ts in last.items() if name in newest and ts < newest[name]}
        behind |= set(gone["instrument_id"].to_pylist())
        for name in behind:
            newest.pop(name, None)
        if behind:
            left = work.store.latest(work.table, Selection(work.timeframe, tuple(sorted(behind))))
            made = pa.concat_tables([made, left.select(made.column_names)])
            self._send(work, made, behind - set(left["instrument_id"].to_pylist()))
        else:
            self._send(work, made)

    def _send(self, work: Work, vectors: pa.Table, without: Iterable[str] = ()) -> None:
        topic = self._topics[work.feature_set.version]
        messages = [Outgoing(topic, key_of(name, work.timeframe), line, ()) for name, line in lines(work.feature_set, vectors)]
        messages += [Outgoing(topic, key_of(name, work.timeframe), None, ()) for name in sorted(without)]
        if self._producer.send(messages):
            raise BrokerError(f"{topic} takes no message of the size of a vector: raise its max.message.bytes")
        newest = self._newest[work.feature_set.version, work.timeframe]
        for row in vectors.group_by("instrument_id").aggregate([("ts", "max")]).to_pylist():
            newest[row["instrument_id"]] = max(row["ts_max"], newest.get(row["instrument_id"], row["ts_max"]))
