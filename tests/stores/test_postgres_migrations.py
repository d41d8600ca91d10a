"""A PostgreSQL database on its way to the newest layout, and what cannot be opened: the reason is told, the password never."""

from __future__ import annotations

from pathlib import Path

import pytest

from asof.errors import StoreError
from asof.stores.postgres import PostgresStore
from asof.stores.postgres_migrations import LAYOUT, NAMES, Policies, migrate, pending
from asof.stores.store import BARS_TABLE
from asof.stores.urls import open_store
from tests.processes import finish, python
from tests.servers.postgres import Postgres
from tests.stores.rows import NOON, bar, bars_of


@pytest.fixture
def url(postgres: Postgres) -> str:
    """A new database with the newest layout."""
    return postgres.database()


def test_a_database_without_our_tables_is_refused_with_the_command_that_makes_them(postgres: Postgres) -> None:
    with pytest.raises(StoreError, match=r"0004_changes, 0005_actions, 0006_points, 0007_memberships: run asof migrate"):
        PostgresStore(postgres.database(migrated=False))


def test_migrating_twice_does_nothing_the_second_time(postgres: Postgres) -> None:
    url = postgres.database(migrated=False)
    assert migrate(url, Policies()) == list(NAMES.values())
    assert migrate(url, Policies()) == []
    PostgresStore(url).close()


def test_the_scripts_do_by_hand_what_the_command_does(postgres: Postgres) -> None:
    url = postgres.database(migrated=False)
    for script in pending(url, Policies(columnstore_after="30d")).values():
        for part in script.split("BEGIN;"):
            postgres.run(part if part is script else f"BEGIN;{part}" if "COMMIT" in part else part or "SELECT 1", url)
    assert migrate(url, Policies()) == []
    PostgresStore(url).close()


def test_two_processes_may_migrate_at_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database(migrated=False)
    code = f"from asof.stores.postgres_migrations import *; input(); print(*migrate({url!r}, Policies()))"
    both = [python(code, tmp_path) for _ in range(2)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [finish(process) for process in both]
    assert [code for code, _, _ in ended] == [0, 0], ended
    ran = sorted(output.split() for _, output, _ in ended)
    assert ran == [[], list(NAMES.values())]


def test_a_newer_layout_is_refused_with_the_command_that_upgrades(postgres: Postgres, url: str) -> None:
    postgres.run(f"INSERT INTO asof_migrations VALUES ({LAYOUT + 1}, 'from the future')", url)
    with pytest.raises(StoreError, match=rf"layout {LAYOUT + 1}; this asof knows {LAYOUT}.*pip install -U asof"):
        PostgresStore(url)
    with pytest.raises(StoreError, match=r"pip install -U asof"):
        migrate(url, Policies())


def test_a_table_of_another_program_that_has_a_name_of_ours_is_left_alone(postgres: Postgres) -> None:
    url = postgres.database(migrated=False)
    postgres.run("CREATE TABLE events (what text)", url)
    with pytest.raises(StoreError, match=r'relation "events" already exists, and asof did not make it'):
        migrate(url, Policies())
    assert postgres.run("SELECT count(*) FROM asof_migrations", url) == [(0,)]
    assert postgres.run("SELECT to_regclass('ohlcv')", url) == [(None,)], "nothing is half-done"


def test_a_wrong_password_is_told_without_it(postgres: Postgres, url: str) -> None:
    if postgres.cluster is None:
        pytest.skip("the server that ASOF_TEST_POSTGRES names may need no password")
    refused(postgres.of(url.rpartition("/")[2], password="wr0ng-one"), r"password authentication failed for user", "wr0ng-one")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:hush-hush@127.0.0.1:1/market", r"postgresql://me@127.0.0.1:1/market cannot be reached: .*[Cc]onnection refused"),
        ("postgresql://me:hush-hush@no.such.host.invalid/market", r"postgresql://me@no.such.host.invalid/market cannot be reached"),
        ("postgres://me:hush-hush/x@127.0.0.1/market", r"the store's URL cannot be read: .*%40 for @"),
        ("postgres://me:hush@hush-hush@127.0.0.1/market", r"the store's URL cannot be read"),
        ("postgres://me:1/hush-hush@127.0.0.1/market", r"the store's URL cannot be read"),
        ("postgres://me:hush-hush%@127.0.0.1/market", r"the store's URL cannot be read"),
    ],
)
def test_a_server_that_is_not_there_and_a_url_that_is_none(url: str, message: str) -> None:
    refused(url, message, "hush-hush")


def test_a_database_that_is_not_there(postgres: Postgres) -> None:
    refused(postgres.of("nowhere"), r'database "nowhere" does not exist')


def test_a_user_without_rights_is_told_what_it_lacks(postgres: Postgres, url: str) -> None:
    with pytest.raises(StoreError, match=r"permission denied for table asof_migrations; let the owner grant it"):
        PostgresStore(postgres.user(url))
    empty = postgres.database(migrated=False)
    with pytest.raises(StoreError, match=r"permission denied for schema public; let the owner grant it"):
        migrate(postgres.user(empty), Policies())


def test_a_user_that_may_only_read_reads(postgres: Postgres, url: str) -> None:
    with PostgresStore(url) as store:
        store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    reader = postgres.user(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {0}")
    with PostgresStore(reader) as reading:
        assert len(reading.spans()) == 1
        with pytest.raises(StoreError, match=r"permission denied for table ohlcv"):
            reading.upsert(BARS_TABLE, bars_of(bar(1)), NOON)


def test_a_missing_driver_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from asof.errors import MissingExtra\nfrom asof.stores.urls import open_store\n"
        "try: open_store('postgresql://host/db')\nexcept MissingExtra as error: print(error)"
    )
    assert 'pip install "asof[postgres]"' in finish(python(code, tmp_path))[1]


def refused(url: str, message: str, secret: str = "\0") -> None:
    """Opening is refused with a message in which the secret does not stand."""
    with pytest.raises(StoreError, match=message) as caught:
        open_store(url)
    assert secret not in str(caught.value)
