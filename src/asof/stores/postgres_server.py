"""A PostgreSQL server: its address, connections to it, and its errors as ours. No message holds a password."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg import errors
from psycopg.adapt import Dumper
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from asof.errors import RowsRefused, StoreError

Connection = psycopg.Connection[tuple[object, ...]]

CONNECT_SECONDS = 10
"""How long to wait for a server that does not answer, unless the URL has a `connect_timeout`."""
NEVER = 2**31
"""After so many times a statement is prepared that does not ask for it."""
_SESSION = """
SELECT set_config('TimeZone', 'UTC', false), set_config('extra_float_digits', '1', false), set_config('jit', 'off', false),
    set_config('application_name', 'asof', false), set_config('idle_in_transaction_session_timeout', '5min', false),
    set_config('plan_cache_mode', 'force_custom_plan', false)
"""
"""Floats as text keep all their bits whatever the server's settings; compiling a query takes longer than any of ours; and a process that
hangs in the middle of a transaction does not hold up the others for ever. What is prepared is parsed once and planned each time: a plan
that was made while a table was small would scan it when it is large."""

MENDS: dict[type[psycopg.Error], str] = {
    errors.UndefinedTable: "run asof migrate",
    errors.UndefinedColumn: "run asof migrate",
    errors.UndefinedFunction: "run asof migrate",
    errors.DiskFull: "the server's disk is full, and nothing of this step was kept. Free some space and run it again",
    errors.OutOfMemory: "the server is out of memory, and nothing of this step was kept. Run it again with less at a time",
    errors.InsufficientPrivilege: "let the owner grant it, or name another user in the store's URL",
    errors.ReadOnlySqlTransaction: "this server only reads; name the one that writes",
    errors.DeadlockDetected: "another process wrote the same rows, and nothing of this step was kept. Run it again",
    errors.LockNotAvailable: "another process holds the rows, and nothing of this step was kept. Run it again",
    errors.QueryCanceled: "the server stopped the query, and nothing of this step was kept",
}
"""What mends an error, where the server does not say it."""

LOST = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleSessionTimeout,
    errors.IdleInTransactionSessionTimeout,
)
"""What a server says before it hangs up."""


class Array(bytes):
    """The value of a parameter that is an array, as the server has it. The statement says of what type: `?::text[]`."""


class _ArrayDumper(Dumper):
    """Passes it on."""

    format = psycopg.pq.Format.BINARY

    def dump(self, value: bytes) -> bytes:
        """The value itself."""
        return value


class Server:
    """One database of a server. Connections that are not in use are kept; each is used by one thread at a time."""

    def __init__(self, url: str) -> None:
        parameters = _read(url)
        self.url = _shown(parameters)
        self._address = make_conninfo("", **{"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8", **parameters})
        self._idle: deque[Connection] = deque()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block alone, which commits each statement unless a transaction is begun."""
        with self.errors():
            connection = self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if self._closed:  # while this one was in use
                connection.close()
            else:
                self._idle.append(connection)

    def _take(self) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            connection = psycopg.connect(self._address, autocommit=True, prepare_threshold=NEVER)
        except psycopg.OperationalError as error:
            said = _first_line(error)
            raise StoreError(f"{self.url} cannot be reached: {said}. Is the server running, and is the store's URL right?") from error
        connection.adapters.register_dumper(Array, _ArrayDumper)
        connection.execute(_SESSION)
        return connection

    @contextmanager
    def errors(self) -> Iterator[None]:
        """The server's errors as ours."""
        try:
            yield
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                self._close_idle()  # where one connection is lost, those that are not in use are, too
            kind = RowsRefused if isinstance(error, (psycopg.DataError, psycopg.IntegrityError)) else StoreError
            raise kind(_message(self.url, error)) from error

    def close(self) -> None:
        """Close all connections, those that are in use when they are given back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _read(url: str) -> dict[str, str | int | None]:
    """The parts of a URL. One whose password was not escaped is refused: a piece of it would be taken for the host, port or database."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # its message may hold such a piece
        parts = {"host": "@"}
    host, port, name = (str(parts.get(key) or "") for key in ("host", "port", "dbname"))
    if "@" in host + name or (port and not port.replace(",", "").isdigit()):
        raise StoreError(
            "the store's URL cannot be read: write postgresql://user:password@host:5432/database,"
            " with %XX for each special character of the password (%40 for @, %2F for /, %25 for %)"
        )
    return parts


def _shown(parameters: Mapping[str, object]) -> str:
    """The URL without the password, and without options that may hold one."""
    user, host, port, name = (str(parameters.get(key) or "") for key in ("user", "host", "port", "dbname"))
    at = f"{quote(user)}@" if user else ""
    return f"postgresql://{at}{host}{f':{port}' if port else ''}/{name}"


def _message(url: str, error: psycopg.Error) -> str:
    said = error.diag.message_primary or _first_line(error)
    if isinstance(error, LOST) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
        return f"{url}: the connection was lost ({said}). What was not committed is undone; running it again is safe"
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    mend = next((mend for kind, mend in MENDS.items() if isinstance(error, kind)), "")
    if error.diag.message_hint and (not mend or isinstance(error, errors.InsufficientPrivilege)):  # our migrations say what to grant
        mend = error.diag.message_hint
    return f"{url}: {said}{detail}{'; ' if mend else ''}{mend}"


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0].removeprefix("connection failed: ")


def query(sql: str) -> bytes:
    """SQL as psycopg takes it: it writes a parameter as `%s`, where other drivers, and we, write `?`."""
    return sql.replace("%", "%%").replace("?", "%s").encode()
