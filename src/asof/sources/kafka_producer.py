"""Writing to Kafka: messages that the brokers have acknowledged, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from asof.sources.dead_letters import Header
from asof.sources.kafka import PRODUCER, PRODUCER_DEFAULTS, Brokers, Message

FULL_SECONDS = 0.1
"""How long to wait for room where too much waits to be sent."""


class Outgoing(NamedTuple):
    """A message to write."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Producer:
    """Writes messages and waits until the brokers have them."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        with brokers.errors("cannot be used"):
            self._client = confluent_kafka.Producer(brokers.properties(PRODUCER, PRODUCER_DEFAULTS))

    def send(self, messages: Sequence[Outgoing]) -> list[int]:
        """Write messages; the numbers of those that are too large for their topic. All the others are acknowledged.

        Raises `BrokerError` where one of them is not; some may have been written then.
        """
        failed: dict[int, KafkaError] = {}
        for number, message in enumerate(messages):
            self._enqueue(number, message, failed)
        self._client.flush()  # ends, for each message is acknowledged or given up in its time
        for number, error in failed.items():
            if error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise self._brokers.error(error, f"did not take a message to {messages[number].topic}")
        return sorted(failed)

    def _enqueue(self, number: int, message: Outgoing, failed: dict[int, KafkaError]) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed[number] = error

        try:
            self._client.produce(message.topic, message.value, message.key, headers=list(message.headers), on_delivery=delivered)
        except BufferError:
            self._client.poll(FULL_SECONDS)
            self._enqueue(number, message, failed)
        except KafkaException as error:
            failed[number] = error.args[0]
