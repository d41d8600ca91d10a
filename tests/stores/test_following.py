"""What every store does for those who follow what changes, and for those who keep how far they have come."""

from __future__ import annotations

from datetime import datetime

import pytest

from asof.errors import NotFound, Overtaken, StoreError
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, FOLLOWING, MEMBERSHIPS_TABLE, Store
from tests.stores.rows import (
    MINI,
    NOON,
    VECTORS_TABLE,
    action,
    actions_of,
    bar,
    bars_of,
    event,
    events_of,
    later,
    membership,
    memberships_of,
    minute,
    rows_in,
    streamed,
    vector,
    vectors_of,
)

Change = tuple[str, str, str | None, datetime]


def changed(store: Store, name: str = "me") -> list[Change]:
    """What the follower sees, before it moves there."""
    found, position = store.changes(name)
    store.move({FOLLOWING + name: position})
    return [tuple(row.values()) for row in found.to_pylist()]


def bars(*minutes: int, instrument: str = "A", timeframe: str = "1m") -> list[Change]:
    return [("bars", instrument, timeframe, minute(n)) for n in minutes]


def events(*minutes: int, instrument: str = "A") -> list[Change]:
    return [("events", instrument, None, minute(n)) for n in minutes]


def test_a_follower_sees_what_was_written_since_it_began_and_once(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    store.follow("me")
    assert changed(store) == []
    store.upsert(BARS_TABLE, bars_of(bar(1), bar(2), bar(1, instrument="B"), bar(0) | {"timeframe": "5m"}), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 3)), NOON)
    assert changed(store) == [*bars(1, 2), *bars(0, timeframe="5m"), *bars(1, instrument="B"), *events(3)]
    assert changed(store) == []


def test_actions_are_noted_by_their_ex_dates(store: Store) -> None:
    store.follow("me")
    store.upsert(ACTIONS_TABLE, actions_of(action(1), action(2, instrument="B")), NOON)
    assert changed(store) == [("actions", "A", None, minute(1)), ("actions", "B", None, minute(2))]
    store.upsert(ACTIONS_TABLE, actions_of(action(1), action(2, 3.0, "B")), later(1))
    assert changed(store) == [("actions", "B", None, minute(2))]
    store.withdraw(ACTIONS_TABLE, actions_of(action(1)).select(ACTIONS_TABLE.key), later(2))
    assert changed(store) == [("actions", "A", None, minute(1))]


def test_what_changes_nothing_is_no_change(store: Store) -> None:
    rows = bars_of(bar(0), bar(1)), events_of(event("x", 3))
    store.follow("me")
    for table, of in zip((BARS_TABLE, EVENTS_TABLE), rows, strict=True):
        store.upsert(table, of, NOON)
    changed(store)
    for table, of in zip((BARS_TABLE, EVENTS_TABLE), rows, strict=True):
        store.upsert(table, of, later(1))
        store.upsert(table, streamed(of), later(2))
    assert changed(store) == []


def test_a_correction_is_a_change_and_so_is_what_is_new_beside_it(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1), bar(2)), NOON)
    store.follow("me")
    store.upsert(BARS_TABLE, streamed(bars_of(bar(0), bar(1, 5.0), bar(2), bar(3))), later(1))
    assert sorted(changed(store)) == bars(1, 3)


def test_an_event_that_takes_an_earlier_place_is_there_with_both(store: Store) -> None:
    store.upsert(EVENTS_TABLE, events_of(event("x", 9)), NOON)
    store.follow("me")
    store.upsert(EVENTS_TABLE, events_of(event("x", 4, score=0.1)), later(1))
    assert sorted(changed(store)) == events(4, 9)
    store.upsert(EVENTS_TABLE, events_of(event("x", 12, score=0.2)), later(2))  # keeps its place, has newer scores
    assert changed(store) == events(4)


def test_vectors_are_no_changes(store: Store) -> None:
    store.register(MINI, NOON)
    store.follow("me")
    store.upsert(VECTORS_TABLE, vectors_of(vector(0)), NOON)
    assert changed(store) == []


