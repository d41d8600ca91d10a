"""The manifest of a data set: what it was made of, as JSON that people read and programs hold the data to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from asof.errors import DataError
from asof.jobs.formats import rfc3339

FORMAT = "asof.dataset.v1"
PLAIN = {"name": str, "timeframe": str, "rows": int, "calendars": dict, "pipeline_version": str, "asof_version": str}
"""What is kept as it is, and of which kind it must be."""


@dataclass(frozen=True)
class FrozenSet:
    """A feature set as a data set holds it: all of its definition, and which of its features were taken."""

    version: str
    fingerprint: str
    text: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a data set was made of.

    `known_at` is the moment whose revisions it holds, `entities` are the columns that were given, `columns` all of them with their Arrow
    types, in order. `max_age` is an age such as `5d` or `2h trading`, or None, and `calendars` are those that trading is counted by;
    `timezone` is that of entity times which name none.
    """

    name: str
    created_at: datetime
    known_at: datetime
    timeframe: str
    max_age: str | None
    calendars: Mapping[str, str]
    timezone: str | None
    feature_sets: tuple[FrozenSet, ...]
    entities: tuple[str, ...]
    columns: Mapping[str, str]
    rows: int
    pipeline_version: str
    asof_version: str

    def record(self) -> dict[str, object]:
        """The manifest as JSON has it: canonical texts by the line, columns in their order."""
        plain = vars(self) | {"format": FORMAT, "created_at": rfc3339(self.created_at), "known_at": rfc3339(self.known_at)}
        sets = [vars(frozen) | {"text": frozen.text.split("\n"), "features": list(frozen.features)} for frozen in self.feature_sets]
        columns = [{"name": name, "type": kind} for name, kind in self.columns.items()]
        return plain | {"feature_sets": sets, "entities": list(self.entities), "columns": columns, "calendars": dict(self.calendars)}

    def json(self) -> str:
        """The text of the file: keys sorted, so that the same manifest is the same bytes."""
        return json.dumps(self.record(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str, where: str) -> Manifest:
        """The manifest that a file at `where` holds. Raises `DataError` where it is none."""
        try:
            record = json.loads(text)
            if record.pop("format") != FORMAT:
                raise DataError(f"{where} is of another format than {FORMAT}: read it with the asof that wrote it")
            record.setdefault("calendars", {})  # of before ages could count trading
            for name, kind in PLAIN.items():
                if not isinstance(record[name], kind):
                    raise TypeError(f"{name} is {record[name]!r}")
            sets = [f | {"text": "\n".join(f["text"]), "features": tuple(f["features"])} for f in record["feature_sets"]]
            known = {
                "created_at": datetime.fromisoformat(record["created_at"]),
                "known_at": datetime.fromisoformat(record["known_at"]),
                "feature_sets": tuple(FrozenSet(**frozen) for frozen in sets),
                "entities": tuple(record["entities"]),
                "columns": {column["name"]: column["type"] for column in record["columns"]},
            }
            return cls(**record | known)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{where} is no manifest of a data set: {type(error).__name__}: {error}") from None
