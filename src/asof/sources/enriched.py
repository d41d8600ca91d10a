"""Enriched events as they come from the broker: one message's bytes, held to the whole schema `enriched_event.v1`, become rows of EVENTS.

The classes below are the schema's (schemas/enriched_event.v1.json); msgspec decodes a message and holds it to them in one pass.
A property that is given twice has its last value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from asof.records import FIRST_TIME, LAST_TIME, SANE_TIME
from asof.sources.messages import CLOCK_SKEW, LARGEST, Refused, decoded, moment

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
    category: str
    source: str
    source_name: str
    text_hash: str
    is_repost: bool | None = None
    """The schema has no word for it."""

    @property
    def known(self) -> int:
        """When these scores could be known."""
        return self.scored_at_utc


_decoder = msgspec.json.Decoder(Event)
_version_of = msgspec.json.Decoder(_Version).decode


def decode(data: bytes | None, now: int) -> list[Row]:
    """The rows of a message, one for each ticker that it names. `now` is in microseconds since 1970. Raises `Refused`."""
    try:
        event = decoded(_decoder, data)
    except Refused as refused:
        raise _of_another_version(data) or refused from None
    enriched = moment("enriched_at_utc", event.enriched_at_utc, SANE_TIME, now + CLOCK_SKEW)
    happened = moment("event_time_utc", event.event_time_utc, FIRST_TIME, LAST_TIME - 1) if event.event_time_utc else None
    mood = event.sentiment
    symbols = dict.fromkeys(ticker.symbol for ticker in event.tickers)
    name = event.source_name.replace("\0", "")  # no database holds that character
    about = (event.event_category, event.source_type, name, event.normalized_text_hash.lower())
    return [Row(symbol, event.event_id, enriched, happened, mood.score, mood.confidence, enriched, *about) for symbol in symbols]


def _of_another_version(data: bytes | None) -> Refused | None:
    """A message of another version: what else differs in it is no news."""
    if not data or len(data) > LARGEST:
        return None
    try:
        version = _version_of(data).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if version in (UNSET, SCHEMA_VERSION):
        return None
    return Refused("unknown_schema_version", f"schema_version is {version!r}; this asof reads {SCHEMA_VERSION}")


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
