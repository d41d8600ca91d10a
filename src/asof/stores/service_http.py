"""The way to a service by HTTP: `http://host:8006` or `https://`, with tables as Arrow streams and the standard library alone.

1. Connections are kept and used again. Each answer is read by one thread; several threads have several connections.
2. All that is asked for is reading, so that it is asked again where the connection fails before anything of the answer was used, or
   where the service is busy.
3. An Arrow stream says where it ends. One that stops before, however politely, is a `StoreError`.
"""

from __future__ import annotations

import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import pyarrow as pa

from asof.errors import AccessError, AsofError, DataError, NotFound, Overloaded, StoreError
from asof.stores.service import Question, checked, registered_of, told
from asof.stores.store import Registered

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
SECONDS = 60.0
"""How long nothing may come."""
PAUSES = (0.2, 1.0)
"""Seconds before a call is made again."""
LONGEST_PAUSE = 5.0
"""Of a service that says how long to wait, no longer than this."""
MOST_TEXT = 1 << 26
"""Bytes of an answer that is no table."""

PLURALS = {"instruments": "instrument", "columns": "column", "features": "feature"}
"""What is given several times in a query, where a JSON object has a list."""
KINDS: Mapping[int, type[AsofError]] = {
    400: DataError, 401: AccessError, 403: AccessError, 404: NotFound, 413: DataError, 422: DataError, 429: Overloaded, 503: Overloaded,
}  # fmt: skip
"""What a status means where the problem does not tell its kind."""
BUSY = (429, 503)

T = TypeVar("T")


class Cut(Exception):
    """The connection failed, or the answer broke off."""


