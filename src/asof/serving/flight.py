"""Arrow Flight: history and joins in bulk, for programs that read millions of vectors.

1. A call brings its key in the header `authorization`, as over HTTP; one that may not read is turned away before anything is read.
2. `list_flights` and `get_flight_info` tell of the registered sets that may be read. A ticket, and the command of an exchange, is a JSON
   object (`asof.serving.questions`).
3. `do_get` streams from the store's own iterator, in batches of bounded size: memory does not grow with what is asked for.
4. `do_exchange` gives back each batch of entity rows joined, as one batch of as many rows. Who writes many reads in between.
5. An error is Flight's of the same meaning, with our message; its `extra_info` is `{"kind", "detail"}` in JSON, for our client.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa
from pyarrow import flight

from asof import __version__
from asof.config import ConfigError
from asof.errors import AccessError, AsofError, DataError, DefinitionError, IssuerError, NotFound, Overloaded, StoreError, Unauthenticated
from asof.feature_store import FeatureStore
from asof.features.feature_set import FeatureSet
from asof.serving.questions import JOIN, VECTORS, Question
from asof.serving.tls import Tls
from asof.stores.store import Registered

BATCH_BYTES = 32 << 20
"""Of a batch that is sent: large enough that what a message costs does not count, small enough for a client's memory."""
MOST_ENTITIES = 1_000_000
"""Rows of a batch that is joined."""
MOST_CALLS = 16
"""That read at the same time; each has a batch of the store's in memory."""
SHUTDOWN_SECONDS = 20.0
"""How long calls that are under way may take to finish."""

log = logging.getLogger(__name__)


class Principal(Protocol):
    """Who calls."""

    def may_read(self, version: str) -> bool:
        """Whether vectors of a feature set may be read."""
        ...


Authenticate = Callable[[str | None], Principal]
"""Who calls, by the header `authorization`. Raises `AccessError` for one that is nobody."""


class Everybody:
    """Who calls where nothing asks for a key: a service on the loopback."""

    def may_read(self, version: str) -> bool:
        """Yes."""
        return True


def everybody(authorization: str | None) -> Principal:
    """Let all read all."""
    return Everybody()


ERRORS: Mapping[type[AsofError], Callable[[str, bytes], Exception]] = {
    NotFound: flight.FlightServerError,
    DataError: flight.FlightServerError,
    DefinitionError: flight.FlightServerError,
    AccessError: flight.FlightUnauthorizedError,
    Overloaded: flight.FlightUnavailableError,
    StoreError: flight.FlightUnavailableError,
}
"""Flight's error for each of ours, the first that fits; the rest are internal."""


def said(error: AsofError) -> Exception:
    """An error of ours as Flight's."""
    kind = next((theirs for ours, theirs in ERRORS.items() if isinstance(error, ours)), flight.FlightInternalError)
    return kind(str(error), json.dumps({"kind": type(error).__name__, "detail": str(error)}).encode())


@contextmanager
def as_flight_errors() -> Iterator[None]:
    """Errors of ours leave the block as Flight's; of others only that there was one, for their texts are not for strangers."""
    try:
        yield
    except AsofError as error:
        raise said(error) from None
    except flight.FlightError:
        raise
    except Exception as error:  # the outermost edge: what went wrong is for the log, not for the client
        log.exception("a call failed")
        raise flight.FlightInternalError("something went wrong; the service's log says what") from error


class _Caller(flight.ServerMiddleware):  # type: ignore[misc]  # PyArrow ships no types
    def __init__(self, principal: Principal) -> None:
        super().__init__()
        self.principal = principal


