"""Dead letters: those that are there, and sending them back to where they came from.

A replay sends the bytes, key and headers of each message to its topic, waits until the brokers have them, and then notes it behind the
letter. Interrupted between the two, it may send some again, which is harmless: an event that is there already changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import chain

from asof.sources.dead_letters import DeadLetter, Place, letters_of, message_headers, note_headers
from asof.sources.kafka import Brokers, Message, Partition, headers_of, partition_of
from asof.sources.kafka_consumer import everything
from asof.sources.kafka_producer import Outgoing, Producer

SENT_BYTES = 32_000_000
"""Bytes that are sent before the brokers' answer is waited for."""


def dead_letters(brokers: Brokers, topic: str) -> list[DeadLetter]:
    """The letters of a topic, from the oldest to the newest; none where there is no such topic."""
    partitions = brokers.topics().get(topic, [])
    return letters_of((_place(message), message.value(), headers_of(message)) for message in everything(brokers, partitions))


def replay(brokers: Brokers, chosen: Collection[DeadLetter]) -> list[DeadLetter]:
    """Send letters back, each to its topic; those that the topic does not take, for they are too large."""
    by_place = {letter.lies: letter for letter in chosen}
    partitions = sorted({Partition(lies.topic, lies.partition) for lies in by_place})
    producer, too_large = Producer(brokers), list[DeadLetter]()
    found = (message for message in everything(brokers, partitions) if _place(message) in by_place)
    for messages in _some_at_a_time(found):
        letters = [by_place[_place(message)] for message in messages]
        refused = set(producer.send([_original(m, letter) for m, letter in zip(messages, letters, strict=True)]))
        too_large += [letters[n] for n in refused]
        now = datetime.now(UTC)
        sent = [(m, letter) for n, (m, letter) in enumerate(zip(messages, letters, strict=True)) if n not in refused]
        producer.send([Outgoing(letter.lies.topic, m.key(), None, note_headers(letter.place, now)) for m, letter in sent])
    return too_large


def _original(message: Message, letter: DeadLetter) -> Outgoing:
    return Outgoing(letter.place.topic, message.key(), message.value(), message_headers(headers_of(message)))


def _place(message: Message) -> Place:
    partition, offset = partition_of(message), message.offset()
    assert offset is not None
    return Place(partition.topic, partition.number, offset)


def _some_at_a_time(messages: Iterator[Message]) -> Iterator[list[Message]]:
    """Messages in lists of bounded size."""
    some, size = list[Message](), 0
    for message in messages:
        some.append(message)
        size += 1_000 + len(message.value() or b"")
        if size > SENT_BYTES:
            yield some
            some, size = [], 0
    yield from chain([some] if some else [])
