"""The HTTP API: one table of routes, each with what it needs and who answers; and the app behind all that guards it.

1. `asof.serving.access` lets in who may, by the same table.
2. `_Front` counts, and answers what has to be quick or lasts, as plain ASGI: the newest vectors in JSON out of memory, and the stream.
3. All else is FastAPI's: parameters by type, their description as OpenAPI. Whoever reads a store does so on a thread of a bounded pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from asof import __version__
from asof.errors import AsofError, DataError, did_you_mean
from asof.serving import described, feast, history, joins, latest, sets, watching
from asof.serving.access import guarded
from asof.serving.answers import ARROW, JSON, LINES, PARQUET, TABULAR, accepted, streamed
from asof.serving.asgi import App, Message, Receive, Scope, Send
from asof.serving.computing import Brought, computed
from asof.serving.computing import answer as computed_answer
from asof.serving.described import HistoryAsked, JoinAsked, LatestAsked
from asof.serving.events import Stream
from asof.serving.gate import Gate
from asof.serving.principal import Principal
from asof.serving.problems import FAILED, Problem, problem_of
from asof.serving.questions import VECTORS, Question
from asof.serving.routes import ANY, PUBLIC, Route
from asof.serving.state import Serving

READERS = 16
"""Requests that read a store at the same time; more wait."""
LATEST = "/v1/features/latest"
STREAM = "/v1/features/stream"


# Handlers


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


def _principal(request: Request) -> Principal:
    principal: Principal = request.scope["state"]["principal"]
    return principal


def _accepted(request: Request, offered: tuple[str, ...]) -> str:
    return accepted(request.headers.get("accept", "*/*"), offered)


async def health(request: Request) -> Response:
    """How the service is: 200 where it is well, else 503."""
    return watching.health(_serving(request))


async def ready(request: Request) -> Response:
    """Whether it has what it is to serve: 200, else 503."""
    return watching.ready(_serving(request))


async def metrics(request: Request) -> Response:
    """Metrics, as Prometheus reads them."""
    return watching.metrics(_serving(request))


async def description(request: Request) -> Response:
    """This description."""
    return JSONResponse(request.app.openapi())


def feature_sets(request: Request) -> Response:
    """The registered feature sets that may be read."""
    return JSONResponse(sets.listed(_serving(request), _principal(request)))


def feature_set(request: Request, version: str) -> Response:
    """One feature set: its definition, fingerprint, and the graph of its lineage."""
    return JSONResponse(sets.shown(_serving(request), _principal(request), version))


def newest(request: Request, asked: Annotated[LatestAsked, Query()]) -> Response:
    """The newest vector of each instrument. JSON comes out of memory."""
    _principal(request).read(asked.feature_set)
    return latest.answered(_serving(request), asked.question(), _accepted(request, latest.FORMATS))


async def newest_of_many(request: Request) -> Response:
    """The newest vectors, by a question in JSON: for many instruments."""
    question = Question.read(await request.body(), latest.ASKED)
    _principal(request).read(question.feature_set)
    question = Question(**{**vars(question), "latest": True})
    return await run_in_threadpool(latest.answered, _serving(request), question, _accepted(request, latest.FORMATS))


def past(request: Request, asked: Annotated[HistoryAsked, Query()]) -> Response:
    """Vectors by instrument and time, streamed; with `limit`, a page at a time."""
    _principal(request).read(asked.feature_set)
    kind = _accepted(request, history.FORMATS)
    return history.answered(_serving(request), asked.question(), kind, asked.limit, asked.cursor)


async def past_of_many(request: Request) -> Response:
    """The same by a question in JSON: for many instruments."""
    question = Question.read(await request.body(), tuple(name for name in VECTORS if name not in ("latest", "at")))
    _principal(request).read(question.feature_set)
    kind = _accepted(request, history.FORMATS if question.columns is None else (ARROW, PARQUET))
    return await run_in_threadpool(history.answered, _serving(request), question, kind)


async def joined(request: Request, asked: Annotated[JoinAsked, Query()]) -> Response:
    """The entity rows of the body, each with the features that could be known at its `event_timestamp`."""
    _principal(request).read(asked.feature_set)
    kind, brought = _accepted(request, joins.FORMATS), request.headers.get("content-type", JSON)
    return await run_in_threadpool(joins.answered, _serving(request), asked.question(), await request.body(), brought, kind)


async def compute(request: Request) -> Response:
    """Features of the bars and events of the body, by the same engine; nothing is stored."""
    given, kind, serving = await request.body(), _accepted(request, (JSON, ARROW, PARQUET)), _serving(request)
    principal = _principal(request)

    def work() -> Response:
        brought = Brought.read(given)
        principal.read(brought.feature_set)
        if kind == JSON:
            return Response(computed_answer(given, serving.definition), media_type=JSON)
        _, vectors = computed(brought, serving.definition)
        return streamed(kind, TABULAR[kind](vectors.schema, iter([vectors])))

    return await run_in_threadpool(work)


async def online_features(request: Request) -> Response:
    """The newest vectors in the shape of Feast's feature server."""
    given, serving, may_read = await request.body(), _serving(request), _principal(request).may_read

    def work() -> bytes:
        return feast.answer(given, serving.newest, serving.names, may_read)

    return Response(await run_in_threadpool(work), media_type=JSON)


