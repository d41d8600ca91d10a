"""Migrations of a PostgreSQL database: the SQL files in `migrations/`, each run once, in its order and in a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import errors

from asof.errors import StoreError
from asof.stores.postgres_server import Connection, Server

FOLDER = files("asof.stores").joinpath("migrations")
NAMES = tuple(sorted(f.name.removesuffix(".sql") for f in FOLDER.iterdir() if f.name[:4].isdigit()))
LAYOUT = len(NAMES)
"""The version of the layout that this asof knows."""

LOCK = 0x61736F66
"""The advisory lock under which migrations run: `asof` in ASCII."""
_RECORD = """
CREATE TABLE IF NOT EXISTS asof_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_EXTENSION = "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'timescaledb'"


@dataclass(frozen=True)
class Policies:
    """What TimescaleDB is to do with old chunks: intervals such as `30 days`, or None for nothing."""

    columnstore_after: str | None = None
    retention: str | None = None


def sql_of(name: str) -> str:
    """The text of a migration."""
    return FOLDER.joinpath(f"{name}.sql").read_text(encoding="utf-8")


def pending(url: str) -> list[str]:
    """The migrations that a database has not had."""
    server = Server(url)
    with server.connection() as connection:
        found = _pending(connection, server.url)
    server.close()
    return found


def migrate(url: str, policies: Policies) -> list[str]:
    """Bring a database to the newest layout; which migrations ran. Two processes may do it at once, and one of them finds it done."""
    server, done = Server(url), []
    with server.connection() as connection, _alone(connection):
        connection.execute(_RECORD)
        for name in _pending(connection, server.url):
            with connection.transaction():
                try:
                    connection.execute(sql_of(name).encode())
                except errors.DuplicateTable as error:
                    raise StoreError(
                        f"{server.url}: {error.diag.message_primary}, and asof did not make it; choose another database"
                    ) from error
                connection.execute("INSERT INTO asof_migrations VALUES (%s, %s)", [int(name[:4]), name])
            done.append(name)
        if _timescale(connection):
            with connection.transaction():
                connection.execute("SELECT set_config('asof.columnstore_after', %s, true)", [policies.columnstore_after or ""])
                connection.execute("SELECT set_config('asof.retention', %s, true)", [policies.retention or ""])
                connection.execute(sql_of("timescale").encode())
    server.close()
    return done


def check(connection: Connection, url: str) -> None:
    """Refuse a database that this asof cannot use as it is, with the command that mends it."""
    if missing := _pending(connection, url):
        raise StoreError(f"{url} lacks {', '.join(missing)}: run asof migrate")


def timescale(connection: Connection) -> tuple[str | None, str | None]:
    """The version of TimescaleDB in this database, and the one that the server could give it; None where there is none."""
    found = connection.execute(_EXTENSION).fetchone()
    return (None, None) if found is None else (_text(found[0]), _text(found[1]))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _pending(connection: Connection, url: str) -> list[str]:
    there = connection.execute("SELECT to_regclass('asof_migrations')").fetchone()
    if there is None or there[0] is None:
        return list(NAMES)
    known = {int(name[:4]) for name in NAMES}
    had = {row[0] for row in connection.execute("SELECT version FROM asof_migrations").fetchall()}
    if had - known:
        raise StoreError(f"{url} has layout {max(had - known)}; this asof knows {LAYOUT}: upgrade asof (pip install -U asof)")  # type: ignore[type-var]
    return [name for name in NAMES if int(name[:4]) not in had]


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One process at a time; the lock goes with the connection where the block fails."""
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    yield
    connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _timescale(connection: Connection) -> bool:
    """Whether TimescaleDB is in this database; put there where the server has it and lets us."""
    installed, available = timescale(connection)
    if installed or not available:
        return bool(installed)
    try:
        connection.execute("CREATE EXTENSION timescaledb")
    except psycopg.Error:
        return False  # `asof doctor` says so, and what mends it
    return True
