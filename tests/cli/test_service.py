"""The commands over a service: the same bytes as over its store, whichever that is, and what is said to what a service does not do."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import pyarrow as pa
import pytest

import asof as package
from asof.definitions import register
from asof.features.library import SHIPPED
from asof.jobs.formats import FORMATS, TABLES
from asof.serving.flight import FlightServer
from asof.serving.keys import FILE, LOOK_SECONDS, KeyFile
from asof.stores.store import Selection, vectors_table
from tests import processes
from tests.cli.conftest import Command, Done
from tests.servers.api import api
from tests.servers.certificates import certificate
from tests.servers.postgres import Postgres

STORES = ("duckdb", "postgresql", "grpc over duckdb", "grpc over postgresql", "http over duckdb", "http over postgresql")
SELECTIONS = (
    (),
    ("--latest",),
    ("-i", "ECHO", "-i", "ALFA", "--from", "2024-03-01", "--to", "2024-03-31"),
    ("-i", "ALFA", "-i", "ALFA"),
    ("-i", "nobody"),
    ("--known-at", "2020-01-01"),
)


def copied(source: package.FeatureStore, target: package.FeatureStore) -> None:
    """The vectors of one store in another, as if they had been computed there at the same time."""
    for version, there in source.registered().items():
        definition = source.definition(version)
        register(target.store, definition, there.applied_at)
        for rows in source.store.read(vectors_table(definition), Selection()):
            target.store.upsert(vectors_table(definition), rows, there.applied_at)


@pytest.fixture(scope="module")
def stores(made_once: Path, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs of stores that hold the same vectors: files, servers, and services over each."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.chdir(made_once)
        shutil.copy(made_once / "asof.duckdb", folder / "mine.duckdb")
        shutil.copy(made_once / "asof.duckdb", folder / "served.duckdb")
        url = postgres.database()
        on_duckdb = stack.enter_context(package.connect(str(folder / "served.duckdb")))
        on_postgres = stack.enter_context(package.connect(url))
        copied(on_duckdb, on_postgres)
        found = {"duckdb": f"duckdb:///{folder / 'mine.duckdb'}", "postgresql": url}
        for name, store in {"duckdb": on_duckdb, "postgresql": on_postgres}.items():
            server = FlightServer(store)
            stack.callback(server.stop)
            found[f"grpc over {name}"] = f"grpc://127.0.0.1:{server.port}"
            found[f"http over {name}"] = stack.enter_context(api(store)).url
        yield found


def by_store(asof: Command, stores: dict[str, str], *arguments: object) -> dict[str, Done]:
    return {name: asof(*arguments, "--store", stores[name]) for name in STORES}


def same(done: dict[str, bytes]) -> bytes:
    """What all stores gave. Says which differ from DuckDB's."""
    assert [name for name, found in done.items() if found != done["duckdb"]] == []
    return done["duckdb"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("selection", SELECTIONS, ids=" ".join)
def test_get_writes_the_same_bytes_over_every_store(
    asof: Command, project: Path, stores: dict[str, str], form: str, selection: tuple[str, ...]
) -> None:
    done = {name: asof("get", "my_v1", "-t", "1d", "-f", form, *selection, "--store", url) for name, url in stores.items()}
    assert {name: d.code for name, d in done.items()} == dict.fromkeys(STORES, 0)
    given = same({name: d.output for name, d in done.items()})
    assert len(given) > 1000 or selection[-1] in ("nobody", "2020-01-01", "--latest")


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("options", [(), ("-f", "ret_1", "--max-age", "36h"), ("--known-at", "2020-01-01")], ids=" ".join)
def test_join_writes_the_same_bytes_over_every_store(
    asof: Command, project: Path, stores: dict[str, str], form: str, options: tuple[str, ...]
) -> None:
    rows = [
        f"{name},2024-0{month}-1{day}T12:00:00Z,{day}" for name in ("ALFA", "ECHO", "nobody") for month in (1, 4, 6) for day in range(5)
    ]
    Path("entities.csv").write_text("\n".join(["instrument_id,event_timestamp,label", *rows]))
    for name, url in stores.items():
        done = asof("join", "my_v1", "entities.csv", "-t", "1d", "-o", f"{name}.{form}", *options, "--store", url)
        assert (done.code, done.errors) == (0, ""), done.errors
    assert same({name: Path(f"{name}.{form}").read_bytes() for name in STORES})


def test_plan_says_the_same_over_every_store(asof: Command, project: Path, stores: dict[str, str]) -> None:
    said = same({name: asof("plan", "--json", "--store", url).output for name, url in stores.items()})
    assert b'"my_v1", "state": "unchanged"' in said


def test_the_doctor_tells_what_answers(asof: Command, project: Path, stores: dict[str, str]) -> None:
    done = asof("doctor", "--store", stores["grpc over duckdb"])
    assert done.code == 0, done.text
    assert f"{stores['grpc over duckdb']}: asof service {package.__version__}" in done.text
    assert "my_v1" in done.text
    lost = asof("doctor", "--store", "grpc://127.0.0.1:1")
    assert lost.code == 1
    assert "grpc://127.0.0.1:1 cannot be reached" in lost.text


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("get my_v2 -t 1d", 6, "no feature set 'my_v2'"),
        ("get my_v1 -t 1x", 3, "timeframe '1x'"),
        ("get my_v1 -t 1d --from 2024-13-01", 4, "2024-13-01"),
        ("ingest bars data/bars.parquet", 5, "is a service, which gives out vectors and takes nothing in: writes need the store itself"),
        ("apply fs_v2", 5, "new feature sets need the store itself (--store duckdb:///path or postgresql://...)"),
        ("backfill my_v1 -t 1d", 5, "bars need the store itself"),
        ("explain my_v1 -i ALFA --ts 2024-06-10T14:30:00Z -t 1d", 5, "is a service"),
        ("verify my_v1 -t 1d", 5, "bars need the store itself"),
    ],
)
def test_what_a_service_does_not_do_is_refused_with_what_does(
    asof: Command, project: Path, stores: dict[str, str], line: str, code: int, said: str
) -> None:
    done = asof(*line.split(), "--store", stores["grpc over duckdb"])
    assert done.code == code, done.errors + done.text
    assert said in done.said


