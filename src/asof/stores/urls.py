"""Where store URLs are opened: one line for each kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asof.errors import MissingExtra, StoreError, did_you_mean
from asof.stores.duckdb import DuckDBStore
from asof.stores.service import ServiceStore
from asof.stores.service_http import HttpWire
from asof.stores.store import Store

Opener = Callable[[str, str | None, int | None, bool, str | None], Store]
"""Opens a store by the rest of its URL, given memory, threads, whether to make it, and the key of a service."""


def _open_duckdb(rest: str, memory: str | None, threads: int | None, create: bool, key: str | None) -> Store:
    path = rest.removeprefix("/")
    if rest and not path:
        raise StoreError("the store has no path: write duckdb:///asof.duckdb, or duckdb:// for one in memory")
    if path and not Path(path).expanduser().resolve().parent.is_dir():
        raise StoreError(f"{path}: there is no folder {Path(path).parent} to hold it; make it, or choose another with --store")
    if path and not create and not Path(path).expanduser().exists():
        raise StoreError(f"{path} does not exist: name the store with --store, or make one (asof ingest bars FILE)")
    return DuckDBStore(Path(path).expanduser() if path else None, memory=memory, threads=threads)


def _open_postgres(rest: str, memory: str | None, threads: int | None, create: bool, key: str | None) -> Store:
    with _psycopg():
        from asof.stores.postgres import PostgresStore  # noqa: PLC0415  # psycopg is an extra
    return PostgresStore(f"postgresql://{rest}")


def _open_flight(scheme: str) -> Opener:
    def opened(rest: str, memory: str | None, threads: int | None, create: bool, key: str | None) -> Store:
        from asof.stores.service_flight import FlightWire  # noqa: PLC0415  # gRPC is large, and rarely wanted

        return ServiceStore(FlightWire(f"{scheme}://{rest}", key))

    return opened


def _open_http(scheme: str) -> Opener:
    def opened(rest: str, memory: str | None, threads: int | None, create: bool, key: str | None) -> Store:
        return ServiceStore(HttpWire(f"{scheme}://{rest}", key))

    return opened


@contextmanager
def _psycopg() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f'a PostgreSQL store needs psycopg: pip install "asof[postgres]" ({error})') from None


SCHEMES: dict[str, Opener] = {
    "duckdb": _open_duckdb,
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
    "http": _open_http("http"),
    "https": _open_http("https"),
    "grpc": _open_flight("grpc"),
    "grpc+tls": _open_flight("grpc+tls"),
}
"""What opens each scheme. `duckdb:///name` is a file in this folder, `duckdb:////name` an absolute path, `duckdb://` is in memory;
`postgresql://user:password@host:port/database` is a server, which `asof migrate` prepares; `http://host:port` is a running service,
to read from, and so is `grpc://host:port`, by Arrow Flight."""


def scheme_of(url: str) -> tuple[str, str]:
    """The scheme of a store's URL, and the rest; a plain path is a DuckDB file. Raises `StoreError` for an unknown one."""
    scheme, found, rest = url.partition("://")
    if not found:
        return "duckdb", "/" + url
    if scheme not in SCHEMES:
        shown = f"{scheme}://..." if "@" in rest else url  # what stands before the @ may be a password
        raise StoreError(
            f"store {shown!r} is of an unknown kind {scheme!r}; known: {', '.join(SCHEMES)}{did_you_mean(scheme, list(SCHEMES))}"
        )
    return scheme, rest


def open_store(url: str, *, memory: str | None = None, threads: int | None = None, create: bool = True, key: str | None = None) -> Store:
    """The store of a URL; a plain path is a DuckDB file, made where there is none unless `create` is false. A service may want a `key`.

    Raises `StoreError` where it cannot be opened.
    """
    scheme, rest = scheme_of(url)
    return SCHEMES[scheme](rest, memory, threads, create, key)


def migrate_store(url: str, columnstore_after: str | None, retention: str | None) -> list[str]:
    """Bring a store to the newest layout; the migrations that it had not had. None for one that needs no such command."""
    scheme, rest = scheme_of(url)
    if not scheme.startswith("postgres"):
        return []
    with _psycopg():
        from asof.stores.postgres_migrations import Policies, migrate  # noqa: PLC0415  # psycopg is an extra
    return migrate(f"postgresql://{rest}", Policies(columnstore_after, retention))


def migration_scripts(url: str, columnstore_after: str | None, retention: str | None) -> dict[str, str]:
    """What `migrate_store` would run, as SQL by name."""
    scheme, rest = scheme_of(url)
    if not scheme.startswith("postgres"):
        return {}
    with _psycopg():
        from asof.stores.postgres_migrations import Policies, pending  # noqa: PLC0415  # psycopg is an extra
    return pending(f"postgresql://{rest}", Policies(columnstore_after, retention))
