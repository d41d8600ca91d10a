"""Messages in JSON, held to a schema in one pass by msgspec; what cannot be used is refused with a reason."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar

import msgspec
import pyarrow as pa

from asof.errors import DataError
from asof.sources.dead_letters import printable

LARGEST = 1_048_576
"""Bytes of the largest message that is parsed: Kafka's own default limit, and some hundred times an event's size."""
CLOCK_SKEW = 300_000_000
"""Microseconds that a producer's clock may be ahead of ours. What is from further ahead would be the newest for as long as that."""
SHOWN = 200
"""Characters of a detail: it may quote what the message holds."""
SCHEMA_REASONS = {
    "Object contains unknown field": "unknown_property",
    "Object missing required field": "missing_property",
}
"""How msgspec's messages begin, and the reasons that they are; any other is an `invalid_value`."""

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Refused(DataError):
    """A message that cannot be used: `reason` is a stable word, the text a sentence that is safe to show."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(printable(detail[:SHOWN]))
        self.reason = reason


def decoded(decoder: msgspec.json.Decoder[T], data: bytes | None) -> T:
    """A message as the decoder's type. Raises `Refused`."""
    if not data:
        raise Refused("empty_message", "the message has no value")
    if len(data) > LARGEST:
        raise Refused("message_too_large", f"the message has {len(data):,} bytes, more than {LARGEST:,}")
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        said = str(error)
        raise Refused(
            next((reason for begins, reason in SCHEMA_REASONS.items() if said.startswith(begins)), "invalid_value"), said
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("malformed_json", str(error)) from None


def moment(name: str, text: str, earliest: int, latest: int) -> int:
    """A time in microseconds since 1970; what is finer is cut off. Raises `Refused` where it is none, or not in `[earliest, latest]`."""
    try:
        at = _read(text)
    except ValueError as error:
        raise Refused("invalid_value", f"{text!r} is no time: {error} - at `$.{name}`") from None
    if not earliest <= at <= latest:
        raise Refused("time_out_of_range", f"{name} {text} is {'too early' if at < earliest else 'in the future'}")
    return at


@lru_cache
def _read(text: str) -> int:
    """A time in microseconds since 1970. The bars of many instruments open at one."""
    return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND


def table_of(rows: Collection[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows with the fields of a schema in their order, times in microseconds, as the store takes them."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
    arrays = (pa.array(c, pa.int64() if pa.types.is_timestamp(f.type) else f.type) for c, f in zip(columns, schema, strict=True))
    return pa.table([a.cast(f.type) for a, f in zip(arrays, schema, strict=True)], schema)