def test_an_address_without_a_service_is_told_so(asof: Command, project: Path) -> None:
    done = asof("get", "my_v1", "-t", "1d", "--store", "grpc://127.0.0.1:1")
    assert done.code == 5
    assert "grpc://127.0.0.1:1 cannot be reached" in done.said
    assert "debug context" not in done.said


def test_a_walk_over_a_service_is_refused_for_it_needs_bars(stores: dict[str, str], project: Path) -> None:
    with (
        package.connect(stores["grpc over duckdb"]) as store,
        pytest.raises(package.errors.StoreError, match="bars need the store itself"),
    ):
        next(package.iter_asof(store, "my_v1", "1d", "2024-01-01", "2024-02-01"))


def test_many_entities_are_sent_in_parts_and_come_back_in_their_order(
    stores: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asof.stores.service.JOINED_ROWS", 7)
    days = pa.array([1_709_300_000_000_000 + k * 86_400_000_000 for k in range(30)]).cast(pa.timestamp("us", tz="UTC"))
    entities = pa.table({"event_timestamp": days, "instrument_id": ["ALFA", "ECHO", "nobody"] * 10, "n": range(30)})
    found = []
    for name in ("duckdb", "grpc over postgresql"):
        with package.connect(stores[name]) as store:
            found.append(store.get_historical_features(entities, "my_v1", "1d").table.combine_chunks())
    assert found[0].equals(found[1])
    assert found[0]["ts"].null_count == 10


def test_a_service_answers_until_it_is_told_to_end_and_one_that_is_killed_leaves_no_half_table(project: Path) -> None:
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        service = processes.command("serve", "--port", "0", "--flight", "--flight-port", "0", folder=project)
        _, url = addresses(service)
        with package.connect(url) as store:
            assert len(store.latest("my_v1", "1d").table) == 5
            if ending == signal.SIGKILL:
                rows = store.store.read(vectors_table(store.definition("my_v1")), Selection("1d"))
                service.send_signal(ending)
                service.wait()
                with pytest.raises(package.errors.StoreError, match="cannot be reached, or broke off its answer"):
                    list(rows)
        service.send_signal(ending)
        code, _, errors = processes.finish(service)
        assert (code, errors) == (-9 if ending == signal.SIGKILL else 0, "")


def test_a_service_with_keys_and_a_certificate_lets_in_who_may_and_logs_no_key(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = certificate(project)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    files = {"ASOF_TLS_CERTIFICATE": str(tls.certificate), "ASOF_TLS_KEY": str(tls.key)}
    token, kept = KeyFile(project / FILE).create("desk", ["read:my_v1"], None)
    service = processes.command("serve", "--port", "0", "--flight", "--flight-port", "0", folder=project, **files)
    over_http, url = addresses(service)
    assert over_http.startswith("https://")
    with package.connect(over_http, key=token) as store:
        assert len(store.latest("my_v1", "1d").table) == 5
    assert url.startswith("grpc+tls://")
    with package.connect(url, key=token) as store:
        assert len(store.latest("my_v1", "1d").table) == 5
        assert list(store.registered()) == ["my_v1"]
        with pytest.raises(package.errors.AccessError, match="it lacks the scope read:fs_v1"):
            list(store.store.read(vectors_table(SHIPPED["fs_v1"]), Selection("1d")))
    for key, message in ((None, "asks for a key"), (token[:-1], "this key is not known here"), (f"{token} {token}", "not known")):
        with package.connect(url, key=key) as store, pytest.raises(package.errors.AccessError, match=message):
            store.registered()
    KeyFile(project / FILE).revoke(kept.prefix)
    time.sleep(LOOK_SECONDS)
    with package.connect(url, key=token) as store, pytest.raises(package.errors.AccessError, match="is revoked since"):
        store.registered()
    service.send_signal(signal.SIGTERM)
    code, said, errors = processes.finish(service)
    assert code == 0
    assert token.rpartition("_")[2] not in said + errors


def addresses(service: Popen[str]) -> list[str]:
    """Where a service answers: HTTP and Flight."""
    assert service.stdout is not None
    return [service.stdout.readline().split()[-1] for _ in range(2)]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("serve --from nowhere.duckdb --port 0", 5, "nowhere.duckdb does not exist"),
        ("serve --from kafka://127.0.0.1:1 --flight --port 0", 2, "Flight reads a store, and a topic is none"),
        ("serve --host 0.0.0.0 --port 0", 2, "nobody could be let in: it listens at 0.0.0.0"),
        ("serve --from mysql://x --port 0", 5, "unknown kind 'mysql'"),
        ("serve --prot 0", 2, "No such option: --prot"),
    ],
)
def test_what_cannot_be_served_is_told(asof: Command, project: Path, line: str, code: int, said: str) -> None:
    done = asof(*line.split())
    assert done.code == code, done.errors + done.text
    assert said in done.said
