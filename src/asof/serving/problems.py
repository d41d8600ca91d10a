"""Errors as clients get them: problem details of RFC 9457, with what, which value, and the mend; never a traceback."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil

from asof.config import ConfigError
from asof.errors import (
    AccessError,
    AsofError,
    DataError,
    DefinitionError,
    IssuerError,
    NotFound,
    Overloaded,
    StoreError,
    Unauthenticated,
)
from asof.serving.asgi import App, Message, Receive, Scope, Send

KIND = b"application/problem+json"
MOST_INSTANCE = 200
FAILED = HTTPStatus.INTERNAL_SERVER_ERROR, "failed"

log = logging.getLogger(__name__)
CHALLENGE = (b"www-authenticate", b'Bearer realm="asof"')


class NotAcceptable(DataError):
    """A format that an answer cannot have."""


class Unsupported(DataError):
    """A format that a request cannot have."""


@dataclass(frozen=True)
class Problem:
    """An answer that is an error. `slug` is its stable name; `kind` the class of the error, where the client is to raise the same."""

    status: HTTPStatus
    slug: str
    detail: str
    kind: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self, instance: str) -> bytes:
        """Its document."""
        document = {
            "type": f"/problems/{self.slug}",
            "title": self.slug.replace("-", " ").capitalize(),
            "status": self.status.value,
            "detail": self.detail,
            "instance": instance[:MOST_INSTANCE],
        }
        return json.dumps(document | ({} if self.kind is None else {"kind": self.kind})).encode()

    async def answer(self, scope: Scope, send: Send) -> None:
        """Send it in answer to a request."""
        body = self.body(str(scope.get("path", "")))
        headers = [
            (b"content-type", KIND),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            *self.headers,
        ]
        await send({"type": "http.response.start", "status": self.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def busy(status: HTTPStatus, slug: str, detail: str, seconds: float) -> Problem:
    """A problem that is gone after a while."""
    return Problem(status, slug, detail, headers=((b"retry-after", b"%d" % max(1, ceil(seconds))),))


STATUSES: dict[type[AsofError], tuple[HTTPStatus, str]] = {
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, "unauthenticated"),
    IssuerError: (HTTPStatus.SERVICE_UNAVAILABLE, "issuer-away"),
    AccessError: (HTTPStatus.FORBIDDEN, "not-allowed"),
    NotFound: (HTTPStatus.NOT_FOUND, "not-found"),
    NotAcceptable: (HTTPStatus.NOT_ACCEPTABLE, "not-acceptable"),
    Unsupported: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-format"),
    DataError: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable-request"),
    DefinitionError: (HTTPStatus.UNPROCESSABLE_ENTITY, "unusable-request"),
    Overloaded: (HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"),
    StoreError: (HTTPStatus.SERVICE_UNAVAILABLE, "store-away"),
    ConfigError: (HTTPStatus.SERVICE_UNAVAILABLE, "misconfigured"),
}
"""The status and slug of each kind of error, the first that fits; of others 500."""
AGAIN_SECONDS = 1
"""After which it is of use to ask again, where it is at all."""


def problem_of(error: AsofError) -> Problem:
    """An error as a client gets it."""
    status, slug = next(
        (found for kind, found in STATUSES.items() if isinstance(error, kind)), (HTTPStatus.INTERNAL_SERVER_ERROR, "failed")
    )
    if isinstance(error, ConfigError):
        return Problem(status, slug, "the service cannot be used as it is set up; its log says why", type(error).__name__)
    if isinstance(error, IssuerError | Overloaded):
        return busy(status, slug, str(error), AGAIN_SECONDS)
    headers = (CHALLENGE,) if status == HTTPStatus.UNAUTHORIZED else ()
    return Problem(status, slug, str(error), type(error).__name__, headers)


class Problems:
    """Middleware inside of `Access`: what an app raises before it has answered anything is answered as a problem."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except AsofError as error:
            if begun:
                raise
            await problem_of(error).answer(scope, send)
        except Exception:  # the outermost edge: what went wrong is for the log, not for the client
            if begun:
                raise
            log.exception("a request failed")
            await Problem(*FAILED, "something went wrong; the log says what").answer(scope, send)