class HttpWire:
    """Requests to one service. Raises `StoreError` for an address that is none."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise StoreError(f"{parts.scheme}://...@{parts.hostname} names a user: a service knows keys; leave it out, and give ASOF_KEY")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.query or parts.fragment:
            raise StoreError(f"{url} is no address of a service; write http://host:8006")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise AccessError("the key holds characters that no key has: copy it again, without line breaks")
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": "asof"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        context = ssl.create_default_context() if parts.scheme == "https" else None
        self._new: Callable[[], HTTPConnection] = (
            (lambda: HTTPSConnection(host, port, timeout=SECONDS, context=context))
            if context
            else (lambda: HTTPConnection(host, port, timeout=SECONDS))
        )
        self._idle: deque[HTTPConnection] = deque()

    def history(self, question: Question, schema: pa.Schema) -> Iterator[pa.Table]:
        """See `Wire.history`. It is asked again only before its first batch: after that, rows would come twice."""
        batches = self._again(lambda: _begun(self._batches("history", question)))
        with self._errors():
            for batch in batches:
                yield checked(self.url, pa.Table.from_batches([batch]), schema)

    def latest(self, question: Question, schema: pa.Schema) -> pa.Table:
        """See `Wire.latest`."""
        return self._whole(lambda: self._batches("latest", question), schema)

    def join(self, question: Question, entities: pa.Table, schema: pa.Schema) -> pa.Table:
        """See `Wire.join`."""
        asked = [
            (PLURALS.get(name, name), each)
            for name, value in question.items()
            if value is not None
            for each in (value if isinstance(value, list) else [value])
        ]
        body = _stream(entities)
        return self._whole(lambda: self._batches(f"join?{urlencode(asked)}", body), schema)

    def _whole(self, call: Callable[[], Iterator[pa.RecordBatch]], schema: pa.Schema) -> pa.Table:
        batches = self._again(lambda: list(call()))
        return checked(self.url, pa.Table.from_batches(batches), schema) if batches else schema.empty_table()

    def _batches(self, what: str, asked: Question | bytes) -> Iterator[pa.RecordBatch]:
        """The batches of an Arrow answer as they come. Raises `Cut` where it breaks off."""
        kind = ARROW if isinstance(asked, bytes) else JSON
        body = asked if isinstance(asked, bytes) else json.dumps({n: v for n, v in asked.items() if v is not None}).encode()
        with self._asked("POST", f"/v1/features/{what}", ARROW, body, kind) as response:
            stream = _Whole(response)
            try:
                yield from pa.ipc.open_stream(stream)
            except (pa.ArrowException, OSError, HTTPException) as error:
                raise Cut(f"its answer breaks off or is no Arrow stream: {_line(error)}") from None
            if stream.ended:
                raise Cut("its answer breaks off before the end of the Arrow stream")

    def registered(self) -> dict[str, Registered]:
        """See `Wire.registered`."""
        found = self._again(lambda: self._document("/v1/feature-sets")[0])
        try:
            told_of = list(found["feature_sets"])
        except (KeyError, TypeError):
            raise self._stranger("it tells of its feature sets in another way") from None
        sets = [registered_of(self.url, {**one, "text": one.get("definition")}) for one in told_of]
        return {one.version: one for one in sets}

    def version(self) -> str:
        """See `Wire.version`."""
        server = self._again(lambda: self._document("/v1/feature-sets")[1])
        name, _, version = server.partition("/")
        return version if name == "asof" and version else "unknown"

    def _document(self, path: str) -> tuple[dict[str, Any], str]:
        """An answer in JSON, and who says that it is from it."""
        with self._asked("GET", path, JSON) as response:
            try:
                found: dict[str, Any] = json.loads(response.read(MOST_TEXT))
                return found, response.headers.get("Server", "")
            except (OSError, HTTPException) as error:
                raise Cut(_line(error)) from None
            except ValueError:
                raise self._stranger("it answers with no JSON") from None

    @contextmanager
    def _asked(self, method: str, path: str, accept: str, body: bytes | None = None, kind: str = JSON) -> Iterator[HTTPResponse]:
        """The answer to a request, if it is one that was asked for. Its connection is used again where it was read to its end."""
        connection, whole = (self._idle.pop() if self._idle else self._new()), False
        try:
            response = self._sent(connection, method, path, {"Accept": accept} | ({} if body is None else {"Content-Type": kind}), body)
            if response.status != HTTPStatus.OK:
                raise self._problem(response)
            if response.headers.get_content_type() != accept:
                raise self._stranger(f"it answers with {response.headers.get_content_type()}, not with {accept}")
            yield response
            whole = _read_up(response)
        finally:
            if whole:
                self._idle.append(connection)
            else:
                connection.close()

    def _sent(self, connection: HTTPConnection, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> HTTPResponse:
        try:
            connection.request(method, self._path + path, body, {**self._headers, **headers})
            return connection.getresponse()
        except (OSError, HTTPException) as error:
            raise Cut(_line(error)) from None

    def _problem(self, response: HTTPResponse) -> AsofError:
        """The error that an answer tells of, in its own words where it has some."""
        try:
            problem = json.loads(response.read(MOST_TEXT))
            kind, detail = problem.get("kind"), str(problem["detail"])
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
            return self._unexplained(response)
        if response.status in BUSY and kind is None:
            return _Busy(f"{self.url}: {detail}", response.headers.get("Retry-After"))
        return told(self.url, kind, detail, KINDS.get(response.status, StoreError))

    def _unexplained(self, response: HTTPResponse) -> AsofError:
        status = f"{response.status} {response.reason}"
        if response.status in BUSY:
            return _Busy(f"{self.url} answers {status}", response.headers.get("Retry-After"))
        if 300 <= response.status < 400:
            return self._stranger(f"it points to {response.headers.get('Location', 'another address')}; name that")
        return self._stranger(f"it answers {status}")

    def _stranger(self, why: str) -> StoreError:
        return StoreError(f"{self.url} does not answer as an asof service of this version does: {why}. Is the address right?")

    def _again(self, call: Callable[[], T]) -> T:
        """What a call answers, made again where the connection fails or the service is busy."""
        for pause in PAUSES:
            try:
                return call()
            except Cut:
                time.sleep(pause)
            except _Busy as busy:
                time.sleep(busy.pause(pause))
        with self._errors():
            return call()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Cut as cut:
            raise StoreError(f"{self.url} cannot be reached, or broke off; nothing of this answer is kept: {cut}") from None

    def close(self) -> None:
        """See `Wire.close`."""
        while self._idle:
            self._idle.pop().close()


class _Busy(Overloaded):
    """A service that says when to come again."""

    def __init__(self, message: str, after: str | None) -> None:
        super().__init__(message)
        self._after = after

    def pause(self, otherwise: float) -> float:
        return min(float(self._after), LONGEST_PAUSE) if self._after and self._after.isdigit() else otherwise


class _Whole:
    """An answer as a file, which notes that it was read to its end: an Arrow stream that is whole is not."""

    closed = False

    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.ended = False

    def read(self, size: int) -> bytes:
        found: bytes = self._response.read(size)
        self.ended = self.ended or len(found) < size
        return found

    def readable(self) -> bool:
        return True


def _read_up(response: HTTPResponse) -> bool:
    """Whether nothing is left of an answer, so that its connection can be used again. Raises `Cut` where it ends otherwise than it said."""
    try:
        return not response.read(1) and not response.will_close
    except (OSError, HTTPException) as error:
        raise Cut(_line(error)) from None


def _begun(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, of which the first is there."""
    first = next(batches, None)

    def all_of_them() -> Iterator[pa.RecordBatch]:
        if first is not None:
            yield first
            yield from batches

    return all_of_them()


def _stream(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    body: bytes = out.getvalue().to_pybytes()
    return body


def _line(error: BaseException) -> str:
    text = str(error).splitlines()
    name = type(error).__name__
    if isinstance(error, TimeoutError):
        return f"nothing came for {SECONDS:g} seconds"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name its authority with SSL_CERT_FILE"
    return text[0] if text else name
