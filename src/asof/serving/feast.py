"""`POST /get-online-features`: the newest vectors in the shape of Feast's feature server, for clients that speak it.

A feature is named `"fs_v1:ret_1"`, the entity is `instrument_id`. Where a feature set is held over several timeframes, a second entity
`timeframe` says which. The answer has one result for each entity and feature, with a value, a status and a time for each row:

- `PRESENT`, or `NULL_VALUE` for a feature that the newest vector lacks, with the time at which the vector could be known;
- `NOT_FOUND` for an instrument that has no vector, with the time 1970-01-01T00:00:00Z, which entities have, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from asof.errors import AccessError, DataError, NotFound, did_you_mean
from asof.jobs.formats import rfc3339
from asof.serving.newest import Entry, Newest, not_held

MOST_VALUES = 1_000_000
"""Rows times features of an answer."""
NO_TIME = "1970-01-01T00:00:00Z"
ENTITIES = ("instrument_id", "timeframe")


class _Request(msgspec.Struct):
    entities: dict[str, list[Any]]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False


class _Features(msgspec.Struct, gc=False):
    features: dict[str, float]


Names = Callable[[str], Sequence[str] | None]
"""The features of a feature set; None where that is not known. Raises `NotFound` for a set that there is not."""
MayRead = Callable[[str], bool]

_request = msgspec.json.Decoder(_Request)
_features = msgspec.json.Decoder(_Features)


def answer(given: bytes, newest: Newest, names: Names = lambda version: None, may_read: MayRead = lambda version: True) -> bytes:
    """The answer to a request, in JSON. Raises `DataError`, `NotFound` and `AccessError`."""
    try:
        asked = _request.decode(given)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        example = '{"features": ["fs_v1:ret_1"], "entities": {"instrument_id": ["AAPL"]}}'
        raise DataError(f"the request is none such as {example}: {error}") from None
    wanted = _wanted(asked, names, may_read)
    rows = _rows(asked.entities)
    if (values := len(rows["instrument_id"]) * len(wanted)) > MOST_VALUES:
        raise DataError(f"the request asks for {values:,} values, and {MOST_VALUES:,} are the most: ask for fewer at a time")
    shown = [f"{version}__{name}" if asked.full_feature_names else name for version, name in wanted]
    if len(set(shown)) < len(shown):
        raise DataError("a feature is named twice, or two sets have features of one name: ask with full_feature_names")
    results = [_entities(column) for column in rows.values()]
    found = {version: _found(newest, version, rows, may_read) for version in dict.fromkeys(version for version, _ in wanted)}
    results += [_result(found[version], name) for version, name in wanted]
    return msgspec.json.encode({"metadata": {"feature_names": [*rows, *shown]}, "results": results})


def _wanted(asked: _Request, names: Names, may_read: MayRead) -> list[tuple[str, str]]:
    """The feature sets and features that are asked for."""
    if (asked.features is None) == (asked.feature_service is None):
        raise DataError('say which features, such as "features": ["fs_v1:ret_1"], or with "feature_service" which feature set')
    if asked.feature_service is not None:
        if (all_of_them := _names(asked.feature_service, names, may_read)) is None:
            raise NotFound(f"which features {asked.feature_service} has is not known here: name them in features")
        return [(asked.feature_service, name) for name in all_of_them]
    wanted = [_reference(reference) for reference in asked.features or ()]
    known = {version: _names(version, names, may_read) for version in dict.fromkeys(version for version, _ in wanted)}
    for version, name in wanted:
        if (there := known[version]) is not None and name not in there:
            raise NotFound(f"{version} has no feature {name!r}{did_you_mean(name, list(there))}")
    return wanted


def _reference(text: str) -> tuple[str, str]:
    version, _, name = text.partition(":")
    if not (version and name):
        raise DataError(f"{text!r} is no feature: write its set before it, as in fs_v1:ret_1")
    return version, name


def _names(version: str, names: Names, may_read: MayRead) -> Sequence[str] | None:
    """The features of a set, for those who may read it."""
    if not may_read(version):
        raise AccessError(f"this key may not read {version}: it needs the scope read:{version}")
    return names(version)


def _rows(entities: dict[str, list[Any]]) -> dict[str, list[str]]:
    """The entities, `instrument_id` first."""
    for name in entities:
        if name not in ENTITIES:
            raise DataError(f"there is no entity {name!r}; there are instrument_id and timeframe{did_you_mean(name, ENTITIES)}")
    if "instrument_id" not in entities:
        raise DataError("there is no instrument_id among the entities")
    for name, column in entities.items():
        if len(column) != len(entities["instrument_id"]):
            raise DataError(f"there are {len(column)} of {name}, and {len(entities['instrument_id'])} of instrument_id")
        if not all(isinstance(value, str) for value in column):
            raise DataError(f"{name} has to be a list of texts")
    return {name: entities[name] for name in ENTITIES if name in entities}


Found = tuple[dict[str, float], str] | None
"""The features of a vector and when it could be known; None where there is no vector."""


def _found(newest: Newest, version: str, rows: dict[str, list[str]], may_read: MayRead) -> list[Found]:
    """The newest vector of each row."""
    held = [timeframe for of, timeframe in newest.series() if of == version]
    if not held:
        raise not_held(newest, version, may_read)
    held = [timeframe for timeframe in held if newest.of(version, timeframe)] or held[:1]
    if "timeframe" not in rows and len(held) > 1:
        raise DataError(f"{version} is held over {', '.join(held)}: say which with a second entity, timeframe")
    timeframes = rows.get("timeframe", held * len(rows["instrument_id"]))
    return [_read(newest.entry(version, timeframe, name)) for name, timeframe in zip(rows["instrument_id"], timeframes, strict=True)]


def _read(entry: Entry | None) -> Found:
    return None if entry is None else (_features.decode(entry.line).features, _time(entry.available_at))


@lru_cache(4096)
def _time(at: int) -> str:
    return rfc3339(datetime.fromtimestamp(at // 1_000_000, UTC).replace(microsecond=at % 1_000_000))


def _entities(column: list[str]) -> dict[str, list[Any]]:
    """An entity of every row."""
    return {"values": column, "statuses": ["PRESENT"] * len(column), "event_timestamps": [NO_TIME] * len(column)}


def _result(found: list[Found], name: str) -> dict[str, list[Any]]:
    """A feature of every row."""
    values = [None if vector is None else vector[0].get(name) for vector in found]
    return {
        "values": values,
        "statuses": [_status(vector, value) for vector, value in zip(found, values, strict=True)],
        "event_timestamps": [NO_TIME if vector is None else vector[1] for vector in found],
    }


def _status(vector: Found, value: float | None) -> str:
    if vector is None:
        return "NOT_FOUND"
    return "NULL_VALUE" if value is None else "PRESENT"
