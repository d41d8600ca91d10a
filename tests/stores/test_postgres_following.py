"""Following what other programs and other transactions write to PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest

from asof.errors import Overtaken
from asof.stores.postgres import PostgresStore
from asof.stores.store import BARS_TABLE, FOLLOWING
from tests.servers.postgres import Postgres
from tests.stores.rows import bar, bars_of, later, minute

INSERT = "INSERT INTO ohlcv (instrument_id, timeframe, ts, close) SELECT 'A', '1m', unnest(%s::timestamptz[]), 1"


@pytest.fixture
def url(postgres: Postgres) -> str:
    """A new database with the newest layout."""
    return postgres.database()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """A new, empty store."""
    opened = PostgresStore(url)
    yield opened
    opened.close()


def insert(connection: psycopg.Connection, *minutes: int) -> None:
    connection.execute(INSERT, [[minute(n) for n in minutes]])


def seen(store: PostgresStore) -> list[datetime]:
    """The times of what has changed, before the follower moves there."""
    found, position = store.changes("me")
    store.move({FOLLOWING + "me": position})
    return found["time"].to_pylist()


def test_what_another_program_inserts_corrects_and_deletes_is_seen(store: PostgresStore, url: str) -> None:
    store.follow("me")
    with psycopg.connect(url, autocommit=True) as other:
        insert(other, 1, 2, 3)
        assert seen(store) == [minute(1), minute(2), minute(3)]
        other.execute("UPDATE ohlcv SET close = 2, source = 'x' WHERE ts = %s", [minute(2)])
        other.execute("UPDATE ohlcv SET source = 'y'")
        assert seen(store) == [minute(2)]
        other.execute("DELETE FROM ohlcv WHERE ts = %s", [minute(1)])
        assert seen(store) == [minute(1)]


def test_a_transaction_that_began_first_and_commits_last_is_not_missed(store: PostgresStore, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as first:
        insert(first, 0)  # TimescaleDB has others wait for whoever makes a chunk
    store.follow("me")
    with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
        insert(slow, 1)
        insert(quick, 2)
        quick.commit()
        assert seen(store) == [minute(2)]
        store.upsert(BARS_TABLE, bars_of(bar(3)), later(1))
        assert seen(store) == [minute(3)]
        slow.commit()
        assert seen(store) == [minute(1)]
        assert seen(store) == []


def test_who_begins_to_follow_waits_for_those_who_are_writing(store: PostgresStore, url: str) -> None:
    with psycopg.connect(url) as writing:
        insert(writing, 1)
        following = threading.Thread(target=store.follow, args=["me"])
        following.start()
        time.sleep(0.2)
        assert following.is_alive()
        insert(writing, 2)  # noted or not, it is there before the follower begins
        writing.commit()
        following.join(10)
        assert not following.is_alive()
        assert store.spans("1m")["bars"].to_pylist() == [2]
        insert(writing, 3)
        writing.commit()
        assert seen(store) == [minute(3)]


def test_what_a_transaction_undoes_has_not_changed(store: PostgresStore, url: str) -> None:
    store.follow("me")
    with psycopg.connect(url) as other:
        insert(other, 1)
        other.rollback()
    assert seen(store) == []


def test_changes_that_all_followers_have_seen_are_dropped(store: PostgresStore, url: str, postgres: Postgres) -> None:
    def kept() -> int:
        with psycopg.connect(url) as connection:
            return connection.execute("SELECT count(*) FROM changes").fetchone()[0]

    with psycopg.connect(url, autocommit=True) as other:
        insert(other, 0)
        assert kept() == 0
        store.follow("me")
        store.follow("late")
        insert(other, 1)
        seen(store)
        assert kept() == 1
        store.move({FOLLOWING + "late": store.changes("late")[1]})
        assert kept() == 0


def test_of_two_readers_that_move_a_position_at_once_one_is_overtaken(store: PostgresStore) -> None:
    store.move({"kafka/news/0": "5"})
    ends: list[str] = []

    def reader(to: str, began: threading.Event, go_on: threading.Event) -> None:
        try:
            with store.transaction():
                began.set()
                store.move({"kafka/news/0": to}, since={"kafka/news/0": "5"})
                go_on.wait(10)
        except Overtaken:
            ends.append(f"{to} was overtaken")

    go_on, began = threading.Event(), (threading.Event(), threading.Event())
    readers = [threading.Thread(target=reader, args=(to, began[n], go_on)) for n, to in enumerate("67")]
    for thread, has_begun in zip(readers, began, strict=True):
        thread.start()
        assert has_begun.wait(10)
        time.sleep(0.2)
    go_on.set()
    for thread in readers:
        thread.join(10)
    assert ends == ["7 was overtaken"]
    assert store.positions("kafka/") == {"kafka/news/0": "6"}
