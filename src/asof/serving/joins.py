"""As-of joins over HTTP: a table of entities in, the same rows with what could be known of each out."""

from __future__ import annotations

from fastapi.responses import Response

from asof.errors import DataError
from asof.serving.answers import ARROW, JSON, PARQUET, TABULAR, as_rows, streamed, table_of
from asof.serving.questions import Question
from asof.serving.state import Serving

FORMATS = (JSON, ARROW, PARQUET)
MOST_ROWS = 1_000_000
"""Entity rows of a request."""


def answered(serving: Serving, question: Question, body: bytes, brought: str, kind: str) -> Response:
    """Entity rows, `brought` in a format, joined, in another."""
    store = serving.opened()
    definition = question.definition(store)
    entities = table_of(brought, body)
    if len(entities) > MOST_ROWS:
        raise DataError(f"there are {len(entities):,} entity rows, and {MOST_ROWS:,} are the most: send them in parts")
    serving.limits.check_values(len(entities), len(question.columns or question.features or tuple(definition.features)))
    joined = question.joined(store, definition, entities)
    if kind == JSON:
        return Response(b'{"rows": %b}\n' % as_rows(joined), media_type=JSON)
    return streamed(kind, TABULAR[kind](joined.schema, iter([joined])))
