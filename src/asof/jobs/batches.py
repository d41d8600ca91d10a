"""Batches of messages: decoded, and written to a store in one transaction with the positions behind them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from asof.errors import BrokerError, RowsRefused
from asof.records import BARS, EVENTS
from asof.sources import enriched, ohlcv
from asof.sources.dead_letters import CUT, KEPT, Place, letter_headers, message_headers
from asof.sources.kafka import Log, Message, Partition, headers_of, partition_of
from asof.sources.kafka_producer import Outgoing, Producer
from asof.sources.messages import Refused, table_of
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Store, Table
from asof.telemetry.traces import span

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

POSITIONS = "kafka/"
"""What the names of positions begin with: `kafka/<topic>/<partition>`, where the offset of the next message is kept."""

Offsets = Mapping[Partition, int]
Row = Any
"""A row of a kind of record: a tuple with the fields of its schema, and when it could be `known`."""


class Kind(NamedTuple):
    """What the messages of a topic are: how they are read, which of a batch counts, and where they go."""

    name: str
    decode: Callable[[bytes | None, int], list[Row]]
    settled: Callable[[Sequence[Row]], list[Row]]
    table: Table
    schema: pa.Schema


EVENT = Kind("event", enriched.decode, enriched.settled, EVENTS_TABLE, EVENTS)
BAR = Kind("bar", ohlcv.decode, ohlcv.settled, BARS_TABLE, BARS)


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
    kind: Kind
    rows: Sequence[Row] = ()
    ignored: int = 0
    refused: Refused | None = None


def read(message: Message, kinds: Mapping[str, Kind], tickers: frozenset[str]) -> Read:
    """Decode a message. An event that names no ticker counts as one that nobody asked for; no `tickers` ask for all."""
    partition, offset = partition_of(message), message.offset()
    assert offset is not None
    kind = kinds[partition.topic]
    try:
        rows = kind.decode(message.value(), time.time_ns() // 1_000)
    except Refused as refused:
        return Read(message, partition, offset, kind, refused=refused)
    asked = [row for row in rows if row.instrument_id in tickers] if tickers else rows
    return Read(message, partition, offset, kind, asked, len(rows) - len(asked) or int(not rows))


def written_at(message: Message) -> float:
    """When a message was written, in Unix time; now, where that is not told."""
    kind, milliseconds = message.timestamp()
    return milliseconds / 1_000 if kind else time.time()


class Writer:
    """Writes batches. One that failed for a time can be written again: its dead letters are not written twice."""

    def __init__(self, store: Store, producer: Producer, dead_letters: str, lateness: int, metrics: Metrics, log: Log) -> None:
        self._store = store
        self._lateness = lateness
        self._producer = producer
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._log = log
        self._posted: set[tuple[Partition, int]] = set()

    def write(self, batch: Sequence[Read], since: Offsets) -> dict[Partition, int]:
        """Write a batch that was read on from `since`; the offsets behind it.

        Raises `Overtaken`, and `StoreError` and `BrokerError` for what may pass.
        """
        with span("consume", messages=len(batch)):
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
        fresh = [one for one in refused if (one.partition, one.offset) not in self._posted]
        too_large = self._producer.send([self._letter(one) for one in fresh])
        if self._producer.send([self._letter(fresh[n], cut=True) for n in too_large]):
            raise BrokerError(f"{self._dead_letters} takes no message of {KEPT:,} bytes: raise its max.message.bytes")
        self._posted.update((one.partition, one.offset) for one in fresh)
        self._metrics.dead_letters.inc(len(fresh))

    def _letter(self, one: Read, cut: bool = False) -> Outgoing:
        assert one.refused is not None
        place, value = Place(one.partition.topic, one.partition.number, one.offset), one.message.value() or b""
        ours = letter_headers(place, one.refused.reason, str(one.refused), datetime.now(UTC))
        if cut:
            value, ours = value[:KEPT], [*ours, (CUT, b"%d" % len(value))]
        headers = [*message_headers(headers_of(one.message)), *ours]
        return Outgoing(self._dead_letters, one.message.key(), None if one.message.value() is None else value, headers)

    def _store_rows(self, batch: Sequence[Read], behind: Offsets, since: Offsets) -> dict[Kind, Counter[str]]:
        """One transaction; what became of the rows of each kind."""
        with self._store.transaction():
            self._store.move(positions_of(behind), positions_of({partition: since[partition] for partition in behind}))
            return {kind: self._upsert(kind, [row for one in batch if one.kind is kind for row in one.rows]) for kind in _kinds(batch)}

    def _upsert(self, kind: Kind, rows: Sequence[Row]) -> Counter[str]:
        once = kind.settled(rows)
        changes = self._store.upsert(kind.table, table_of(once, kind.schema), datetime.now(UTC))
        unchanged = changes.unchanged + len(rows) - len(once)
        return Counter(inserted=changes.inserted, corrected=changes.corrected, unchanged=unchanged)

    def _count(self, batch: Sequence[Read], outcomes: dict[Kind, Counter[str]]) -> None:
        for kind, found in outcomes.items():
            mine = [one for one in batch if one.kind is kind]
            counter = self._metrics.bars if kind is BAR else self._metrics.events
            for outcome, count in found.items():
                counter.labels(outcome).inc(count)
            counter.labels("ignored").inc(sum(one.ignored for one in mine))
            counter.labels("refused").inc(sum(one.refused is not None for one in mine))
            self._count_late(kind, [row.known for one in mine for row in one.rows])
        refused = Counter(one.refused.reason for one in batch if one.refused)
        for reason, count in refused.items():
            self._metrics.messages_refused.labels(reason).inc(count)
        if refused:
            first = next(one for one in batch if one.refused)
            at = f"{first.partition.number}:{first.offset}"
            self._log.warning("messages that cannot be used", reasons=dict(refused), first=at, because=str(first.refused))
        self._metrics.store_up.set(1)

    def _count_late(self, kind: Kind, known: Sequence[int]) -> None:
        """How late the latest row of a batch was, and how many were later than is allowed."""
        now = time.time_ns() // 1_000
        self._metrics.lateness.labels(kind.name).set(max(0.0, (now - min(known, default=now)) / 1_000_000))
        self._metrics.late.labels(kind.name).inc(sum(now - at > self._lateness for at in known))


def _kinds(batch: Sequence[Read]) -> list[Kind]:
    return list({one.kind.name: one.kind for one in batch}.values())
