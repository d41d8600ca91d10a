"""PostgreSQL for the tests: a private server in a temporary folder, or the one that `ASOF_TEST_POSTGRES` names.

The private one listens on the loopback alone, with a password of its own, and keeps nothing safe from a power failure.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from asof.stores.postgres_migrations import Policies, migrate

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}


@dataclass
class Postgres:
    """A server, and the databases that tests have had made in it."""

    url: str
    cluster: Cluster | None = None
    template: str = ""
    made: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def database(self, *, migrated: bool = True) -> str:
        """The URL of a new database, with the newest layout or with nothing in it."""
        if migrated and not self.template:
            migrate(self._create("template0"), Policies())
            self.template = self.made[-1]
            self.run(f"ALTER DATABASE {self.template} ALLOW_CONNECTIONS false")  # TimescaleDB's workers would keep it in use
            self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.template}'")
        return self._create(self.template if migrated else "template0")

    def _create(self, template: str) -> str:
        name = f"asof_test_{os.getpid()}_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        self.made.append(name)
        return self.of(name)

    def of(self, database: str, **changes: str) -> str:
        """The URL of a database, or of another user, or with another password."""
        parts = conninfo_to_dict(self.url) | {"dbname": database} | changes
        return f"postgresql://{parts['user']}:{parts.get('password', '')}@{parts['host']}:{parts.get('port', 5432)}/{parts['dbname']}"

    def run(self, sql: str, url: str | None = None) -> list[tuple[object, ...]]:
        """Run a statement, as the superuser, in the database of a URL; its rows."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def user(self, url: str, grants: str = "") -> str:
        """The URL of a new user of a database, who may do what `grants` says; {0} is the user, {1} the database."""
        database = url.rpartition("/")[2]
        name = f"{database}_user{next(self.numbers)}"
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
        self.users.append(name)
        self.run(grants.format(name, database) or "SELECT 1", url)
        return self.of(database, user=name, password="pw")

    def cut_off(self, url: str) -> None:
        """End every connection to the database of a URL."""
        name = url.rpartition("/")[2]
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def drop(self) -> None:
        """Drop what was made."""
        while self.made:
            self.run(f"DROP DATABASE {self.made.pop()} WITH (FORCE)")
        while self.users:
            self.run(f"DROP ROLE {self.users.pop()}")


@dataclass
class Cluster:
    """A private server: its programs, its folder and its port."""

    programs: Path
    folder: Path
    port: int

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
        self._ctl("-w", "-t", "60", "-l", str(self.folder / "log"), "-o", f"-p {self.port} {options}", "start")

    def stop(self) -> None:
        """Stop it, cutting off who is connected."""
        self._ctl("-w", "-m", "immediate", "stop")

    def restart(self, mode: str) -> None:
        """Stop it, in good order (`fast`) or as a crash would (`immediate`), and start it again."""
        self._ctl("-w", "-m", mode, "stop")
        self.start()

    def _ctl(self, *arguments: str) -> None:
        as_server_user(str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-s", *arguments)


def as_server_user(*command: str) -> None:
    """Run a program of the server, which refuses to run as root."""
    user = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
    done = subprocess.run([*user, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False, cwd="/")
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}"


def programs() -> Path | None:
    """Where the newest server's programs are: on the path, or where Debian puts them."""
    found = [Path(p).parent for p in [shutil.which("initdb")] if p]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    return next((folder.resolve() for folder in found if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@contextmanager
def private() -> Iterator[Postgres]:
    """A server that is there for the block."""
    there = programs()
    if there is None:
        pytest.skip("there is no PostgreSQL: make servers, or name a running one with ASOF_TEST_POSTGRES")
    folder = Path(tempfile.mkdtemp(prefix="asof-postgres-"))
    password = secrets.token_hex(8)
    secret = folder / "password"
    secret.write_text(password)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        cluster = Cluster(there, folder, probe.getsockname()[1])
    try:
        if os.geteuid() == 0:
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        options = ["-A", "scram-sha-256", "-U", "asof", "-N", "-E", "UTF8", "--locale=C.UTF-8"]
        as_server_user(str(there / "initdb"), "-D", str(folder / "data"), f"--pwfile={secret}", *options)
        cluster.start()
        try:
            yield Postgres(f"postgresql://asof:{password}@127.0.0.1:{cluster.port}/postgres", cluster)
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    if url := os.environ.get("ASOF_TEST_POSTGRES"):
        server = Postgres(url)
        yield server
        server.drop()
        return
    with private() as server:
        yield server