def stream(asked: str) -> None:
    """Answered by `asof.serving.events`."""


# The table


@dataclass(frozen=True)
class Handled:
    """A route, who answers it, and how that is described."""

    route: Route
    handler: Callable[..., Any]
    answer: Mapping[str, Any]
    wrong: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


GET, POST = frozenset({"GET"}), frozenset({"POST"})
ASK = (400, 401, 403, 404, 405, 406, 413, 422, 429, 503)
SENT = (*ASK, 408, 415)
_OBJECT = {"type": "object"}
_QUESTION = described.QuestionBody.model_json_schema()
_STREAM = {
    "parameters": [
        {"name": "feature_set", "in": "query", "required": True, "schema": {"type": "string"}, "example": "fs_v1"},
        {"name": "timeframe", "in": "query", "schema": {"type": "string"}, "example": "1m"},
        {"name": "instrument", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
        {"name": "newest", "in": "query", "schema": {"type": "boolean"}, "description": "The newest vectors first"},
        {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "Go on behind this event"},
    ]
}
_EVENTS = {"description": "Events that go on", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
_NUMBERS = {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}

TABLE: tuple[Handled, ...] = (
    Handled(Route("/health", GET, PUBLIC), health, described.answer({"status": "ok"}), (503,)),
    Handled(Route("/ready", GET, PUBLIC), ready, described.answer({"ready": True}), (503,)),
    Handled(Route("/metrics", GET, PUBLIC), metrics, _NUMBERS),
    Handled(Route("/v1/openapi.json", GET, ANY), description, described.answer({"openapi": "3.1.0"}), ASK),
    Handled(Route("/v1/feature-sets", GET), feature_sets, described.answer({"feature_sets": [described.SET]}), ASK),
    Handled(Route("/v1/feature-sets/{version}", GET), feature_set, described.answer(described.SET), ASK),
    Handled(Route(LATEST, GET), newest, described.answer(described.LATEST, tables=True), ASK),
    Handled(
        Route(LATEST, POST), newest_of_many, described.answer(described.LATEST, tables=True), SENT,
        described.body(_QUESTION, {"feature_set": "fs_v1", "timeframe": "1m", "instruments": ["AAPL", "MSFT"]}),
    ),
    Handled(Route("/v1/features/history", GET), past, described.answer(described.HISTORY, tables=True, also=(LINES,)), ASK),
    Handled(
        Route("/v1/features/history", POST), past_of_many, described.answer(described.HISTORY, tables=True, also=(LINES,)), SENT,
        described.body(_QUESTION, {"feature_set": "fs_v1", "timeframe": "1m", "instruments": ["AAPL"]}),
    ),
    Handled(
        Route("/v1/features/join", POST), joined, described.answer(described.JOINED, tables=True), SENT,
        described.body(_OBJECT, described.ENTITIES, tables=True),
    ),
    Handled(Route(STREAM, GET, lasting=True), stream, _EVENTS, ASK, _STREAM),
    Handled(
        Route("/v1/compute", POST), compute, described.answer(described.COMPUTED, tables=True), SENT,
        described.body(_OBJECT, described.COMPUTE),
    ),
    Handled(
        Route("/get-online-features", POST), online_features, described.answer(described.FEAST_ANSWER), SENT,
        described.body(_OBJECT, described.FEAST),
    ),
)  # fmt: skip
"""Every route there is. One that is not here is not answered."""
ROUTES = tuple(handled.route for handled in TABLE)


# The app


def described_api() -> FastAPI:
    """FastAPI with the routes of the table."""
    api = FastAPI(
        title="asof", version=__version__, summary="The feature store for markets", openapi_url=None, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    for one in TABLE:
        api.add_api_route(
            one.route.path,
            _no_parameters if one.handler is stream else one.handler,
            methods=sorted(one.route.methods),
            response_class=Response,
            responses={200: dict(one.answer), **described.problems(*one.wrong)},
            openapi_extra=dict(one.more),
            operation_id=one.handler.__name__,
            summary=(one.handler.__doc__ or "").splitlines()[0] if one.handler is not stream else "New vectors as server-sent events",
            description=None,
        )
    api.add_exception_handler(AsofError, _refused)
    api.add_exception_handler(RequestValidationError, _not_valid)
    api.add_exception_handler(Exception, _failed)
    return api


async def _no_parameters() -> Response:
    return Response(status_code=HTTPStatus.NOT_FOUND)  # `_Front` has answered before it comes to this


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AsofError)
    problem = problem_of(error)
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    return Response(problem.body(request.url.path), problem.status, headers, media_type="application/problem+json")


async def _failed(request: Request, error: Exception) -> Response:
    """What nobody thought of. It is raised again behind this answer, for the server to log."""
    problem = Problem(*FAILED, "something went wrong; the log says what")
    return Response(problem.body(request.url.path), problem.status, media_type="application/problem+json")


async def _not_valid(request: Request, error: Exception) -> Response:
    """Parameters that are missing, unknown, or of another type, as one of our errors."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name, given = ".".join(str(part) for part in first["loc"][1:])[:100], first.get("input")
    if first["type"] == "extra_forbidden":
        known = [parameter["name"] for parameter in _parameters(request)]
        detail = f"there is no parameter {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}"
    elif first["type"] == "missing":
        detail = f"the parameter {name} is missing: say which"
    else:
        detail = f"the parameter {name} is {given!r:.80}: {first['msg']}"
    return await _refused(request, DataError(detail))


def _parameters(request: Request) -> list[dict[str, Any]]:
    described_paths = request.app.openapi()["paths"]
    found: list[dict[str, Any]] = described_paths[request.scope["route"].path][request.method.lower()].get("parameters", [])
    return found


class _Front:
    """Counts requests, and answers those that FastAPI would be too slow for, or that go on."""

    def __init__(self, serving: Serving, api: App, events: Stream) -> None:
        self._serving = serving
        self._api = api
        self._events = events
        self._bounded = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._bounded:
            current_default_thread_limiter().total_tokens = READERS
            self._bounded = True
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the server leaves out the body
        route, status, began = scope["state"]["route"], 0, time.perf_counter()

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if route.path == STREAM:
                await self._events(scope, receive, heard)
            elif not await self._quick(route, scope, heard):
                await self._api(scope, receive, heard)
        finally:
            metrics = self._serving.metrics
            metrics.requests.labels(route.path, str(status or 500)).inc()
            if not route.lasting:
                metrics.request_seconds.labels(route.path).observe(time.perf_counter() - began)

    async def _quick(self, route: Route, scope: Scope, send: Send) -> bool:
        """Answer a request for newest vectors in JSON that needs nothing but memory; whether it was one."""
        if route.path != LATEST or scope["method"] != "GET":
            return False
        version, timeframe, names = "", "", []
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=20_000):
            if name == "instrument":
                names.append(value)
            elif name == "feature_set" and not version:
                version = value
            elif name == "timeframe" and not timeframe:
                timeframe = value
            else:
                return False
        accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "*/*")
        if not version or not timeframe or accepted(accept, latest.FORMATS) != JSON:
            return False
        scope["state"]["principal"].read(version)
        document = latest.from_memory(self._serving, Question(version, timeframe, tuple(names) or None))
        if document is None:
            return False
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(document)), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": document})
        return True


def application(serving: Serving, gate: Gate) -> tuple[App, Stream]:
    """The app of a service, and its stream, which is to be closed before the server ends."""
    api, events = described_api(), Stream(serving.newest, serving.metrics)
    api.state.serving = serving

    def told(verdict: str) -> None:
        serving.metrics.access.labels(verdict).inc()

    return guarded(_Front(serving, api, events), gate, ROUTES, serving.settings, told), events
