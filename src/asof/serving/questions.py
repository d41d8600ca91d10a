"""What is asked for in bulk: a JSON object with known names, and the tables that answer it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import pyarrow as pa

from asof.errors import DataError, NotFound, did_you_mean
from asof.feature_store import FeatureStore
from asof.features.feature_set import FeatureSet
from asof.jobs import reading
from asof.jobs.ages import Age
from asof.records import VECTOR_KEYS, VECTOR_REST, vector_schema
from asof.stores.store import Selection, vectors_table
from asof.timeframes import timeframe as check_timeframe

MOST_BYTES = 1 << 20
"""Of a question: some fifty thousand instruments."""

VECTORS = (
    "feature_set", "timeframe", "instruments", "from", "to", "known_at", "features", "columns", "ordered", "latest", "at",
)  # fmt: skip
"""What a question about stored vectors may name."""
JOIN = ("feature_set", "timeframe", "known_at", "features", "columns", "max_age", "timezone")
"""What a question that comes with entity rows may name."""

_ATTRIBUTES: dict[str, str] = {"from": "start", "to": "end"}
_LISTS = ("instruments", "features", "columns")
_SWITCHES = ("ordered", "latest")


@dataclass(frozen=True)
class Question:
    """Which vectors, and how they are wanted.

    `features` are some of the set's, and the answer is the table of `FeatureStore.history` or of `get_historical_features`. With
    `columns` it has just these, and may have `pipeline_version`, which that table has not. Rows come in the order of instrument and time
    if `ordered`, for which a store may sort; else in the order in which they lie, which is mostly the same.
    """

    feature_set: str
    timeframe: str = ""
    instruments: tuple[str, ...] | None = None
    start: str | None = None
    end: str | None = None
    known_at: str | None = None
    features: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    ordered: bool = False
    latest: bool = False
    at: str | None = None
    max_age: str | None = None
    timezone: str | None = None

    @classmethod
    def read(cls, given: bytes, known: tuple[str, ...]) -> Question:
        """A question from JSON. Raises `DataError` where it is none, naming what is wrong in it."""
        if len(given) > MOST_BYTES:
            raise DataError(f"the question has {len(given):,} bytes, and {MOST_BYTES:,} are the most: ask for fewer instruments at a time")
        try:
            asked: object = json.loads(given)
        except (ValueError, RecursionError):
            raise DataError('the question is no JSON object such as {"feature_set": "fs_v1", "timeframe": "1d"}') from None
        if not isinstance(asked, dict):
            raise DataError(f"the question is {type(asked).__name__}, and has to be a JSON object")
        for name in asked:
            if name not in known:
                raise DataError(f"there is no {name!r} to ask by; there are {', '.join(known)}{did_you_mean(name, known)}")
        for name in ("feature_set", "timeframe"):
            if name not in asked:
                raise DataError(f"the question has no {name}: which is it about?")
        named: dict[str, Any] = {_ATTRIBUTES.get(str(name), str(name)): _checked(str(name), value) for name, value in asked.items()}
        return cls(**named)

    @classmethod
    def of_path(cls, path: list[str]) -> Question:
        """A question from the path of a flight: a feature set, or one and a timeframe."""
        if len(path) not in (1, 2):
            raise DataError(f"the path {path!r} is neither [feature set] nor [feature set, timeframe]")
        return cls(path[0], path[1] if len(path) > 1 else "")

    def ticket(self) -> bytes:
        """The question in JSON, without what it leaves open."""
        names = {attribute: name for name, attribute in _ATTRIBUTES.items()}
        given = {names.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        return json.dumps({name: value for name, value in given.items() if value or value == ()}).encode()

    def moment(self, name: str) -> datetime | None:
        """One of its times, such as `at`. Raises `DataError` for a text that is none."""
        return _moment(getattr(self, name), name)

    def definition(self, store: FeatureStore) -> FeatureSet:
        """The feature set, registered. Raises `NotFound` for a set, a feature or a column that is not there."""
        if self.timeframe:
            check_timeframe(self.timeframe)
        definition = store.wanted(self.feature_set)[0]
        definition.select(self.features or ())
        there = vectors_table(definition).schema.names
        for name in self.columns or ():
            if name not in there:
                raise NotFound(f"{definition.version} has no column {name!r}{did_you_mean(name, there)}")
        return definition

    def schema(self, definition: FeatureSet) -> pa.Schema:
        """The schema of the vectors that answer it."""
        return self._shown(definition, vector_schema(self._features(definition)).empty_table()).schema

    def tables(self, store: FeatureStore, definition: FeatureSet) -> Iterator[pa.Table]:
        """The stored vectors that answer it, in tables of bounded size. Raises at once where a name or a time is not usable."""
        if self.latest:
            _, asked = store.select(definition, self.timeframe, self.instruments, None, self.moment("at"), self.known_at)
        else:
            _, asked = store.select(definition, self.timeframe, self.instruments, self.start, self.end, self.known_at)
        return self._read(store, definition, asked)

    def _read(self, store: FeatureStore, definition: FeatureSet, selection: Selection) -> Iterator[pa.Table]:
        columns = self.columns or (*VECTOR_KEYS.names, *self._features(definition), *VECTOR_REST.names)
        if self.latest:
            yield self._shown(definition, reading.latest(store.store, definition, selection).select(columns))
            return
        for table in store.store.read(vectors_table(definition), selection, columns, ordered=self.ordered):
            yield self._shown(definition, table)

    def joined(self, store: FeatureStore, definition: FeatureSet, entities: pa.Table) -> pa.Table:
        """Entity rows with the vectors that answer it beside them; with `columns`, those alone."""
        features = self.features
        if self.columns is not None:
            features = tuple(name for name in self.columns if name not in reading.MARKS)
            entities = entities.select([name for name in ("instrument_id", "event_timestamp") if name in entities.column_names])
        age = None if self.max_age is None else Age.of(self.max_age)
        then = self.moment("known_at")
        found = reading.join(store.store, definition, self.timeframe, entities, features, age, self.timezone, then, store.calendars)
        return found if self.columns is None else found.select(self.columns)

    def _features(self, definition: FeatureSet) -> tuple[str, ...]:
        return definition.select(self.features or tuple(definition.features))

    def _shown(self, definition: FeatureSet, vectors: pa.Table) -> pa.Table:
        if self.columns is not None:
            return vectors.select(self.columns)
        return reading.tabular(definition, vectors)


def _checked(name: str, value: object) -> object:
    """A member of a question. Raises `DataError` for one of another kind."""
    if name in _SWITCHES:
        if isinstance(value, bool):
            return value
        raise DataError(f"{name} is {value!r}, and has to be true or false")
    if name in _LISTS:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return tuple(value)
        raise DataError(f"{name} is {value!r:.80}, and has to be a list of texts")
    if isinstance(value, str):
        return value
    raise DataError(f"{name} is {value!r:.80}, and has to be a text")


def _moment(text: str | None, what: str) -> datetime | None:
    return None if text is None else reading.parse_time(text, what)
