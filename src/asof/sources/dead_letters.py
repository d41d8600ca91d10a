"""Dead letters: messages that could not be used, with their bytes as they came, and in headers where they came from and why they are here.

A letter has the key, value and headers of its message, and the headers below beside them. That a letter was sent back is noted behind it,
by a message that names the same place and holds nothing else: the note stays as long as the letter, whoever reads the topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

Header = tuple[str, bytes | None]

TOPIC, PARTITION, OFFSET, AT = "asof.topic", "asof.partition", "asof.offset", "asof.at"
REASON, DETAIL, CUT = "asof.reason", "asof.detail", "asof.cut"
REPLAYED = "asof.replayed"
PREFIX = "asof."
KEPT = 1_024
"""Bytes that are kept of a value that the dead-letter topic does not take whole."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a message was read."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic} {self.partition}:{self.offset}"


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be used. `size` is what its value had, of which `value` is less where the letter was cut."""

    place: Place
    reason: str
    detail: str
    at: datetime
    key: bytes | None
    value: bytes | None
    size: int
    headers: tuple[Header, ...] = ()
    replayed: datetime | None = None

    @property
    def whole(self) -> bool:
        """Whether the message's bytes are all here."""
        return self.size == len(self.value or b"")

    def cut(self) -> DeadLetter:
        """The letter with the beginning of its value alone."""
        return replace(self, value=(self.value or b"")[:KEPT])

    def written(self) -> list[Header]:
        """The headers of the letter as a message: those of its own message, and ours."""
        ours = [*_place_headers(self.place, self.at), (REASON, self.reason.encode()), (DETAIL, self.detail.encode())]
        if not self.whole:
            ours.append((CUT, str(self.size).encode()))
        return [*self.headers, *ours]


def replay_note(letter: DeadLetter, at: datetime) -> list[Header]:
    """The headers of the message which says that a letter was sent back."""
    return [*_place_headers(letter.place, at), (REPLAYED, b"1")]


def _place_headers(place: Place, at: datetime) -> list[Header]:
    said = {TOPIC: place.topic, PARTITION: place.partition, OFFSET: place.offset, AT: at.isoformat()}
    return [(name, str(value).encode()) for name, value in said.items()]


def read_letter(key: bytes | None, value: bytes | None, headers: Iterable[Header] | None) -> DeadLetter | None:
    """A letter, or the note that it was sent back (a letter without a reason); None for a message that is neither."""
    theirs = tuple(header for header in headers or () if not header[0].startswith(PREFIX))
    ours = {name: (text or b"").decode(errors="replace") for name, text in headers or () if name.startswith(PREFIX)}
    try:
        place = Place(ours[TOPIC], int(ours[PARTITION]), int(ours[OFFSET]))
        at, size = datetime.fromisoformat(ours[AT]), int(ours.get(CUT, len(value or b"")))
    except (KeyError, ValueError):
        return None
    replayed = at if REPLAYED in ours else None
    return DeadLetter(place, ours.get(REASON, ""), ours.get(DETAIL, ""), at, key, value, size, theirs, replayed)


def settled(found: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Letters once for each message, in the order in which they came, with when each was sent back last."""
    letters: dict[Place, DeadLetter] = {}
    for letter in found:
        if letter.replayed is None:
            letters[letter.place] = letter
        elif letter.place in letters:
            letters[letter.place] = replace(letters[letter.place], replayed=letter.replayed)
    return list(letters.values())
