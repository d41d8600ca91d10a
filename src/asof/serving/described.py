"""What may be asked, as types: the parameters of routes, and their description with examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from asof.serving.answers import ARROW, JSON, LINES, PARQUET
from asof.serving.questions import Question

TIME = "2024-06-03T14:30:00Z"
Text = Annotated[str, Field(max_length=200)]
VersionText = Annotated[Text, Field(description="The feature set", examples=["fs_v1"])]
TimeframeText = Annotated[Text, Field(description="The timeframe", examples=["1m"])]
KnownAt = Annotated[Text | None, Field(description="As was held to be true at this moment", examples=[TIME])]
Instruments = Annotated[list[Text] | None, Field(description="Instruments; all without it", examples=[["AAPL", "MSFT"]])]
Features = Annotated[list[Text] | None, Field(description="Some of the set's features; all without it", examples=[["ret_1"]])]
Columns = Annotated[list[Text] | None, Field(description="Just these columns, in formats that are tables", examples=[["ts", "ret_1"]])]
MaxAge = Annotated[Text | None, Field(description="The oldest that is of use: `3d`, `2h trading`, `3d trading`", examples=["3d"])]


class Asked(BaseModel):
    """Parameters of a query; others are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    feature_set: VersionText
    timeframe: TimeframeText
    instrument: Instruments = None
    feature: Features = None
    known_at: KnownAt = None

    def question(self) -> Question:
        """The same as a question."""
        return Question(self.feature_set, self.timeframe, _tuple(self.instrument), features=_tuple(self.feature), known_at=self.known_at)


class LatestAsked(Asked):
    """What is asked of the newest vectors."""

    at: Annotated[Text | None, Field(description="The newest that was available at this moment", examples=[TIME])] = None
    max_age: MaxAge = None

    def question(self) -> Question:
        """The same as a question."""
        named = Question(self.feature_set, self.timeframe, _tuple(self.instrument), features=_tuple(self.feature), known_at=self.known_at)
        return Question(**{**vars(named), "latest": True, "at": self.at, "max_age": self.max_age})


class HistoryAsked(Asked):
    """What is asked of history."""

    start: Annotated[Text | None, Field(alias="from", description="The first bar's open", examples=["2024-06-01"])] = None
    end: Annotated[Text | None, Field(alias="to", description="The last bar's open, included", examples=["2024-06-30"])] = None
    limit: Annotated[int | None, Field(description="Rows of a page; all at once without it", examples=[1000])] = None
    cursor: Annotated[str | None, Field(max_length=2000, description="`next_cursor` of the page before")] = None

    def question(self) -> Question:
        """The same as a question."""
        return Question(**{**vars(super().question()), "start": self.start, "end": self.end, "ordered": True})


class JoinAsked(BaseModel):
    """What is asked of a join."""

    model_config = ConfigDict(extra="forbid")

    feature_set: VersionText
    timeframe: TimeframeText
    feature: Features = None
    column: Columns = None
    max_age: MaxAge = None
    timezone: Annotated[Text | None, Field(description="Zone of times without one", examples=["America/New_York"])] = None
    known_at: KnownAt = None

    def question(self) -> Question:
        """The same as a question."""
        return Question(
            self.feature_set, self.timeframe, known_at=self.known_at, features=_tuple(self.feature), columns=_tuple(self.column),
            max_age=self.max_age, timezone=self.timezone,
        )  # fmt: skip


class QuestionBody(BaseModel):
    """A question in JSON, for many instruments."""

    model_config = ConfigDict(extra="forbid")

    feature_set: VersionText
    timeframe: TimeframeText
    instruments: Instruments = None
    features: Features = None
    columns: Columns = None
    known_at: KnownAt = None


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


VECTOR = {
    "schema_version": "features.v1", "feature_id": "5a8e0a0e-0a53-5d0c-9d44-3c2f6a1f2f10", "instrument_id": "AAPL", "timeframe": "1m",
    "ts_utc": TIME, "feature_set_version": "fs_v1", "features": {"ret_1": 0.0012, "event_count_1h": 0.0}, "quality_flags": ["NO_EVENTS"],
    "computed_at_utc": "2024-06-03T14:31:00Z", "pipeline_version": "feature-store.v1.0", "source_refs": {"ohlcv_count": 21},
}  # fmt: skip
LATEST = {
    "feature_set": "fs_v1", "timeframe": "1m", "as_of": "2024-06-03T14:31:02Z", "missing": ["NOBODY"], "stale": [], "age_seconds": [2.0],
    "vectors": [VECTOR],
}  # fmt: skip
HISTORY = {"feature_set": "fs_v1", "timeframe": "1m", "next_cursor": None, "vectors": [VECTOR]}
ENTITIES = {"entities": [{"instrument_id": "AAPL", "event_timestamp": TIME, "label": 1}]}
JOINED = {"rows": [{**ENTITIES["entities"][0], "ret_1": 0.0012, "ts": "2024-06-03T14:29:00Z", "available_at": TIME, "quality_flags": []}]}
COMPUTE = {
    "feature_set": "fs_v1",
    "bars": [{"instrument_id": "AAPL", "timeframe": "1m", "ts": TIME, "close": 194.1}],
    "last": True,
}
COMPUTED = {"feature_set": "fs_v1", "without_features": 0, "vectors": [VECTOR]}
FEAST = {"features": ["fs_v1:ret_1"], "entities": {"instrument_id": ["AAPL"]}}
FEAST_ANSWER = {
    "metadata": {"feature_names": ["instrument_id", "ret_1"]},
    "results": [
        {"values": ["AAPL"], "statuses": ["PRESENT"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
        {"values": [0.0012], "statuses": ["PRESENT"], "event_timestamps": [TIME]},
    ],
}
SET = {"version": "fs_v1", "fingerprint": "9f2c...", "definition": "feature_set fs_v1 ...", "applied_at": "2024-06-01T00:00:00+00:00"}
PROBLEM = {
    "type": "/problems/not-found", "title": "Not found", "status": 404, "detail": "feature set 'fs_v9' is not registered here",
    "instance": "/v1/features/latest", "kind": "NotFound",
}  # fmt: skip
PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {name: {"type": "integer" if name == "status" else "string"} for name in PROBLEM},
}
TABLES = {ARROW: {"schema": {"type": "string", "format": "binary"}}, PARQUET: {"schema": {"type": "string", "format": "binary"}}}


def answer(example: object, *, tables: bool = False, also: tuple[str, ...] = ()) -> dict[str, Any]:
    """The description of an answer."""
    content: dict[str, Any] = {JSON: {"schema": {"type": "object"}, "example": example}}
    content |= {LINES: {"schema": {"type": "string"}}} if LINES in also else {}
    return {"description": "The answer", "content": content | (TABLES if tables else {})}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of what goes wrong: a problem document of RFC 9457."""
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA, "example": PROBLEM}}
    return {status: {"description": "What is wrong, with the mend in `detail`", "content": content} for status in statuses}


def body(schema: dict[str, Any], example: object, *, tables: bool = False) -> dict[str, Any]:
    """The description of a body."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": example}} | (TABLES if tables else {})}}
