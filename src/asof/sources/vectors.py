"""Vectors from Kafka: `features.v1` messages, of which only what they are found by is read; the rest stays the bytes that it is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from asof.errors import DefinitionError
from asof.sources.dead_letters import Header
from asof.timeframes import timeframe as timeframe_micros

AVAILABLE_AT = "asof-available-at"
"""The header that says when a vector could be known, in microseconds of Unix time, where that is not when its bar closed."""
REPLAYED: Header = ("asof-replay", b"true")
"""The header of every message of a replay."""
NEWLINE, RETURN = b"\n\r"
KNOWN_TIMES = 1 << 16


class _Message(msgspec.Struct, gc=False):
    schema_version: Literal["features.v1"]
    instrument_id: str
    timeframe: str
    ts_utc: str
    feature_set_version: str
    features: msgspec.Raw


class Vector(NamedTuple):
    """A vector: whose it is, its bar's open and when it could be known, in microseconds, and its JSON in one line."""

    version: str
    timeframe: str
    instrument: str
    ts: int
    available_at: int
    line: bytes


_made = tuple.__new__
"""Makes a named tuple in a third of the time that its class takes."""


class Decoder:
    """Reads messages. What many have in common, as bars have their times, is read once."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Message).decode
        self._times: dict[str, int] = {}
        self._lengths: dict[str, int] = {}

    def vector(self, value: bytes, headers: Iterable[Header] | None) -> Vector | None:
        """The vector of a message; None for one of a replay. Raises `ValueError` for what is no vector, saying why.

        It is called for each of ten million messages, so what is not the usual is looked at elsewhere.
        """
        try:
            found = self._decode(value)
            ts = self._times.get(found.ts_utc) or self._time(found.ts_utc)
            known = ts + (self._lengths.get(found.timeframe) or self._length(found.timeframe))
        except (msgspec.MsgspecError, DefinitionError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None
        if headers:
            if REPLAYED in headers:
                return None
            known = int(dict(headers).get(AVAILABLE_AT) or known)
        if NEWLINE in value or RETURN in value:
            value = msgspec.json.format(value, indent=-1)
        return _made(Vector, (found.feature_set_version, found.timeframe, found.instrument_id, ts, known, value))

    def _time(self, text: str) -> int:
        if len(self._times) > KNOWN_TIMES:
            self._times.clear()
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"ts_utc {text!r} has no zone")
        return self._times.setdefault(text, round(moment.timestamp() * 1_000_000))

    def _length(self, text: str) -> int:
        return self._lengths.setdefault(text, timeframe_micros(text))


def whose(key: bytes | None) -> tuple[str, str]:
    """The instrument and the timeframe of a message's key. Raises `ValueError` for what is none."""
    instrument, found, timeframe = (key or b"").decode().rpartition("|")
    if not found:
        raise ValueError(f"the key {key!r} is not an instrument and a timeframe, such as AAPL|1m")
    return instrument, timeframe
