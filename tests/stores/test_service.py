"""A service as a store over HTTP: what it gives, and what is said when the way to it, or it itself, goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pytest

import asof
from asof.errors import AccessError, DataError, NotFound, Overloaded, StoreError
from asof.stores import service_http
from asof.stores.store import BARS_TABLE, Selection, Store, vectors_table
from tests.servers.http import Faults, answering
from tests.serving.conftest import filled

__all__ = ["filled"]
TABLE = vectors_table(asof.fs_v1)
ENTITIES = pa.table(
    {"instrument_id": ["I1", "nobody", "I0"], "event_timestamp": pa.array([1_706_000_000_000_000] * 3).cast(pa.timestamp("us", tz="UTC"))}
)
FAILING = ("gone", "breaks cut", "closes cut", "late", "closes late", "cut", "busy", "busy page", "garbage", "nothing")


@pytest.fixture
def service(filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[asof.FeatureStore, Faults]]:
    monkeypatch.setattr(service_http, "PAUSES", (0.0, 0.0))
    with answering(filled) as (url, faults), asof.connect(url, key="a key") as store:
        yield store, faults


def test_what_is_read_over_http_is_what_the_store_holds(service: tuple[asof.FeatureStore, Faults], filled: asof.FeatureStore) -> None:
    store, faults = service
    assert store.registered() == filled.registered()
    assert store.history("fs_v1", "1d").table == filled.history("fs_v1", "1d").table
    some = {"instruments": ["I2", "I0"], "start": "2024-02-01", "end": datetime(2024, 2, 9, tzinfo=UTC), "known_at": "2100-01-01"}
    assert store.history(["fs_v1:vol_20"], "1d", **some).table == filled.history(["fs_v1:vol_20"], "1d", **some).table  # type: ignore[arg-type]
    assert store.history("fs_v1", "1d", instruments=[]).table.num_rows == 0
    assert store.latest("fs_v1", "1d", at="2024-02-01").table == filled.latest("fs_v1", "1d", at="2024-02-01").table
    assert store.latest("fs_v1", "1d", instruments=[]).table.num_rows == 0
    joined = store.get_historical_features(ENTITIES, ["fs_v1:ret_1"], "1d", max_age="90d").table
    assert joined == filled.get_historical_features(ENTITIES, ["fs_v1:ret_1"], "1d", max_age="90d").table
    empty = ENTITIES.slice(0, 0)
    assert store.get_historical_features(empty, "fs_v1", "1d").table == filled.get_historical_features(empty, "fs_v1", "1d").table
    assert set(faults.keys) == {"Bearer a key"}
    assert faults.connections == 1, "the connection is used again"


def test_an_error_of_the_service_is_the_error_that_its_store_would_raise(service: tuple[asof.FeatureStore, Faults]) -> None:
    store, faults = service
    with pytest.raises(NotFound, match="no feature set 'fs_v9'"):
        store.history("fs_v9", "1d")
    unknown = vectors_table(asof.FeatureSet("fs_v9", asof.fs_v1.features))
    with pytest.raises(NotFound, match=r"^no feature set 'fs_v9'; there are"):
        list(store.store.read(unknown, Selection("1d")))
    faults.next = ["forbidden"]
    with pytest.raises(AccessError, match="this key may not read fs_v1"):
        store.store.latest(TABLE, Selection("1d"))


@pytest.mark.parametrize("fault", FAILING)
@pytest.mark.parametrize("what", ["history", "latest", "join"])
def test_a_read_that_fails_is_made_again_and_gives_the_whole_answer_or_none(
    service: tuple[asof.FeatureStore, Faults], filled: asof.FeatureStore, fault: str, what: str
) -> None:
    store, faults = service
    before = len(faults.requests)
    faults.next = [fault, fault]
    if what == "history" and fault.endswith(("cut", "late")):  # its first rows may have been used by then
        with pytest.raises(StoreError, match="broke off; nothing of this answer is kept: its answer breaks off"):
            read(store.store, what)
        assert len(faults.requests) == before + 1
    else:
        assert read(store.store, what) == read(filled.store, what)
        assert len(faults.requests) == before + 3
    faults.next = [fault] * 3
    with pytest.raises(StoreError, match=r"nothing of this answer is kept|busy|too many requests at once|503"):
        read(store.store, what)
    faults.next = []
    assert read(store.store, what) == read(filled.store, what)


def read(store: Store, what: str) -> pa.Table:
    if what == "join":
        keys = ENTITIES.append_column("row", pa.array(range(3)))
        return store.as_of(TABLE, keys, "1d", ("ret_1", "ts", "available_at", "quality_flags"))
    if what == "latest":
        return store.latest(TABLE, Selection("1d"))
    return pa.concat_tables([TABLE.schema.empty_table(), *store.read(TABLE, Selection("1d"))])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("stranger", r"it answers with text/html, not with application/json. Is the address right\?"),
        ("not json", "it answers with no JSON"),
        ("other json", "it tells of its feature sets in another way"),
        ("moved", "it points to https://elsewhere/; name that"),
        ("older", "it answers 404 Not Found"),
        ("broken", "something went wrong; the log says what"),
    ],
)
def test_an_address_where_something_else_answers_is_told_so(service: tuple[asof.FeatureStore, Faults], fault: str, message: str) -> None:
    store, faults = service
    faults.next = [fault]
    with pytest.raises(StoreError, match=message):
        store.registered()


def test_a_service_that_stays_busy_is_told_as_such(service: tuple[asof.FeatureStore, Faults]) -> None:
    store, faults = service
    faults.next = ["busy"] * 3
    with pytest.raises(Overloaded, match="too many requests at once"):
        store.registered()


def test_a_service_that_sends_nothing_is_not_waited_for_without_end(filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_http, "PAUSES", ())
    monkeypatch.setattr(service_http, "SECONDS", 0.2)
    with answering(filled) as (url, faults), asof.connect(url) as store:
        faults.next = ["slow"]
        with pytest.raises(StoreError, match=r"nothing came for 0\.2 seconds|timed out"):
            read(store.store, "history")


def test_a_reader_that_stops_half_way_leaves_the_store_usable(service: tuple[asof.FeatureStore, Faults]) -> None:
    store, _ = service
    rows = store.store.read(TABLE, Selection("1d"))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(read(store.store, "history")) == 180


def test_nothing_is_asked_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_http, "PAUSES", (0.0,))
    with asof.connect("http://127.0.0.1:1") as store, pytest.raises(StoreError, match=r"http://127.0.0.1:1 cannot be reached.*refused"):
        store.registered()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://", "is no address of a service; write http://host:8006"),
        ("http://host:port", "is no address"),
        ("http://host/?key=1", "is no address"),
        ("http://me:hush@host", "names a user: a service knows keys"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as refused:
        asof.connect(url)
    assert "hush" not in str(refused.value)


def test_a_key_that_is_none_is_refused_and_not_shown() -> None:
    with pytest.raises(AccessError, match="without line breaks") as refused:
        asof.connect("http://host", key="asof_secret\n")
    assert "secret" not in str(refused.value)


def test_inputs_and_writes_are_refused_with_what_to_do(service: tuple[asof.FeatureStore, Faults]) -> None:
    store, _ = service
    for work in (
        lambda: list(store.store.read(BARS_TABLE, Selection("1d"))),
        lambda: store.store.upsert(BARS_TABLE, BARS_TABLE.schema.empty_table(), datetime.now(UTC)),
        store.store.spans,
        lambda: store.catch_up("fs_v1", "1d"),
    ):
        with pytest.raises(StoreError, match=r"is a service, which gives out vectors and takes nothing in: .* need the store itself"):
            work()
    with pytest.raises(DataError):
        store.get_historical_features(ENTITIES.drop_columns(["instrument_id"]), "fs_v1", "1d")
