"""Migrations of a PostgreSQL database: the SQL files in `migrations/`, each in a transaction of its own.

1. Those with a number run once, in their order, and are recorded in `asof_migrations`.
2. `ohlcv.sql` runs every time, for the table is another program's as well; and so does `timescale.sql`, where TimescaleDB is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import errors

from asof.errors import StoreError
from asof.stores.postgres_server import Connection, Server

FOLDER = files("asof.stores").joinpath("migrations")
NAMES = {int(name[:4]): name.removesuffix(".sql") for name in sorted(f.name for f in FOLDER.iterdir()) if name[:4].isdigit()}
"""The migrations by their numbers."""
LAYOUT = max(NAMES)
"""The version of the layout that this asof knows."""
OLDEST = 15
"""The oldest PostgreSQL that has what the migrations use."""
BARS, TIMESCALE = "ohlcv", "timescale"
"""Those that run every time."""

LOCK = 0x61736F66
"""The advisory lock under which migrations run: `asof` in ASCII."""
RECORD_SQL = """
CREATE TABLE IF NOT EXISTS asof_migrations (
    version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
EXTENSION_SQL = "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
IMPATIENT_SQL = "SET LOCAL lock_timeout = '30s'"
"""A migration that waits for a table keeps everybody behind it waiting, too."""
SETTINGS_SQL = "SELECT set_config('asof.columnstore_after', %s, true), set_config('asof.retention', %s, true)"


@dataclass(frozen=True)
class Policies:
    """What TimescaleDB does with old chunks: an age such as `30d` from which on they are compressed, or dropped; None for never."""

    columnstore_after: str | None = None
    retention: str | None = None


def sql_of(name: str) -> str:
    """The text of a migration."""
    return FOLDER.joinpath(f"{name}.sql").read_text(encoding="utf-8")


def pending(url: str, policies: Policies) -> dict[str, str]:
    """What `migrate` would run, by name, as scripts that a person can run."""
    with closing(Server(url)) as server, server.connection() as connection:
        names, extension = _pending(connection, server.url), any(timescale(connection))
    scripts = {
        name: f"BEGIN;\n{RECORD_SQL}\n{sql_of(name)}\nINSERT INTO asof_migrations VALUES ({int(name[:4])}, '{name}');\nCOMMIT;\n"
        for name in names
    }
    scripts[BARS] = f"BEGIN;\n{sql_of(BARS)}\nCOMMIT;\n"
    if extension:
        asked = "\n".join(f"SET LOCAL asof.{name} = '{value or ''}';" for name, value in vars(policies).items())
        scripts[TIMESCALE] = f"CREATE EXTENSION IF NOT EXISTS timescaledb;\nBEGIN;\n{asked}\n{sql_of(TIMESCALE)}\nCOMMIT;\n"
    return scripts


def migrate(url: str, policies: Policies) -> list[str]:
    """Bring a database to the newest layout; which migrations ran first. Of two processes at once, the second finds it done."""
    with closing(Server(url)) as server, server.connection() as connection, _alone(connection):
        if connection.info.server_version < OLDEST * 10_000:
            version = connection.info.server_version // 10_000
            raise StoreError(f"{server.url} is PostgreSQL {version}: asof needs {OLDEST} or newer")
        connection.execute(RECORD_SQL.encode())
        missing = _pending(connection, server.url)
        for name in missing:
            with _impatiently(connection), _told(server.url):
                connection.execute(sql_of(name).encode())
                connection.execute("INSERT INTO asof_migrations VALUES (%s, %s)", [int(name[:4]), name])
        with _impatiently(connection):
            connection.execute(sql_of(BARS).encode())
        if _has_timescale(connection):
            with _impatiently(connection):
                connection.execute(SETTINGS_SQL, [policies.columnstore_after or "", policies.retention or ""])
                connection.execute(sql_of(TIMESCALE).encode())
    return missing


def check(connection: Connection, url: str) -> None:
    """Refuse a database that this asof cannot use as it is, with the command that mends it."""
    if missing := _pending(connection, url):
        raise StoreError(f"{url} lacks {', '.join(missing)}: run asof migrate")


def timescale(connection: Connection) -> tuple[object, object]:
    """The version of TimescaleDB in this database, and the one that the server could give it; None where there is none."""
    return connection.execute(EXTENSION_SQL).fetchone() or (None, None)  # type: ignore[return-value]  # two columns


def _pending(connection: Connection, url: str) -> list[str]:
    if connection.execute("SELECT to_regclass('asof_migrations')").fetchone() == (None,):
        return list(NAMES.values())
    had = {row[0] for row in connection.execute("SELECT version FROM asof_migrations")}
    if newer := had - NAMES.keys():
        raise StoreError(f"{url} has layout {max(map(str, newer))}; this asof knows {LAYOUT}: upgrade asof (pip install -U asof)")
    return [name for version, name in NAMES.items() if version not in had]


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """One process at a time; where the block fails, the lock goes with the connection."""
    connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    yield
    connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


@contextmanager
def _impatiently(connection: Connection) -> Iterator[None]:
    with connection.transaction():
        connection.execute(IMPATIENT_SQL)
        yield


@contextmanager
def _told(url: str) -> Iterator[None]:
    """A table of ours that another program made is no reason to touch it."""
    try:
        yield
    except (errors.DuplicateTable, errors.DuplicateSchema) as error:
        raise StoreError(f"{url}: {error.diag.message_primary}, and asof did not make it: give asof a database of its own") from error


def _has_timescale(connection: Connection) -> bool:
    """Whether TimescaleDB is in this database; put there where the server has it and lets us."""
    installed, available = timescale(connection)
    if installed or not available:
        return bool(installed)
    try:
        connection.execute("CREATE EXTENSION timescaledb")
    except psycopg.Error:
        return False  # `asof doctor` says so, and what mends it
    return True