class _Access(flight.ServerMiddlewareFactory):  # type: ignore[misc]  # likewise
    def __init__(self, authenticate: Authenticate) -> None:
        super().__init__()
        self._authenticate = authenticate

    def start_call(self, info: object, headers: Mapping[str, list[str | None]]) -> _Caller:
        """Who calls. gRPC has the names of headers in small letters."""
        given = headers.get("authorization") or [None]
        try:
            if len(given) > 1:
                raise Unauthenticated("the call brings more than one key")
            return _Caller(self._authenticate(given[0]))
        except IssuerError as error:
            raise flight.FlightUnavailableError(str(error)) from None
        except ConfigError as error:
            log.error("nobody can be let in", extra={"error": str(error)})  # noqa: TRY400  # it says all
            raise flight.FlightUnavailableError("the service cannot be used as it is set up; its log says why") from None
        except AsofError as error:
            raise flight.FlightUnauthenticatedError(str(error)) from None


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # likewise
    """Answers Flight calls over an opened store, from when it is made until `shutdown`. Raises `ConfigError` where it cannot listen."""

    def __init__(
        self, store: FeatureStore, host: str = "127.0.0.1", port: int = 0, authenticate: Authenticate = everybody, tls: Tls | None = None
    ) -> None:
        self._store = store
        self._free = threading.BoundedSemaphore(MOST_CALLS)
        self._stopping = threading.Event()
        location = f"grpc{'+tls' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
        pairs = [(tls.certificate.read_bytes(), tls.key.read_bytes())] if tls else []
        try:
            super().__init__(location, tls_certificates=pairs, middleware={"access": _Access(authenticate)})
        except (pa.ArrowException, OSError) as error:
            mend = "choose another with --flight-port (0 is any port that is free)"
            del self._store
            raise ConfigError(f"Flight cannot listen at {host}:{port}: {str(error).splitlines()[0]}; {mend}") from None

    def stop(self) -> None:
        """End it; calls that are under way end at their next batch. One that nobody reads is left to the end of the process."""
        self._stopping.set()
        ending = threading.Thread(target=self.shutdown, name="asof-flight-end", daemon=True)
        ending.start()
        ending.join(SHUTDOWN_SECONDS)
        del self._store  # PyArrow never lets go of a server, and so of what it holds

    def list_flights(self, context: flight.ServerCallContext, criteria: bytes) -> Iterator[flight.FlightInfo]:
        """The registered feature sets that the caller may read, each with what the registry has of it."""
        with as_flight_errors():
            registry = self._store.registered()
            for version, there in registry.items():
                if _caller(context).may_read(version):
                    yield _info(self._store.definition(version), there)

    def get_flight_info(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """Of a ticket, what it will give; of the path of a feature set, or of one and a timeframe, that."""
        with as_flight_errors():
            if descriptor.descriptor_type == flight.DescriptorType.CMD:
                question = Question.read(descriptor.command, VECTORS)
            else:
                question = Question.of_path([part.decode(errors="replace") for part in descriptor.path])
            definition = self._readable(context, question)
            return _info(definition, self._store.registered()[definition.version], question, descriptor)

    def get_schema(self, context: flight.ServerCallContext, descriptor: flight.FlightDescriptor) -> flight.SchemaResult:
        """The schema of what a ticket or a path will give."""
        return flight.SchemaResult(self.get_flight_info(context, descriptor).schema)

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.FlightDataStream:
        """Stored vectors of a selection, or the newest of each instrument."""
        with as_flight_errors():
            question = Question.read(ticket.ticket, VECTORS)
            definition = self._readable(context, question)
            schema = question.schema(definition)
            tables = question.tables(self._store, definition)
            return flight.GeneratorStream(schema, self._batches(tables))

    def _batches(self, tables: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
        """Tables in batches of bounded size. Its place among the calls is taken when the first is asked for, and given back at its end."""
        with as_flight_errors(), self._place():
            for table in tables:
                rows = max(1, BATCH_BYTES * len(table) // max(1, table.nbytes))
                for batch in table.to_batches(max_chunksize=rows):
                    yield batch
                    if self._stopping.is_set():
                        raise StoreError("the service is ending: ask again, of another if there is one")

    def do_exchange(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.MetadataRecordBatchWriter,
    ) -> None:
        """Entity rows in, the same rows joined out: for each batch one batch."""
        with as_flight_errors(), self._place():
            question = Question.read(descriptor.command or b"", JOIN)
            definition = self._readable(context, question)
            begun = False
            for batch in _given(reader):
                joined = question.joined(self._store, definition, pa.Table.from_batches([batch]))
                if not begun:
                    writer.begin(joined.schema)
                    begun = True
                writer.write_table(joined.combine_chunks())
            if not begun:
                writer.begin(question.joined(self._store, definition, reader.schema.empty_table()).schema)

    def list_actions(self, context: flight.ServerCallContext) -> list[tuple[str, str]]:
        """The one action."""
        return [("about", "What answers here: a JSON object with `service` and its `version`.")]

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[bytes]:
        """What answers here."""
        with as_flight_errors():
            if action.type != "about":
                raise NotFound(f"there is no action {action.type!r}; there is 'about'")
            return [json.dumps({"service": "asof", "version": __version__}).encode()]

    def _readable(self, context: flight.ServerCallContext, question: Question) -> FeatureSet:
        """The feature set of a question. Raises `AccessError` where the caller may not read it, whether it is there or not."""
        if not _caller(context).may_read(question.feature_set):
            raise AccessError(f"this key may not read {question.feature_set}: it lacks the scope read:{question.feature_set}")
        return question.definition(self._store)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            raise Overloaded(f"the service reads for {MOST_CALLS} calls already: try again in a moment")
        try:
            yield
        finally:
            self._free.release()


def _given(reader: flight.MetadataRecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of an exchange. Raises `DataError` for one that is too large, or is none."""
    while True:
        try:
            batch = reader.read_chunk().data
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise DataError(f"the entities cannot be read: {str(error).splitlines()[0]}") from None
        if batch is None:
            continue
        if len(batch) > MOST_ENTITIES:
            raise DataError(f"a batch has {len(batch):,} entity rows; send at most {MOST_ENTITIES:,} at a time")
        yield batch


def _caller(context: flight.ServerCallContext) -> Principal:
    principal: Principal = context.get_middleware("access").principal
    return principal


def _info(
    definition: FeatureSet, there: Registered, question: Question | None = None, descriptor: flight.FlightDescriptor | None = None
) -> flight.FlightInfo:
    asked = question or Question(definition.version)
    endpoints = [flight.FlightEndpoint(asked.ticket(), [])] if asked.timeframe else []
    told = {"version": there.version, "fingerprint": there.fingerprint, "text": there.text, "applied_at": there.applied_at.isoformat()}
    at = descriptor or flight.FlightDescriptor.for_path(definition.version)
    return flight.FlightInfo(asked.schema(definition), at, endpoints, app_metadata=json.dumps(told).encode())