def test_two_followers_each_see_everything_however_far_the_other_is(store: Store) -> None:
    store.follow("one")
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    store.follow("two")
    assert changed(store, "one") == bars(0)
    store.upsert(BARS_TABLE, bars_of(bar(1)), NOON)
    assert changed(store, "one") == bars(1)
    store.upsert(BARS_TABLE, bars_of(bar(2)), NOON)
    assert changed(store, "two") == bars(1, 2)
    assert changed(store, "one") == bars(2)


def test_to_follow_again_goes_on_from_there(store: Store) -> None:
    store.follow("me")
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    store.follow("me")
    assert changed(store) == bars(0)


def test_a_follower_that_does_not_move_sees_the_same_again(store: Store) -> None:
    store.follow("me")
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    first, position = store.changes("me")
    assert store.changes("me")[0] == first
    with pytest.raises(ZeroDivisionError), store.transaction():  # noqa: PT012  # what fails is the transaction
        store.move({FOLLOWING + "me": position})
        raise ZeroDivisionError
    assert store.changes("me")[0] == first


def test_who_does_not_follow_is_told(store: Store) -> None:
    with pytest.raises(NotFound, match="me does not follow what changes in"):
        store.changes("me")


def test_positions_are_kept_with_the_rows_that_they_belong_to_or_not_at_all(store: Store) -> None:
    with store.transaction():
        store.upsert(EVENTS_TABLE, events_of(event("x", 1)), NOON)
        store.move({"kafka/news/0": "17", "kafka/news/1": "4"})
    with pytest.raises(StoreError, match="broken"), store.transaction():  # noqa: PT012  # what fails is the transaction
        store.upsert(EVENTS_TABLE, events_of(event("y", 2)), NOON)
        store.move({"kafka/news/0": "18"})
        assert store.positions("kafka/news/") == {"kafka/news/0": "18", "kafka/news/1": "4"}
        raise StoreError("broken")
    assert store.positions("kafka/news/") == {"kafka/news/0": "17", "kafka/news/1": "4"}
    assert store.positions("kafka/other/") == {}


def test_a_position_moves_from_where_its_reader_knows_it_to_be_and_from_nowhere_else(store: Store) -> None:
    store.move({"kafka/news/0": "5"}, since={})
    store.move({"kafka/news/0": "9"}, since={"kafka/news/0": "5"})
    store.move({"kafka/news/0": "2"}, since={"kafka/news/0": "9"})  # back, where its reader has a reason to
    for since in ({}, {"kafka/news/0": "9"}, {"kafka/news/00": "2"}):
        with pytest.raises(Overtaken, match="another reader has moved kafka/news/0"):
            store.move({"kafka/news/0": "7"}, since=since)
    with pytest.raises(Overtaken):
        store.move({"kafka/news/1": "7"}, since={"kafka/news/1": "5"})
    assert store.positions("kafka/") == {"kafka/news/0": "2"}


def test_who_was_overtaken_leaves_no_rows(store: Store) -> None:
    store.move({"kafka/news/0": "5", "kafka/news/1": "5"})
    with pytest.raises(Overtaken), store.transaction():  # noqa: PT012  # what fails is the transaction
        store.upsert(EVENTS_TABLE, events_of(event("x", 1)), NOON)
        store.move({"kafka/news/0": "6", "kafka/news/1": "6"}, since={"kafka/news/0": "5", "kafka/news/1": "4"})
    assert store.positions("kafka/") == {"kafka/news/0": "5", "kafka/news/1": "5"}
    assert rows_in(store, EVENTS_TABLE) == []


def test_memberships_are_noted_by_their_scheme_and_the_time_from_which_they_hold(store: Store) -> None:
    store.follow("me")
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(1), membership(1, scheme="sector"), membership(2, instrument="B")), NOON)
    noted = [("memberships/index", "A", None, minute(1)), ("memberships/index", "B", None, minute(2))]
    assert changed(store) == [*noted, ("memberships/sector", "A", None, minute(1))]
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(1), membership(2, None, "B")), later(1))
    assert changed(store) == noted[1:]
    store.withdraw(MEMBERSHIPS_TABLE, memberships_of(membership(1)).select(MEMBERSHIPS_TABLE.key), later(2))
    assert changed(store) == noted[:1]
