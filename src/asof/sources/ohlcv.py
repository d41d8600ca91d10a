"""Bars as they come from the broker: one message's bytes, held to the schema `ohlcv.v1`, become a row of BARS.

A price that is zero or below is no price (the bar is kept, and has none); other properties are ignored, as the schema says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from asof.errors import DefinitionError
from asof.records import FIRST_TIME, LAST_TIME
from asof.sources.messages import CLOCK_SKEW, Refused, decoded, moment
from asof.timeframes import timeframe

_TIME = (
    r"^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
    r"([Zz]|\+00:00)\Z"
)
"""RFC 3339 in UTC; that the month has such a day is asked when it is read."""

Time = Annotated[str, Meta(pattern=_TIME)]
Price = float | None


class Bar(Struct, gc=False):
    """A whole message."""

    instrument_id: Annotated[str, Meta(min_length=1)]
    timeframe: Annotated[str, Meta(pattern=r"^[0-9]+[smhd]\Z")]
    ts: Time
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float, Meta(ge=0)] | None
    available_at: Time | UnsetType = UNSET
    source: str | UnsetType = UNSET
    ingested_at: Time | UnsetType = UNSET


class Row(NamedTuple):
    """A bar in the order of BARS; times are microseconds since 1970."""

    instrument_id: str
    timeframe: str
    ts: int
    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float | None
    source: str | None
    available_at: int | None

    @property
    def known(self) -> int:
        """When it could be known: its close, unless its source says otherwise."""
        return self.available_at if self.available_at is not None else self.ts + timeframe(self.timeframe)


_decoder = msgspec.json.Decoder(Bar)


def decode(data: bytes | None, now: int) -> list[Row]:
    """The row of a message. `now` is in microseconds since 1970. Raises `Refused`."""
    bar = decoded(_decoder, data)
    try:
        timeframe(bar.timeframe)
    except DefinitionError as error:
        raise Refused("unknown_timeframe", str(error)) from None
    ts = moment("ts", bar.ts, FIRST_TIME, now + CLOCK_SKEW)
    known = None if bar.available_at is UNSET else moment("available_at", bar.available_at, FIRST_TIME, LAST_TIME - 1)
    if known is not None and known < ts:
        raise Refused("known_before_open", f"available_at {bar.available_at} is before the bar opens")
    if bar.high is not None and bar.low is not None and bar.high < bar.low:
        raise Refused("high_below_low", f"high {bar.high} is below low {bar.low}")
    first, high, low, close = (price if price is not None and price > 0 else None for price in (bar.open, bar.high, bar.low, bar.close))
    source = None if bar.source is UNSET else bar.source
    return [Row(bar.instrument_id, bar.timeframe, ts, first, high, low, close, bar.volume, source, known)]


def settled(rows: Iterable[Row]) -> list[Row]:
    """One row for each bar: the last that came."""
    return list({row[:3]: row for row in rows}.values())
