"""Enriched events as they come from the broker: one message's bytes, held to the whole schema `enriched_event.v1`, become rows of EVENTS.

The classes below are the schema's (schemas/enriched_event.v1.json); msgspec decodes a message and holds it to them in one pass.
A property that is given twice has its last value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

import msgspec
import pyarrow as pa
from msgspec import UNSET, Meta, Struct, UnsetType

from asof.errors import DataError
from asof.records import EVENTS, FIRST_TIME, LAST_TIME, SANE_TIME
from asof.sources.dead_letters import printable

LARGEST = 1_048_576
"""Bytes of the largest message that is parsed: Kafka's own default limit, and some hundred times an event's size."""
CLOCK_SKEW = 300_000_000
"""Microseconds that the enricher's clock may be ahead of ours. An event from further ahead would lie in windows that are yet to come,
and keep every later enrichment of itself from being the newest."""
SHOWN = 200
"""Characters of a detail: it may quote what the message holds."""

SCHEMA_VERSION = "enriched_event.v1"
_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\Z"
_TIME = (
    r"^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])\Z"
)
"""RFC 3339; that the month has such a day is asked when it is read."""

Confidence = Annotated[float, Meta(ge=0, le=1)]
Time = Annotated[str, Meta(pattern=_TIME)]


class _Object(Struct, forbid_unknown_fields=True, gc=False):
    """An object with no other properties than its own."""


class Entity(_Object):
    """What the text names."""

    type: Literal["ORG", "PERSON", "PRODUCT", "COUNTRY", "EVENT", "OTHER"]
    text: str
    confidence: Confidence


class Ticker(_Object):
    """An instrument that the event is about."""

    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9.-]+\Z")]
    confidence: Confidence
    method: Literal["regex", "ner", "mapping", "validated"]


class Sentiment(_Object):
    """The tone of the text."""

    score: Annotated[float, Meta(ge=-1, le=1)]
    confidence: Confidence
    model: str


class Embedding(_Object):
    """Where the embedding of the text is kept. In JSON Schema 384.0 is a whole number, too."""

    embedding_id: str
    model: str
    dim: Annotated[float, Meta(ge=1, multiple_of=1)]


class Event(_Object):
    """A whole message."""

    schema_version: Literal["enriched_event.v1"]
    event_id: Annotated[str, Meta(pattern=_UUID)]
    enriched_at_utc: Time
    pipeline_version: str
    source_type: Literal["rss", "twitter", "reddit", "newsapi", "market", "scrape", "finnhub", "manual"]
    source_name: str
    lang: Annotated[str, Meta(pattern=r"^[a-z]{2}(-[A-Z]{2})?\Z")]
    normalized_text_hash: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]
    entities: list[Entity]
    tickers: list[Ticker]
    sentiment: Sentiment
    event_category: Literal["macro", "earnings", "regulation", "security", "product", "market", "company", "crypto", "other"]
    event_time_utc: Time | UnsetType | None = UNSET
    canonical_url: str | UnsetType | None = UNSET
    embedding: Embedding | UnsetType | None = UNSET
    quality_flags: list[str] | UnsetType = UNSET


class _Version(Struct):
    """All that is asked of a message of another schema."""

    schema_version: object = UNSET


class Row(NamedTuple):
    """An event as one instrument sees it, in the order of EVENTS; times are microseconds since 1970."""

    instrument_id: str
    event_id: str
    enriched_at_utc: int
    event_time_utc: int | None
    score: float
    confidence: float
    scored_at_utc: int


class Refused(DataError):
    """A message that cannot be used: `reason` is a stable word, the text a sentence that is safe to show."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(printable(detail[:SHOWN]))
        self.reason = reason


_decode = msgspec.json.Decoder(Event).decode
_version_of = msgspec.json.Decoder(_Version).decode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

SCHEMA_REASONS = {
    "Object contains unknown field": "unknown_property",
    "Object missing required field": "missing_property",
}
"""How msgspec's messages begin, and the reasons that they are; any other is an `invalid_value`."""


def decode(data: bytes | None, now: int) -> list[Row]:
    """The rows of a message, one for each ticker that it names. `now` is in microseconds since 1970. Raises `Refused`."""
    if not data:
        raise Refused("empty_message", "the message has no value")
    if len(data) > LARGEST:
        raise Refused("message_too_large", f"the message has {len(data):,} bytes, more than {LARGEST:,}")
    try:
        event = _decode(data)
    except msgspec.ValidationError as error:
        raise _refusal(data, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused("malformed_json", str(error)) from None
    enriched = _time("enriched_at_utc", event.enriched_at_utc, SANE_TIME, now + CLOCK_SKEW)
    happened = _time("event_time_utc", event.event_time_utc, FIRST_TIME, LAST_TIME - 1) if event.event_time_utc else None
    mood = event.sentiment
    symbols = dict.fromkeys(ticker.symbol for ticker in event.tickers)
    return [Row(symbol, event.event_id, enriched, happened, mood.score, mood.confidence, enriched) for symbol in symbols]


def _refusal(data: bytes, said: str) -> Refused:
    """Why a message is not of the schema. Another version comes first: what else differs in such a message is no news."""
    try:
        version = _version_of(data).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        version = UNSET
    if version not in (UNSET, SCHEMA_VERSION):
        return Refused("unknown_schema_version", f"schema_version is {version!r}; this asof reads {SCHEMA_VERSION}")
    return Refused(next((reason for begins, reason in SCHEMA_REASONS.items() if said.startswith(begins)), "invalid_value"), said)


def _time(name: str, text: str, earliest: int, latest: int) -> int:
    """Microseconds since 1970; what is finer is cut off."""
    try:
        at = (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except ValueError as error:
        raise Refused("invalid_value", f"{text!r} is no time: {error} - at `$.{name}`") from None
    if not earliest <= at <= latest:
        raise Refused("time_out_of_range", f"{name} {text} is {'too early' if at < earliest else 'in the future'}")
    return at


def settled(rows: Iterable[Row]) -> list[Row]:
    """One row for each event and instrument, as if they had gone into a store one by one: the first place, the newest scores."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = row[:2]
        found[key] = _merged(found[key], row) if key in found else row
    return list(found.values())


def _merged(there: Row, row: Row) -> Row:
    newest = row if row.scored_at_utc >= there.scored_at_utc else there
    return newest._replace(enriched_at_utc=min(there.enriched_at_utc, row.enriched_at_utc))


def table_of(rows: Collection[Row]) -> pa.Table:
    """Rows as the store takes them."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(EVENTS)
    arrays = (pa.array(c, pa.int64() if pa.types.is_timestamp(f.type) else f.type) for c, f in zip(columns, EVENTS, strict=True))
    return pa.table([a.cast(f.type) for a, f in zip(arrays, EVENTS, strict=True)], EVENTS)
