"""The way to a service by Arrow Flight: `grpc://host:port`, or `grpc+tls://`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from asof.errors import AccessError, AsofError, StoreError
from asof.stores.service import Question, checked, registered_of, told
from asof.stores.store import Registered

SECONDS = 600.0
"""How long a call may take in all."""
PAUSES = (0.2, 1.0)
"""Seconds before a call that failed for want of a connection is tried again, where nothing of its answer has come."""
GONE = (flight.FlightUnavailableError, flight.FlightTimedOutError, flight.FlightCancelledError, flight.FlightInternalError)

T = TypeVar("T")


class FlightWire:
    """Calls to one service. Raises `StoreError` where it cannot be reached at all."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
        self._options = flight.FlightCallOptions(timeout=SECONDS, headers=headers)
        authorities = os.environ.get("SSL_CERT_FILE") if url.startswith("grpc+tls:") else None
        try:
            roots = {"tls_root_certs": Path(authorities).read_bytes()} if authorities else {}
            self._client = flight.FlightClient(url, **roots)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{url} cannot be used: {_line(error)}") from None

    def history(self, question: Question, schema: pa.Schema) -> Iterator[pa.Table]:
        """See `Wire.history`. A call is tried again only before its first batch: after that, rows would come twice."""
        with self._errors():
            reader, first = self._again(lambda: self._begun(question))
            while first is not None:
                yield checked(self.url, pa.Table.from_batches([first]), schema)
                first = _next(reader)

    def _begun(self, question: Question) -> tuple[flight.FlightStreamReader, pa.RecordBatch | None]:
        reader = self._client.do_get(flight.Ticket(_json(question)), self._options)
        return reader, _next(reader)

    def latest(self, question: Question, schema: pa.Schema) -> pa.Table:
        """See `Wire.latest`."""
        asked = {**question, "latest": True}
        with self._errors():
            found = self._again(lambda: self._client.do_get(flight.Ticket(_json(asked)), self._options).read_all())
        return checked(self.url, found, schema)

    def join(self, question: Question, entities: pa.Table, schema: pa.Schema) -> pa.Table:
        """See `Wire.join`."""
        with self._errors():
            return checked(self.url, self._again(lambda: self._joined(question, entities)), schema)

    def _joined(self, question: Question, entities: pa.Table) -> pa.Table:
        asked = flight.FlightDescriptor.for_command(_json({n: v for n, v in question.items() if n != "instruments"}))
        writer, reader = self._client.do_exchange(asked, self._options)
        with writer:
            writer.begin(entities.schema)
            writer.write_table(entities.combine_chunks())
            writer.done_writing()
            return reader.read_all()

    def registered(self) -> dict[str, Registered]:
        """See `Wire.registered`."""
        with self._errors():
            found = self._again(lambda: [info.app_metadata for info in self._client.list_flights(options=self._options)])
        sets = [registered_of(self.url, json.loads(text)) for text in found]
        return {one.version: one for one in sets}

    def version(self) -> str:
        """See `Wire.version`."""
        with self._errors():
            (about,) = self._again(lambda: list(self._client.do_action(flight.Action("about", b""), self._options)))
        return str(json.loads(about.body.to_pybytes())["version"])

    def close(self) -> None:
        """See `Wire.close`."""
        self._client.close()

    def _again(self, call: Callable[[], T]) -> T:
        """What a call answers, which reads alone: where the connection fails it is made again."""
        for pause in PAUSES:
            try:
                return call()
            except flight.FlightUnavailableError:
                time.sleep(pause)
        return call()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (flight.FlightError, pa.ArrowException, OSError) as error:
            raise self._ours(error) from None

    def _ours(self, error: Exception) -> AsofError:
        """An error of Flight's as ours: what the service told, or what went wrong on the way."""
        extra = getattr(error, "extra_info", b"")
        if extra:
            try:
                problem: dict[str, Any] = json.loads(extra)
                return told(self.url, str(problem["kind"]), str(problem["detail"]))
            except (ValueError, KeyError, TypeError):
                pass
        if isinstance(error, flight.FlightUnauthenticatedError | flight.FlightUnauthorizedError):
            return AccessError(f"{self.url}: {_line(error)}")
        if isinstance(error, flight.FlightTimedOutError):
            return StoreError(f"{self.url} did not answer within {SECONDS:g} seconds; ask for less at a time")
        if isinstance(error, GONE):
            return StoreError(f"{self.url} cannot be reached, or broke off its answer, of which nothing is kept: {_line(error)}")
        return StoreError(f"{self.url}: {_line(error)}")


def _next(reader: flight.FlightStreamReader) -> pa.RecordBatch | None:
    try:
        return reader.read_chunk().data
    except StopIteration:
        return None


def _json(question: Question) -> bytes:
    return json.dumps({name: value for name, value in question.items() if value is not None}).encode()


def _line(error: Exception) -> str:
    """The first sentence of a message, without what gRPC has to say about itself."""
    text = str(error).splitlines()[0]
    for noise in (". gRPC client debug context", ". Client context", ". Detail: "):
        text = text.partition(noise)[0]
    return text.rpartition("with message: ")[2]
