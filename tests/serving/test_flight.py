"""Arrow Flight over a real server and a real client: what it answers, to whom, and what it says to what it cannot use."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from pyarrow import flight

import asof
from asof.errors import AccessError, AsofError, StoreError
from asof.records import UTC
from asof.serving import flight as serving
from asof.serving.flight import Everybody, FlightServer, Principal
from asof.stores.store import Selection, vectors_table
from tests.servers.certificates import certificate

ENTITIES = pa.table(
    {
        "label": [1, 2, 3],
        "instrument_id": ["I1", "I0", "no one"],
        "event_timestamp": pa.array([1_706_000_000_000_000] * 3).cast(UTC),
    }
)


@contextmanager
def serving_over(store: asof.FeatureStore, **given: object) -> Iterator[FlightServer]:
    server = FlightServer(store, **given)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server(filled: asof.FeatureStore) -> Iterator[FlightServer]:
    with serving_over(filled) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: FlightServer) -> Iterator[flight.FlightClient]:
    with closing(flight.connect(f"grpc://127.0.0.1:{server.port}")) as made:
        yield made


@pytest.fixture
def remote(server: FlightServer) -> Iterator[asof.FeatureStore]:
    with asof.connect(f"grpc://127.0.0.1:{server.port}") as made:
        yield made


def got(client: flight.FlightClient, **question: object) -> pa.Table:
    ticket = json.dumps({"feature_set": "fs_v1", "timeframe": "1d"} | {k.rstrip("_"): v for k, v in question.items()})
    return client.do_get(flight.Ticket(ticket.encode())).read_all()


def test_a_ticket_gets_the_table_of_history(client: flight.FlightClient, filled: asof.FeatureStore) -> None:
    assert got(client, ordered=True) == filled.history("fs_v1", "1d").table
    some = got(client, instruments=["I0"], from_="2024-02-01", to="2024-02-03", features=["vol_20", "ret_1"], ordered=True)
    assert some == filled.history(["fs_v1:vol_20", "fs_v1:ret_1"], "1d", instruments=["I0"], start="2024-02-01", end="2024-02-03").table
    assert len(some) == 3
    assert got(client, latest=True) == filled.latest("fs_v1", "1d").table
    assert got(client, known_at="2020-01-01").num_rows == 0


def test_flights_are_the_registered_sets_and_lead_to_their_vectors(client: flight.FlightClient, filled: asof.FeatureStore) -> None:
    found = {info.descriptor.path[0].decode(): info for info in client.list_flights()}
    assert list(found) == ["fs_v1", "ta_v1"]
    assert json.loads(found["fs_v1"].app_metadata)["fingerprint"] == asof.fs_v1.fingerprint
    info = client.get_flight_info(flight.FlightDescriptor.for_path("fs_v1", "1d"))
    table = client.do_get(info.endpoints[0].ticket).read_all()
    assert (table.schema, len(table)) == (info.schema, 180)
    assert client.get_schema(flight.FlightDescriptor.for_path("fs_v1", "1d")).schema == filled.history("fs_v1", "1d").table.schema


def test_entity_rows_come_back_joined_batch_by_batch(client: flight.FlightClient, filled: asof.FeatureStore) -> None:
    asked = json.dumps({"feature_set": "fs_v1", "timeframe": "1d", "features": ["ret_5"]}).encode()
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(asked))
    with writer:
        writer.begin(ENTITIES.schema)
        for _ in range(3):
            writer.write_table(ENTITIES)
            assert (
                pa.Table.from_batches([reader.read_chunk().data]) == filled.get_historical_features(ENTITIES, ["fs_v1:ret_5"], "1d").table
            )
        writer.done_writing()


def test_an_exchange_without_rows_ends_with_the_columns_alone(client: flight.FlightClient) -> None:
    asked = json.dumps({"feature_set": "fs_v1", "timeframe": "1d"}).encode()
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(asked))
    with writer:
        writer.begin(ENTITIES.schema)
        writer.done_writing()
        assert reader.read_all().column_names[:4] == ["label", "instrument_id", "event_timestamp", "ret_1"]


@pytest.mark.parametrize(
    ("question", "kind", "message"),
    [
        ({"feature_set": "fs_v2x"}, "NotFound", "no feature set 'fs_v2x'"),
        ({"timeframe": "5x"}, "DefinitionError", "timeframe '5x'"),
        ({"features": ["ret_2"]}, "NotFound", "has no feature 'ret_2'; did you mean 'ret_"),
        ({"columns": ["closed"]}, "NotFound", "has no column 'closed'"),
        ({"from_": "yesterday"}, "DataError", "start 'yesterday' is not a time"),
        ({"known_at": "2024-01-01T00:00:00"}, "DataError", "has no zone"),
        ({"instrument": ["I0"]}, "DataError", "there is no 'instrument' to ask by; there are feature_set"),
        ({"instruments": "I0"}, "DataError", "instruments is 'I0', and has to be a list of texts"),
        ({"ordered": "yes"}, "DataError", "ordered is 'yes', and has to be true or false"),
        ({"instruments": ["X" * 10] * 90_000}, "DataError", "1,048,576 are the most: ask for fewer instruments at a time"),
    ],
)
def test_a_question_that_cannot_be_used_is_told_so_as_it_is_anywhere(
    client: flight.FlightClient, question: dict[str, object], kind: str, message: str
) -> None:
    with pytest.raises(flight.FlightError) as refused:
        got(client, **question)
    problem = json.loads(refused.value.extra_info)
    assert problem["kind"] == kind
    assert message in problem["detail"]


@pytest.mark.parametrize("ticket", [b"", b"fs_v1", b"[1]", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_a_ticket_that_is_no_question_is_refused(client: flight.FlightClient, ticket: bytes) -> None:
    with pytest.raises(flight.FlightError, match="the question"):
        client.do_get(flight.Ticket(ticket)).read_all()


def test_entities_that_cannot_be_used_are_refused_by_their_row(client: flight.FlightClient) -> None:
    asked = json.dumps({"feature_set": "fs_v1", "timeframe": "1d"}).encode()
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(asked))
    writer.begin(ENTITIES.schema)
    writer.write_table(ENTITIES.set_column(1, "instrument_id", pa.array(["I0", None, "I1"])))
    writer.done_writing()
    with pytest.raises(flight.FlightError, match="entities, row 2: instrument_id is missing"):
        reader.read_all()
    with pytest.raises(flight.FlightError, match="instrument_id is missing"):
        writer.close()


class OnlyTa(Everybody):
    def may_read(self, version: str) -> bool:
        return version == "ta_v1"


def authenticate(authorization: str | None) -> Principal:
    try:
        return {"Bearer all": Everybody(), "Bearer ta": OnlyTa()}[authorization or ""]
    except KeyError:
        raise AccessError("no key that is known: send one in the header Authorization: Bearer ...") from None


@pytest.mark.parametrize("call", ["list_flights", "do_get", "do_action", "get_flight_info", "get_schema", "do_exchange", "list_actions"])
def test_without_a_key_no_call_answers_where_one_is_asked_for(filled: asof.FeatureStore, call: str) -> None:
    path = flight.FlightDescriptor.for_path("fs_v1", "1d")
    given = {"do_get": [flight.Ticket(b"{}")], "do_action": ["about"]}.get(call, [] if call.startswith("list") else [path])
    with serving_over(filled, authenticate=authenticate) as server, closing(flight.connect(f"grpc://127.0.0.1:{server.port}")) as client:
        for headers in ([], [(b"authorization", b"Bearer wrong")], [(b"authorization", b"all")]):
            options = flight.FlightCallOptions(headers=headers)
            with pytest.raises(
                (flight.FlightUnauthenticatedError, OSError), match="no key that is known"
            ):  # OSError: get_schema of PyArrow
                consume(getattr(client, call)(*given, options=options))


def consume(answer: object) -> None:
    if isinstance(answer, tuple):
        answer[0].close()
    elif isinstance(answer, Iterator):
        list(answer)


def test_a_key_reads_what_it_may_and_sees_no_more(filled: asof.FeatureStore) -> None:
    with serving_over(filled, authenticate=authenticate) as server:
        url = f"grpc://127.0.0.1:{server.port}"
        with asof.connect(url, key="all") as store:
            assert list(store.registered()) == ["fs_v1", "ta_v1"]
        with asof.connect(url, key="ta") as store:
            assert list(store.registered()) == ["ta_v1"]
            assert len(store.history("ta_v1", "1d").table) == 0
            with pytest.raises(AccessError, match="this key may not read fs_v1: it lacks the scope read:fs_v1"):
                store.store.latest(vectors_table(asof.fs_v1), Selection("1d"))
            for question in ({"feature_set": "fs_v1", "timeframe": "1d"}, {"feature_set": "made_up", "timeframe": "1d"}):
                with pytest.raises(AccessError, match="may not read"):
                    list(store.store._wire.history(question, pa.schema([])))  # type: ignore[attr-defined]
        with asof.connect(url, key="wrong") as store, pytest.raises(AccessError, match=r"grpc://127.0.0.1:\d+: no key that is known"):
            store.registered()


def test_no_more_calls_read_than_have_room_and_others_are_told_to_come_again(
    filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MOST_CALLS", 1)
    monkeypatch.setattr(serving, "BATCH_BYTES", 1)
    with serving_over(filled) as server, closing(flight.connect(f"grpc://127.0.0.1:{server.port}")) as client:
        assert server._free.acquire(blocking=False)
        with pytest.raises(flight.FlightUnavailableError, match="reads for 1 calls already: try again in a moment"):
            got(client)
        server._free.release()
        for _ in range(3):
            reader = client.do_get(flight.Ticket(b'{"feature_set": "fs_v1", "timeframe": "1d"}'))
            assert len(reader.read_chunk().data) == 1
            reader.cancel()
            until = time.monotonic() + 10
            while not server._free.acquire(blocking=False):
                assert time.monotonic() < until, "a call that was given up keeps its place"
                time.sleep(0.01)
            server._free.release()


def test_the_end_of_a_server_breaks_off_an_answer_and_the_reader_is_told(
    filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "BATCH_BYTES", 1)
    with serving_over(filled) as server, asof.connect(f"grpc://127.0.0.1:{server.port}") as store:
        store.registered()
        server._stopping.set()
        with pytest.raises(AsofError, match="the service is ending"):
            store.history("fs_v1", "1d")


def test_what_breaks_inside_is_logged_and_not_told(
    filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: object) -> dict[str, object]:
        raise RuntimeError("secret path")

    with serving_over(filled) as server, closing(flight.connect(f"grpc://127.0.0.1:{server.port}")) as client:
        monkeypatch.setattr(type(filled), "wanted", broken)
        with pytest.raises(flight.FlightInternalError, match="something went wrong; the service's log says what") as failed:
            got(client)
    assert "secret" not in str(failed.value)
    assert "RuntimeError: secret path" in caplog.text


def test_a_port_that_is_taken_is_told_with_the_mend(filled: asof.FeatureStore, server: FlightServer) -> None:
    with pytest.raises(AsofError, match=rf"Flight cannot listen at 127.0.0.1:{server.port}: .*--flight-port"):
        FlightServer(filled, port=server.port)


def test_readers_at_the_same_time_get_the_same(remote: asof.FeatureStore, filled: asof.FeatureStore) -> None:
    wanted, found = filled.history("fs_v1", "1d").table, []
    threads = [threading.Thread(target=lambda: found.append(remote.history("fs_v1", "1d").table)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [table == wanted for table in found] == [True] * 6


def test_with_a_certificate_it_speaks_tls_to_those_who_trust_it(
    filled: asof.FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = certificate(tmp_path)
    with serving_over(filled, tls=tls) as server:
        url = f"grpc+tls://127.0.0.1:{server.port}"
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
        with asof.connect(url) as store:
            assert store.latest("fs_v1", "1d").table == filled.latest("fs_v1", "1d").table
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setattr("asof.stores.service_flight.PAUSES", ())
        for other in (url, url.replace("+tls", "")):
            with asof.connect(other) as store, pytest.raises(StoreError, match="cannot be reached"):
                store.registered()
