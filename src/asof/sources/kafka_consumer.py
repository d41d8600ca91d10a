"""Reading from Kafka: a member of a group that begins where its caller says, and all that a topic holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition

from asof.sources.kafka import ASK_SECONDS, CONSUMER, CONSUMER_DEFAULTS, Brokers, Message, Partition, partition_of

LINGER_SECONDS = 0.001
"""How long to wait for more once there is a first message."""

Starts = Callable[[list[Partition]], Mapping[Partition, int]]
"""Where to begin to read partitions; those that it leaves out are not read."""
OutOfRange = Callable[[Partition, int, int], None]
"""Told of a partition, the position in it that the broker has no longer, and the one to go on from."""


class Consumer:
    """One member of a group. The group only shares partitions out: where to begin in them is `starts`'s to say, whatever was committed."""

    def __init__(self, brokers: Brokers, topics: Sequence[str], group: str, starts: Starts, out_of_range: OutOfRange) -> None:
        self._brokers = brokers
        self._starts = starts
        self._out_of_range = out_of_range
        self._next: dict[Partition, int] = {}
        self._early: list[Message] = []
        self._paused = False
        with brokers.errors("cannot be used"):
            self._client = confluent_kafka.Consumer(brokers.properties(CONSUMER | {"group.id": group}, CONSUMER_DEFAULTS))
            self._client.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Our partitions, and how far each was read: the offset of the next message, or the end where there is none."""
        return self._next

    def take(self, most: int, wait: float) -> list[Message]:
        """The next messages: at most so many, after at most so many seconds, and soon after the first."""
        found, self._early = self._early, []
        with self._brokers.errors("cannot be read"):
            if not found and (first := self._client.poll(wait)) is not None:
                found = [first, *self._client.consume(most - 1, LINGER_SECONDS)]
        return [message for message in found if self._is_new(message)]

    def serve(self, seconds: float) -> None:
        """Take part in the group, though nothing is wanted."""
        with self._brokers.errors("cannot be read"):
            if (message := self._client.poll(seconds)) is not None:
                self._early.append(message)

    def _is_new(self, message: Message) -> bool:
        """Whether it is a message of a partition that is ours, and was not taken before."""
        partition, offset = partition_of(message), message.offset()
        assert offset is not None
        if (error := message.error()) is not None:
            self._meet(error, partition, offset)
            return False
        if offset < self._next.get(partition, offset + 1):
            return False
        self._next[partition] = offset + 1
        return True

    def _meet(self, error: KafkaError, partition: Partition, offset: int) -> None:
        """Raises `BrokerError` for an error that ends all reading."""
        if error.code() not in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
            raise self._brokers.error(error, f"cannot be read ({partition.topic})")
        if partition not in self._next:
            return
        if error.code() == KafkaError._PARTITION_EOF:  # past what is no message, such as a transaction's marks
            self._next[partition] = max(offset, self._next[partition])
            return
        first = self._brokers.offsets([partition], "earliest")[partition]
        self._out_of_range(partition, self._next[partition], first)
        self.restart({partition: first})

    def restart(self, at: Mapping[Partition, int]) -> None:
        """Go on elsewhere in partitions, if they are ours."""
        for partition in at.keys() & self._next.keys():
            with self._brokers.errors("cannot be read"):
                self._client.incremental_unassign([partition.at()])
            self._begin({partition: at[partition]})

    def _assigned(self, _: confluent_kafka.Consumer, found: list[TopicPartition]) -> None:
        self._begin(self._starts([partition_of(p) for p in found]))

    def _begin(self, at: Mapping[Partition, int]) -> None:
        self._next |= at
        with self._brokers.errors("cannot be read"):
            self._client.incremental_assign([partition.at(offset) for partition, offset in at.items()])
            self._keep_paused(at)  # librdkafka remembers it of a partition that was taken from us in the meantime

    def _revoked(self, _: confluent_kafka.Consumer, found: list[TopicPartition]) -> None:
        ours = [p for p in map(partition_of, found) if self._next.pop(p, None) is not None]
        self._client.incremental_unassign([partition.at() for partition in ours])

    def pause(self, paused: bool) -> None:
        """Stop reading ahead, or go on."""
        self._paused = paused
        with self._brokers.errors("cannot be read"):
            self._keep_paused(self._next)

    def _keep_paused(self, partitions: Iterable[Partition]) -> None:
        (self._client.pause if self._paused else self._client.resume)([partition.at() for partition in partitions])

    def tell(self, positions: Mapping[Partition, int]) -> None:
        """Show positions to those who look at the group's offsets; nothing depends on them."""
        ours = [partition.at(offset) for partition, offset in positions.items() if partition in self._next]
        if ours:
            with self._brokers.errors("does not take the group's offsets"):
                self._client.commit(offsets=ours, asynchronous=True)

    def close(self) -> None:
        """Leave the group."""
        self._client.close()


def everything(brokers: Brokers, partitions: Sequence[Partition]) -> Iterator[Message]:
    """What partitions hold now, each from its first message to its last; messages that come meanwhile may be left out."""
    with brokers.errors("cannot be read"):
        client = confluent_kafka.Consumer(brokers.properties(CONSUMER | {"group.id": "asof-reader"}, CONSUMER_DEFAULTS))
    try:
        with brokers.errors("cannot be read"):
            ends = brokers.offsets(partitions, "latest")
            client.assign([p.at(confluent_kafka.OFFSET_BEGINNING) for p in partitions])
        open_ones = {p for p, end in ends.items() if end}
        while open_ones:
            with brokers.errors("cannot be read"):
                message = client.poll(ASK_SECONDS)
            if message is None:
                raise brokers.error(KafkaError(KafkaError._TIMED_OUT), "stopped answering")
            yield from _read(brokers, message, ends, open_ones)
    finally:
        client.close()


def _read(brokers: Brokers, message: Message, ends: Mapping[Partition, int], open_ones: set[Partition]) -> Iterator[Message]:
    """A message, if it is one; and whether its partition has ended with it."""
    partition, offset, error = partition_of(message), message.offset(), message.error()
    assert offset is not None
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise brokers.error(error, "cannot be read")
    if error is not None or offset + 1 >= ends[partition]:
        open_ones.discard(partition)
    if error is None and offset < ends[partition]:
        yield message
