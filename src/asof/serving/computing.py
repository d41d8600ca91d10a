"""`POST /v1/compute`: features of the bars and events that a request brings, by `asof.compute`: the same engine, the same bits.

The request is a JSON object with `feature_set`, `bars` and what else `asof.compute` takes, as lists of objects with the fields that bars
and events have everywhere; nothing is stored. The answer has one `features.v1` record for each bar, or for the last one of each instrument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from asof.errors import DataError, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.jobs.compute import compute
from asof.jobs.formats import lines, recorded

MOST_ROWS = 100_000
"""Bars and other rows of a request, all together."""
MOST_VALUES = 5_000_000
"""Bars times features."""
TABLES = ("bars", "events", "actions", "trades", "quotes", "books", "memberships")
"""What a request may bring, each as a list of objects; `higher` has such lists by timeframe."""
NEEDED = {"bars": ("instrument_id", "ts", "close"), "events": ("event_id", "enriched_at_utc")}
"""The fields that rows have to have."""
NAMES = ("feature_set", "timeframe", "timezone", "calendars", "last", "higher", *TABLES)

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Brought:
    """What a request brings."""

    feature_set: str
    bars: Rows
    others: dict[str, Rows] = field(default_factory=dict)
    higher: dict[str, Rows] = field(default_factory=dict)
    timeframe: str | None = None
    timezone: str | None = None
    calendars: dict[str, str] = field(default_factory=dict)
    last: bool = False

    @classmethod
    def read(cls, given: bytes) -> Brought:
        """The request. Raises `DataError` where it is none, naming what is wrong in it, or too much."""
        try:
            asked = msgspec.json.decode(given)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f'the request is no JSON object such as {{"feature_set": "fs_v1", "bars": [...]}}: {error}') from None
        if not isinstance(asked, dict):
            raise DataError(f"the request is a {type(asked).__name__}, and has to be a JSON object")
        for name in asked:
            if name not in NAMES:
                raise DataError(f"there is no {name!r} to compute from; there are {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
        for name in ("feature_set", "bars"):
            if not asked.get(name):
                raise DataError(f"the request has no {name}")
        tables = {name: _rows(name, asked[name]) for name in TABLES if asked.get(name)}
        higher = {name: _rows(f"higher {name}", rows) for name, rows in _typed(asked, "higher", dict, {}).items()}
        _check_number([*tables.values(), *higher.values()])
        calendars = _typed(asked, "calendars", dict, {})
        if not all(isinstance(name, str) for name in calendars.values()):
            raise DataError('calendars has to name one for each instrument, such as {"*": "XNYS"}')
        timeframe, timezone = (_typed(asked, name, str, None) for name in ("timeframe", "timezone"))
        version, last = _typed(asked, "feature_set", str, ""), _typed(asked, "last", bool, False)
        return cls(version, tables.pop("bars"), tables, higher, timeframe, timezone, calendars, last)


def _check_number(tables: list[Rows]) -> None:
    if (rows := sum(map(len, tables))) > MOST_ROWS:
        raise DataError(f"the request has {rows:,} rows, and {MOST_ROWS:,} are the most: ask for fewer at a time, or backfill into a store")


KINDS = {bool: "true or false", dict: "an object", str: "a text"}
"""What JSON calls them."""


def _typed(asked: dict[str, Any], name: str, kind: type, otherwise: Any) -> Any:  # noqa: ANN401  # JSON has no types
    value = asked.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, kind):
        raise DataError(
            f"{name} is {value!r:.80}, and has to be {'true or false' if kind is bool else 'an object' if kind is dict else 'a text'}"
        )
    return value


def _rows(name: str, rows: object) -> Rows:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{name} has to be a list of objects, one for each row")
    return rows


def _table(name: str, rows: Rows) -> pa.Table:
    """Rows as a table, with every field that one of them has."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    for needed in NEEDED.get(name, ()):
        if needed not in names:
            raise DataError(f"{name}: no row has the field {needed}{did_you_mean(needed, names)}")
    try:
        return pa.table({key: [row.get(key) for row in rows] for key in names})
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"{name}: a field holds values of several kinds: {error}") from None


def computed(brought: Brought, find: Callable[[str], FeatureSet]) -> tuple[FeatureSet, pa.Table]:
    """The feature set and the vectors, by instrument and time. Raises as `asof.compute` does, and `NotFound` for an unknown set."""
    feature_set = find(brought.feature_set)
    bars, features = len(brought.bars), len(feature_set.features)
    if bars * features > MOST_VALUES:
        raise DataError(f"{bars:,} bars with {features} features are more than {MOST_VALUES:,} values, which are the most")
    vectors = pa.table(
        compute(
            feature_set,
            _table("bars", brought.bars),
            **{name: _table(name, rows) for name, rows in brought.others.items()},
            higher={name: _table(name, rows) for name, rows in brought.higher.items()},
            timeframe=brought.timeframe,
            timezone=brought.timezone,
            calendars=brought.calendars,
            threads=1,  # a request has one core, for there are others
        )
    )
    return feature_set, _last(vectors) if brought.last else vectors


def _last(vectors: pa.Table) -> pa.Table:
    """The last vector of each instrument."""
    names = vectors["instrument_id"].to_pylist()
    return vectors.take(pa.array([n for n, name in enumerate(names) if n + 1 == len(names) or names[n + 1] != name], pa.int64()))


def answer(given: bytes, find: Callable[[str], FeatureSet]) -> bytes:
    """The answer to a request, in JSON: the records, and of how many bars there is none, for no feature could be computed."""
    feature_set, vectors = computed(Brought.read(given), find)
    some = recorded(feature_set, vectors)
    records = b",".join([line for _, line in lines(feature_set, some)])
    version = msgspec.json.encode(feature_set.version)
    return b'{"feature_set":%b,"without_features":%d,"vectors":[%b]}' % (version, len(vectors) - len(some), records)
