"""Following topics of Kafka: all partitions, each from its first message on, without a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import confluent_kafka
from confluent_kafka import KafkaError

from asof.errors import AsofError
from asof.sources.kafka import CONSUMER, CONSUMER_DEFAULTS, Brokers, Message, Partition, Properties, partition_of

LINGER_SECONDS = 0.002
"""How long to wait for more once there is a first message, and everything has been read that was there at first."""
FILLING_SECONDS = 0.1
"""And until then."""
READ_AHEAD: Properties = {"queued.max.messages.kbytes": 131_072, "fetch.message.max.bytes": 8_388_608}
"""A topic of ten million messages is read as fast as they can be taken in."""


class Gap(AsofError):
    """What was to be read next is there no longer, so that deletions may have been missed: begin again with nothing."""


class Follower:
    """The messages of all topics whose names are `wanted`, and how far they have been read; `begin` goes on from there."""

    def __init__(self, brokers: Brokers, wanted: Callable[[str], bool], begin: Mapping[Partition, int]) -> None:
        self._brokers = brokers
        self._wanted = wanted
        self.reached: dict[Partition, int] = {}
        """The offset of the next message of each partition."""
        self._begin = begin
        self._goals: dict[Partition, int] = {}
        ours: Properties = CONSUMER | {"group.id": "asof-follower"}
        with brokers.errors("cannot be used"):
            self._client = confluent_kafka.Consumer(brokers.properties(ours, CONSUMER_DEFAULTS | READ_AHEAD))

    def look(self) -> None:
        """Take on the partitions that are new. Raises `BrokerError` where no broker answers."""
        found = [partition for name, of in self._brokers.topics().items() if self._wanted(name) for partition in of]
        new = [partition for partition in found if partition not in self.reached]
        first, ends = (self._brokers.offsets(new, of) for of in ("earliest", "latest"))
        at = {partition: self._begin.get(partition, first[partition]) for partition in new}
        with self._brokers.errors("cannot be read"):
            self._client.incremental_assign([partition.at(offset) for partition, offset in at.items()])
        self.reached |= at
        self._goals |= ends

    @property
    def caught_up(self) -> bool:
        """Whether everything has been read that was there when its partition was found."""
        return all(self.reached[partition] >= goal for partition, goal in self._goals.items())

    def ends(self) -> dict[Partition, int]:
        """The end of each partition, as the broker told last."""
        found = {p: self._client.get_watermark_offsets(p.at(), cached=True)[1] for p in self.reached}
        return {partition: max(end, self._goals[partition]) for partition, end in found.items()}

    def take(self, most: int, wait: float) -> list[Message]:
        """The next messages: at most so many, after at most so many seconds, and soon after the first.

        Raises `Gap`, and `BrokerError` for what ends all reading.
        """
        with self._brokers.errors("cannot be read"):
            if (first := self._client.poll(wait)) is None:
                return []
            found = [first, *self._client.consume(most - 1, LINGER_SECONDS if self.caught_up else FILLING_SECONDS)]
            for position in self._client.position([partition.at() for partition in self.reached]):
                partition = partition_of(position)
                self.reached[partition] = max(position.offset, self.reached[partition])
        return [message for message in found if message.error() is None or self._met(message)]

    def _met(self, message: Message) -> bool:
        """No message, but what there is to say of a partition; it is none to take."""
        error, partition, offset = message.error(), partition_of(message), message.offset()
        assert error is not None
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise Gap(f"{partition.topic} has no longer what follows offset {self.reached.get(partition)} of partition {partition.number}")
        if error.code() != KafkaError._PARTITION_EOF:
            raise self._brokers.error(error, f"cannot be read ({partition.topic})")
        if partition in self.reached and offset is not None:  # past what is no message, such as a transaction's marks
            self.reached[partition] = max(offset, self.reached[partition])
        return False

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()
