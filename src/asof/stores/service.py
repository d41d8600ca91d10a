"""A running service as a store to read from: its vectors and its registry, over HTTP or Arrow Flight.

The service answers with what its own store holds, as Arrow, so that whatever reads vectors works on it unchanged and gives the same
bytes. What is between is in `service_http` and `service_flight`; whichever it is, a table arrives whole, or there is a `StoreError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from asof import errors
from asof.errors import AccessError, AsofError, StoreError
from asof.stores.store import Registered, Selection, Table

JOINED_ROWS = 250_000
"""Entity rows that are sent at a time."""

Question = Mapping[str, Any]
"""What is asked for, by the names of `asof.serving.questions`; what is left open is None."""


class Wire(Protocol):
    """A way to a service. All raise `StoreError` where it cannot be reached or breaks off, else what it says is wrong."""

    url: str

    def history(self, question: Question, schema: pa.Schema) -> Iterator[pa.Table]:
        """The vectors that answer a question, as they come."""
        ...

    def latest(self, question: Question, schema: pa.Schema) -> pa.Table:
        """The newest vectors that answer a question."""
        ...

    def join(self, question: Question, entities: pa.Table, schema: pa.Schema) -> pa.Table:
        """The vectors that belong to entity rows, in their order."""
        ...

    def registered(self) -> dict[str, Registered]:
        """The feature sets that may be read."""
        ...

    def version(self) -> str:
        """The version of the service."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def _refusal(url: str, what: str) -> StoreError:
    return StoreError(
        f"{url} is a service, which gives out vectors and takes nothing in: {what} need the store itself"
        " (--store duckdb:///path or postgresql://...); a DuckDB file once no service holds it"
    )


def _refused(what: str) -> Any:  # noqa: ANN401  # it stands for methods of every signature
    def refuse(self: ServiceStore, *given: object, **named: object) -> NoReturn:
        """Refused: a service is for reading vectors."""
        raise _refusal(self.url, what)

    return refuse


class ServiceStore:
    """A store behind a service. See `asof.stores.store.Store` for the methods; those that write, or read inputs, are refused."""

    write_rows = 0

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.url = wire.url

    def read(
        self, table: Table, selection: Selection, columns: tuple[str, ...] | None = None, *, ordered: bool = True
    ) -> Iterator[pa.Table]:
        """See `Store.read`."""
        names = columns or tuple(table.schema.names)
        asked = self._asked(table, names, selection) | {
            "from": _text(selection.start), "to": _text(selection.end), "ordered": ordered or None,
        }  # fmt: skip
        if selection.instruments != ():
            yield from self._wire.history(asked, _schema(table, names))

    def latest(self, table: Table, selection: Selection) -> pa.Table:
        """See `Store.latest`."""
        asked = self._asked(table, tuple(table.schema.names), selection)
        if selection.instruments == ():
            return table.schema.empty_table()
        return self._wire.latest(asked | {"at": _text(selection.end)}, table.schema)

    def as_of(
        self, table: Table, entities: pa.Table, timeframe: str, columns: tuple[str, ...], known_at: datetime | None = None
    ) -> pa.Table:
        """See `Store.as_of`."""
        asked = self._asked(table, columns, Selection(timeframe, known_at=known_at))
        keys = entities.select(["instrument_id", "event_timestamp"])
        parts = [keys.slice(start, JOINED_ROWS) for start in range(0, len(keys), JOINED_ROWS)]
        schema = _schema(table, columns)
        found = pa.concat_tables([schema.empty_table(), *(self._wire.join(asked, part, schema) for part in parts)])
        if len(found) != len(entities):
            raise StoreError(f"{self.url} answered with {len(found):,} rows for {len(entities):,}: is it another version of asof?")
        return found

    def _asked(self, table: Table, columns: tuple[str, ...], selection: Selection) -> dict[str, Any]:
        """A question. Raises `StoreError` for a table of inputs, which a service does not give out."""
        if "quality_flags" not in table.schema.names:
            raise _refusal(self.url, table.name)
        if selection.span is not None:
            raise _refusal(self.url, "instruments next to one another")
        return {
            "feature_set": table.name,
            "timeframe": selection.timeframe,
            "instruments": None if selection.instruments is None else sorted(set(selection.instruments)),
            "known_at": _text(selection.known_at),
            "columns": list(columns),
        }

    def registered(self) -> dict[str, Registered]:
        """See `Store.registered`."""
        return self._wire.registered()

    def facts(self) -> Mapping[str, object]:
        """See `Store.facts`. A service tells no counts."""
        return {"kind": "asof service", "version": self._wire.version(), "layout": None, "rows": {}, "findings": []}

    def refresh(self) -> None:
        """See `Store.refresh`. The service does so itself."""

    def close(self) -> None:
        """See `Store.close`."""
        self._wire.close()

    transaction = _refused("writes")
    upsert = _refused("writes")
    withdraw = _refused("withdrawals")
    register = _refused("new feature sets")
    append = _refused("entries of a log")
    follow = _refused("followers")
    changes = _refused("followers")
    positions = _refused("positions")
    move = _refused("positions")
    revisions = _refused("every revision of a table")
    around = _refused("bars")
    spans = _refused("bars")
    cuts = _refused("bars")


def told(url: str, kind: str | None, detail: str, otherwise: type[AsofError] = StoreError) -> AsofError:
    """The error that a service tells of, by the name of its kind; `otherwise` where there is none of that name here."""
    found = vars(errors).get(kind or "")
    if isinstance(found, type) and issubclass(found, AsofError) and found is not AsofError:
        return found(detail)
    return otherwise(f"{url}: {detail}" if otherwise in (StoreError, AccessError) else detail)


def checked(url: str, found: pa.Table, schema: pa.Schema) -> pa.Table:
    """What a service answered, in the types of a schema. Raises `StoreError` where it is something else."""
    try:
        return found.select(schema.names).cast(schema)
    except (KeyError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{url} answered with other columns than were asked for: is it another version of asof? ({error})") from None


def registered_of(url: str, told_of: Mapping[str, Any]) -> Registered:
    """A feature set as a service tells of it. Raises `StoreError` where it does not."""
    try:
        applied_at = datetime.fromisoformat(told_of["applied_at"])
        return Registered(str(told_of["version"]), str(told_of["fingerprint"]), str(told_of["text"]), applied_at)
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"{url} tells of its feature sets in another way: is it another version of asof?") from None


def _schema(table: Table, columns: tuple[str, ...]) -> pa.Schema:
    return pa.schema([table.schema.field(name) for name in columns])


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
