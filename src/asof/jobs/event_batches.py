"""Batches of messages: decoded, and written to a store in one transaction with the positions behind them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from asof.errors import BrokerError, RowsRefused
from asof.sources.dead_letters import KEPT, DeadLetter, Place
from asof.sources.enriched import Refused, Row, decode, settled, table_of
from asof.sources.kafka import Message, Partition, headers_of, partition_of
from asof.sources.kafka_producer import Outgoing, Producer
from asof.stores.store import EVENTS_TABLE, Store

if TYPE_CHECKING:
    from asof.telemetry import Metrics

POSITIONS = "kafka/"
"""What the names of positions begin with: `kafka/<topic>/<partition>`, where the offset of the next message is kept."""

Offsets = Mapping[Partition, int]


def position_name(partition: Partition) -> str:
    """The name of a partition's position."""
    return f"{POSITIONS}{partition.topic}/{partition.number}"


def positions_of(offsets: Offsets) -> dict[str, str]:
    """Offsets as the store keeps them."""
    return {position_name(partition): str(offset) for partition, offset in offsets.items()}


class Read(NamedTuple):
    """A message, with the rows of it that are asked for, how many are not, or why it cannot be used."""

    message: Message
    partition: Partition
    offset: int
    rows: Sequence[Row] = ()
    ignored: int = 0
    refused: Refused | None = None


def read(message: Message, tickers: frozenset[str]) -> Read:
    """Decode a message. An event that names no ticker counts as one that nobody asked for; no `tickers` ask for all."""
    partition, offset = partition_of(message), message.offset()
    assert offset is not None
    try:
        rows = decode(message.value(), time.time_ns() // 1_000)
    except Refused as refused:
        return Read(message, partition, offset, refused=refused)
    asked = [row for row in rows if row.instrument_id in tickers] if tickers else rows
    return Read(message, partition, offset, asked, len(rows) - len(asked) or int(not rows))


def written_at(message: Message) -> float:
    """When a message was written, in Unix time; now, where that is not told."""
    kind, milliseconds = message.timestamp()
    return milliseconds / 1_000 if kind else time.time()


class Writer:
    """Writes batches. One that failed for a time can be written again: its dead letters are not written twice."""

    def __init__(self, store: Store, producer: Producer, dead_letters: str, metrics: Metrics) -> None:
        self._store = store
        self._producer = producer
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._posted: set[Place] = set()

    def write(self, batch: Sequence[Read], since: Offsets) -> dict[Partition, int]:
        """Write a batch that was read on from `since`; the offsets behind it.

        Raises `Overtaken`, and `StoreError` and `BrokerError` for what may pass.
        """
        behind = self._write(batch, since)
        self._posted.clear()
        return behind

    def _write(self, batch: Sequence[Read], since: Offsets) -> dict[Partition, int]:
        """Where the store refuses a batch for what it holds, its halves, down to the one message, which becomes a dead letter."""
        behind = {one.partition: one.offset + 1 for one in batch}
        self._post([one for one in batch if one.refused])
        try:
            outcomes = self._store_rows(batch, behind, since)
        except RowsRefused as error:
            if len(batch) == 1:
                return self._write([batch[0]._replace(rows=(), refused=Refused("refused_by_store", str(error)))], since)
            half = len(batch) // 2
            first = self._write(batch[:half], since)
            return first | self._write(batch[half:], {**since, **first})
        self._count(batch, outcomes)
        return behind

    def _post(self, refused: Sequence[Read]) -> None:
        """Have the brokers keep dead letters, or their beginnings where they are too large for their topic."""
        letters = [letter for letter in map(_letter, refused) if letter.place not in self._posted]
        too_large = self._producer.send([self._outgoing(letter) for letter in letters])
        if self._producer.send([self._outgoing(letters[n].cut()) for n in too_large]):
            raise BrokerError(f"{self._dead_letters} takes no message of {KEPT:,} bytes: raise its max.message.bytes")
        self._posted.update(letter.place for letter in letters)
        self._metrics.dead_letters.inc(len(letters))

    def _outgoing(self, letter: DeadLetter) -> Outgoing:
        return Outgoing(self._dead_letters, letter.key, letter.value, letter.written())

    def _store_rows(self, batch: Sequence[Read], behind: Offsets, since: Offsets) -> dict[str, int]:
        """One transaction; what became of the rows."""
        rows = [row for one in batch for row in one.rows]
        once = settled(rows)
        with self._store.transaction():
            self._store.move(positions_of(behind), positions_of({partition: since[partition] for partition in behind}))
            changes = self._store.upsert(EVENTS_TABLE, table_of(once), datetime.now(UTC))
        unchanged = changes.unchanged + len(rows) - len(once)
        return {"inserted": changes.inserted, "corrected": changes.corrected, "unchanged": unchanged}

    def _count(self, batch: Sequence[Read], outcomes: dict[str, int]) -> None:
        refused = Counter(one.refused.reason for one in batch if one.refused)
        ignored = sum(one.ignored for one in batch)
        for outcome, count in {**outcomes, "ignored": ignored, "refused": refused.total()}.items():
            self._metrics.events.labels(outcome).inc(count)
        for reason, count in refused.items():
            self._metrics.messages_refused.labels(reason).inc(count)
        self._metrics.store_up.set(1)


def _letter(one: Read) -> DeadLetter:
    """A message that cannot be used, as a letter."""
    assert one.refused is not None
    message, value = one.message, one.message.value()
    place = Place(one.partition.topic, one.partition.number, one.offset)
    headers = tuple(headers_of(message))
    return DeadLetter(place, one.refused.reason, str(one.refused), datetime.now(UTC), message.key(), value, len(value or b""), headers)
