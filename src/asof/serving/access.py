"""Who may: at the root of the app, before anything else. What is not stated is refused.

1. A route that is stated to be public is answered.
2. Where a service is open, which it is to programs of its own machine alone, the request has to come from one: not through a proxy, nor
   from a page of somebody else's.
3. Who asks is found by key or token. What is wrong gets 401, and too much of it 429.
4. Only then it is told whether there is such a route. It states what it needs; who lacks that gets 403. Which feature set may be read is
   looked at where it is known: handlers ask `principal.read(version)`.
5. One line in the log `asof.audit` says what was decided, with the route and never with what was asked or brought.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network

from asof.config import Settings
from asof.errors import AccessError, AsofError, Unauthenticated
from asof.serving.asgi import App, Message, Receive, Scope, Send
from asof.serving.gate import EVERYBODY, NOBODY, Gate
from asof.serving.keys import WRONG
from asof.serving.limits import Buckets, Limited, Limits
from asof.serving.loopback import check_local
from asof.serving.principal import Principal
from asof.serving.problems import Problem, Problems, busy, problem_of
from asof.serving.routes import ANY, PUBLIC, Route, Routes

KEY_HEADERS = {b"authorization": b"", b"x-api-key": b"Bearer "}
"""Headers that bring a key, and what makes each the first of them."""
WRONG_BURST = 20
WRONG_RATE = 0.5
"""Wrong keys of one address that are answered as such: so many, and then one in two seconds."""
SAID_BURST = 20
SAID_RATE = 2.0
"""Lines about the refused of one address that are logged: so many, and then so many a second."""
TOKEN_THREADS = 2
"""That check tokens: a signature takes a tenth of a millisecond, an issuer that must be asked up to seconds."""

audit = logging.getLogger("asof.audit")


class Access:
    """Middleware that lets in who may. `rate` is of each key and token, in requests a second; `told` hears each verdict, for metrics."""

    def __init__(
        self,
        app: App,
        gate: Gate,
        table: Iterable[Route],
        rate: float = 0.0,
        audited: str = "all",
        told: Callable[[str], None] = lambda verdict: None,
    ) -> None:
        self._app = app
        self._gate = gate
        self._routes = Routes(table)
        self._rates = Buckets(rate, max(1.0, rate)) if rate else None
        self._wrong = Buckets(WRONG_RATE, WRONG_BURST)
        self._said = Buckets(SAID_RATE, SAID_BURST)
        self._left_out = 0
        self._audited = audited
        self._told = told
        self._threads = ThreadPoolExecutor(TOKEN_THREADS, "asof-tokens")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "there is nothing here for WebSockets"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        there = self._routes.at(scope["path"])
        route = next((one for one in there if one.answers(scope["method"])), None)
        if route is not None and route.need == PUBLIC:
            await self._app(_with(scope, route, NOBODY), receive, send)
            return
        principal: Principal | None = None
        try:
            principal = await self._who(scope)
            problem = self._refusal(scope, principal, there, route)
        except Unauthenticated as error:
            problem = self._counted(scope, error)
        except AsofError as error:
            problem = problem_of(error)
        if problem is None and principal is not None and route is not None:
            await self._let_in(scope, receive, send, principal, route)
        elif problem is not None:
            self._say(scope, principal, route, problem.status, problem.slug)
            await problem.answer(scope, send)

    async def _who(self, scope: Scope) -> Principal:
        authorization = _brought(scope["headers"])
        if self._gate.open:
            check_local(scope["headers"])
        if self._gate.is_quick(authorization):
            return self._gate.authenticate(authorization)
        if self._wrong.wait(_address(scope)):
            raise Unauthenticated(WRONG)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._gate.authenticate, authorization)

    def _counted(self, scope: Scope, error: Unauthenticated) -> Problem:
        """Why somebody is not known; where that was a key and there were many wrong ones, that. A right one is let in all the same."""
        brought = any(name in KEY_HEADERS for name, _ in scope["headers"])
        if brought and (seconds := self._wrong.take(_address(scope))):
            return busy(HTTPStatus.TOO_MANY_REQUESTS, "too-many-wrong-keys", "too many wrong keys came from this address: wait", seconds)
        return problem_of(error)

    def _refusal(self, scope: Scope, principal: Principal, there: list[Route], route: Route | None) -> Problem | None:
        """Why somebody who is known is not let in; None where they are."""
        counted = self._rates is not None and principal is not EVERYBODY
        if counted and self._rates and (seconds := self._rates.take((principal.prefix, principal.name))):
            detail = "this key asks too often: wait, and ask for several instruments in one request"
            return busy(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", detail, seconds)
        if route is None:
            return self._nowhere(scope, there)
        if route.need != ANY and not principal.may(route.need):
            wanted = "a scope read:<feature set>" if route.need == "read" else f"the scope {route.need}"
            detail = f"this key may not ask {route.path}: it needs {wanted}"
            return Problem(HTTPStatus.FORBIDDEN, "not-allowed", detail, AccessError.__name__)
        return None

    def _nowhere(self, scope: Scope, there: list[Route]) -> Problem:
        if not there:
            detail = f"there is no {scope['path'][:100]!r}{self._routes.nearest(scope['path'])}"
            return Problem(HTTPStatus.NOT_FOUND, "not-found", f"{detail}; the OpenAPI description lists what there is", "NotFound")
        allowed = sorted({method for route in there for method in route.methods} | {"HEAD" for route in there if "GET" in route.methods})
        listed = ", ".join(allowed)
        detail = f"{scope['method'][:20]} is not for {scope['path'][:100]}, which takes {listed}"
        return Problem(HTTPStatus.METHOD_NOT_ALLOWED, "not-for-this", detail, headers=((b"allow", listed.encode()),))

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, principal: Principal, route: Route) -> None:
        """Have a request answered. The decision is logged once the answer begins: a handler may still refuse the feature set."""
        status = 0

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._say(scope, principal, route, status, "not-allowed" if status == HTTPStatus.FORBIDDEN else "let-in")
            await send(message)

        try:
            await self._app(_with(scope, route, principal), receive, heard)
        finally:
            if not status:
                self._say(scope, principal, route, status, "let-in")

    def _say(self, scope: Scope, principal: Principal | None, route: Route | None, status: int, verdict: str) -> None:
        self._told(verdict)
        refused = verdict != "let-in"
        if self._audited == "off" or (self._audited == "refused" and not refused):
            return
        client = _client(scope)
        if refused and self._said.take(_address(scope)):
            self._left_out += 1
            return
        fields: dict[str, object] = {
            "verdict": verdict,
            "status": int(status),
            "who": principal.name if principal else None,
            "prefix": principal.prefix if principal else None,
            "client": client,
            "method": scope["method"][:20],
            "route": route.path if route else None,
        }
        if self._left_out:
            fields["not_logged"], self._left_out = self._left_out, 0
        audit.info("refused" if refused else "let in", extra=fields)


def guarded(app: App, gate: Gate, table: Iterable[Route], settings: Settings, told: Callable[[str], None] = lambda verdict: None) -> App:
    """An app behind all that stands before it, in the right order: who may, what errors look like, and how much."""
    limits = Limits.of(settings)
    return Access(Problems(Limited(app, limits)), gate, table, limits.rate, settings.audit, told)


def _with(scope: Scope, route: Route, principal: Principal) -> Scope:
    state: Mapping[str, object] = scope.get("state") or {}
    return {**scope, "state": {**state, "route": route, "principal": principal}}


def _brought(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """What was brought, as the header `authorization` has it. Raises `Unauthenticated` for two, of which either may be meant."""
    found = [KEY_HEADERS[name] + value for name, value in headers if name in KEY_HEADERS]
    if len(found) > 1:
        raise Unauthenticated("the request brings more than one key: send one header, Authorization or X-API-Key, once")
    return found[0].decode("latin-1").strip() if found else None


def _client(scope: Scope) -> str | None:
    return scope["client"][0] if scope.get("client") else None


def _address(scope: Scope) -> str:
    """Whose wrong keys are counted together: those of an address, or of a network where each client has many."""
    host = _client(scope) or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else host
