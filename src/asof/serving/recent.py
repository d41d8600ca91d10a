"""The newest vectors of a stream in the order they came: numbered, the last so many of them kept, for those who follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

KEPT = 1 << 16
"""How many are kept: of `fs_v1` some 45 MB, and a minute of a thousand a second."""


class Told(msgspec.Struct, frozen=True, gc=False):
    """A vector that became the newest of its instrument; `line` is None where the last one went away and none is left."""

    number: int
    version: str
    timeframe: str
    instrument: str
    line: bytes | None


class Recent:
    """One thread at a time appends, any may read meanwhile: an entry is written whole, and says itself which one it is.

    `epoch` tells this memory from others, of other processes or earlier ones of this: numbers of theirs mean nothing here.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.epoch = _epoch()
        self.last = 0
        """The number of the newest one; the first has 1."""
        self._kept: list[Told | None] = [None] * kept
        self._listeners: tuple[Callable[[], None], ...] = ()

    def forget(self) -> None:
        """Keep none of them any more, under a new epoch. A number is left out, so that who is at the last one sees that, too."""
        self._kept = [None] * len(self._kept)
        self.epoch = _epoch()
        self.last += 1

    def append(self, version: str, timeframe: str, instrument: str, line: bytes | None) -> None:
        """Keep one. Those who listen are told by `announce`, once for many."""
        number = self.last + 1
        self._kept[number % len(self._kept)] = Told(number, version, timeframe, instrument, line)
        self.last = number

    def after(self, number: int, most: int) -> list[Told] | None:
        """Those behind a number, at most so many of them; None where some of them are kept no longer, or the number is none of ours."""
        stop = min(self.last, number + most)
        if not self.last - len(self._kept) <= number <= self.last:
            return None
        found = [self._kept[n % len(self._kept)] for n in range(number + 1, stop + 1)]
        whole = [told for n, told in enumerate(found, number + 1) if told is not None and told.number == n]
        return whole if len(whole) == len(found) else None

    def listen(self, called: Callable[[], None]) -> Callable[[], None]:
        """Have `called` called, in the writer's thread, when there is something new; what is answered ends that."""
        self._listeners = (*self._listeners, called)

        def end() -> None:
            kept = list(self._listeners)
            with suppress(ValueError):
                kept.remove(called)
            self._listeners = tuple(kept)

        return end

    def announce(self) -> None:
        """Tell those who listen."""
        for called in self._listeners:
            called()


def _epoch() -> str:
    return f"{time.time_ns():x}"
