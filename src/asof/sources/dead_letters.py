"""Dead letters: messages that could not be used, with their bytes as they came, and in headers where they came from and why they are here.

A letter has the key, value and headers of its message, and the headers below beside them. That it was sent back is noted behind it, by a
message without a value that names the same place: the note stays as long as the letter does, whoever reads the topic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

Header = tuple[str, bytes | None]

PREFIX = "asof."
TOPIC, PARTITION, OFFSET = f"{PREFIX}topic", f"{PREFIX}partition", f"{PREFIX}offset"
REASON, DETAIL, AT = f"{PREFIX}reason", f"{PREFIX}detail", f"{PREFIX}at"
CUT = f"{PREFIX}cut"
"""Bytes of a value of which only the beginning is here, for the dead-letter topic did not take it whole."""
REPLAYED = f"{PREFIX}replayed"
"""When the letter of the same place was sent back."""
KEPT = 1_024
"""Bytes that are kept of a value that is cut, and shown at most."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a message lies."""

    topic: str
    partition: int
    offset: int

    def headers(self) -> list[Header]:
        """As headers of a letter."""
        return [(TOPIC, self.topic.encode()), (PARTITION, b"%d" % self.partition), (OFFSET, b"%d" % self.offset)]


@dataclass(frozen=True)
class DeadLetter:
    """What is known of a letter: where its message was, why it could not be used and since when, its size and its beginning.

    `lies` is the place of the letter itself. One that is `cut` has but the beginning of its message; the others have it whole.
    """

    place: Place
    lies: Place
    reason: str
    detail: str
    at: datetime
    size: int
    beginning: bytes
    cut: bool
    replayed: datetime | None = None


def letter_headers(place: Place, reason: str, detail: str, at: datetime) -> list[Header]:
    """What a letter says beside its message."""
    return [*place.headers(), (REASON, reason.encode()), (DETAIL, detail.encode()), (AT, at.isoformat().encode())]


def note_headers(place: Place, at: datetime) -> list[Header]:
    """What the note says that the letter of a place was sent back."""
    return [*place.headers(), (REPLAYED, at.isoformat().encode())]


def message_headers(headers: Iterable[Header]) -> list[Header]:
    """The headers that a letter's message had of its own."""
    return [header for header in headers if not header[0].startswith(PREFIX)]


def letters_of(messages: Iterable[tuple[Place, bytes | None, list[Header]]]) -> list[DeadLetter]:
    """The letters of a topic, once for each message however often one was written, and when they were sent back.

    The messages come in their order. What is neither a letter nor a note is left out.
    """
    letters: dict[Place, DeadLetter] = {}
    for lies, value, headers in messages:
        said = {name: (text or b"").decode(errors="replace") for name, text in headers if name.startswith(PREFIX)}
        try:
            place = Place(said[TOPIC], int(said[PARTITION]), int(said[OFFSET]))
            if REPLAYED not in said:
                letters[place] = _letter(place, lies, value or b"", said)
            elif place in letters:
                letters[place] = replace(letters[place], replayed=datetime.fromisoformat(said[REPLAYED]))
        except (KeyError, ValueError):
            continue
    return list(letters.values())


def _letter(place: Place, lies: Place, value: bytes, said: dict[str, str]) -> DeadLetter:
    at, size = datetime.fromisoformat(said[AT]), int(said.get(CUT, len(value)))
    return DeadLetter(place, lies, said[REASON], said.get(DETAIL, ""), at, size, value[:KEPT], CUT in said)


def printable(text: str | bytes) -> str:
    """A text that others wrote, as it can be shown: no control characters; of bytes, ASCII alone."""
    if isinstance(text, bytes):
        text = text.decode("ascii", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
