"""The commands over a PostgreSQL store: from an empty database to vectors, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from asof.cli.init import NEXT
from asof.stores.postgres_migrations import NAMES
from tests.cli.conftest import Command
from tests.servers.postgres import Postgres


@pytest.fixture
def empty(postgres: Postgres, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty database, which the commands use."""
    url = postgres.database(migrated=False)
    monkeypatch.setenv("ASOF_STORE", url)
    return url


def test_an_empty_database_becomes_a_store_and_every_command_works_on_it(asof: Command, empty: str) -> None:
    refused = asof("plan")
    assert refused.code == 5
    wanted = "lacks 0001_records, 0002_vectors, 0003_logs, 0004_changes, 0005_actions, 0006_points, 0007_memberships: run asof migrate"
    assert wanted in refused.said
    made = asof("migrate")
    assert made.code == 0
    assert made.text.splitlines() == [f"+ {name}" for name in NAMES.values()]
    assert asof("migrate", "--json").json == {"migrated": []}
    asof("init")
    for line in NEXT:
        done = asof(*line.split()[1:])
        assert (done.code, done.errors) == (0, ""), done.errors
    assert asof("backfill", "my_v1", "-t", "1d", "--json").json["unchanged"] == 1300


def test_the_sql_is_printed_and_nothing_runs(asof: Command, empty: str) -> None:
    printed = asof("migrate", "--print")
    assert "CREATE TABLE feature_vectors (" in printed.text
    assert "INSERT INTO asof_migrations VALUES (1, '0001_records');" in printed.text
    assert set(NAMES.values()) <= set(asof("migrate", "--print", "--json").json["pending"])  # type: ignore[call-overload]
    assert asof("plan").code == 5


def test_a_file_needs_no_migration(asof: Command, folder: Path) -> None:
    assert asof("migrate").text == "= nothing is missing\n"
    assert list(folder.iterdir()) == []


def test_the_doctor_names_the_server_and_what_mends_it(asof: Command, empty: str, postgres: Postgres) -> None:
    sick = asof("doctor")
    assert sick.code == 1
    assert "run asof migrate" in sick.text
    asof("migrate")
    healthy = asof("doctor")
    assert healthy.code == 0
    assert "layout 7" in healthy.text
    assert "PostgreSQL" in healthy.text
    assert "TimescaleDB" in healthy.text
    postgres.run("DROP TRIGGER asof_keep_changed ON ohlcv", empty)
    wounded = asof("doctor")
    assert wounded.code == 1
    assert "lost the triggers" in wounded.text
    asof("migrate")
    assert asof("doctor").code == 0
    gone = asof("doctor", "--store", postgres.of("nowhere"))
    assert gone.code == 1
    assert 'database "nowhere" does not exist' in gone.text


def test_no_command_tells_the_password(asof: Command, empty: str, postgres: Postgres) -> None:
    secret = "pass-w0rd"
    for url in (postgres.of("nowhere", password=secret), f"postgresql://me:{secret}@127.0.0.1:1/market", f"postgresql://me:{secret}/@h/x"):
        for line in ("plan", "migrate", "migrate --print", "doctor", "doctor --json", "get fs_v1 -t 1d", "backfill fs_v1 -t 1d --json"):
            done = asof(*line.split(), "--store", url)
            assert done.code in (1, 5)
            assert secret not in done.text + done.errors


@pytest.mark.parametrize("age", ["soon", "30", "0d", "30d; DROP TABLE ohlcv", ""])
def test_an_age_that_is_none_is_refused(asof: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, age: str) -> None:
    monkeypatch.setenv("ASOF_RETENTION", age)
    done = asof("migrate")
    assert done.code == 2
    assert "setting" in done.said
    assert "retention" in done.said.lower()
