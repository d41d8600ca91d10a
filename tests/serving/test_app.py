"""The API as its clients see it: the real server over each store, asked by a client that is none of ours."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet
import pytest

import asof
from asof.config import Settings
from asof.errors import StoreError
from asof.jobs.formats import lines
from asof.serving import keys as keys_module
from asof.serving.answers import ARROW, JSON, LINES, PARQUET, accepted
from asof.serving.app import ROUTES, TABLE, application, described_api
from asof.serving.asgi import App
from asof.serving.gate import Gate
from asof.serving.keys import KeyFile
from asof.serving.problems import NotAcceptable
from asof.stores.store import Selection, vectors_table
from tests.servers.api import Api, api, state_of
from tests.servers.postgres import Postgres
from tests.serving.asgi import ask, bearer
from tests.serving.conftest import sample_bars
from tests.serving.walk import key, nobody_is_let_in, scopes_are_needed

SET = {"feature_set": "fs_v1", "timeframe": "1d"}
LATEST, HISTORY, JOIN = "/v1/features/latest", "/v1/features/history", "/v1/features/join"
ENTITIES = pa.table(
    {
        "label": [1, 2, 3],
        "instrument_id": ["I1", "I0", "no one"],
        "event_timestamp": pa.array([1_706_000_000_000_000] * 3).cast(pa.timestamp("us", tz="UTC")),
    }
)


@pytest.fixture(scope="module")
def stores(
    filled: asof.FeatureStore, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[dict[str, asof.FeatureStore]]:
    folder: Path = tmp_path_factory.mktemp("api")
    pa.parquet.write_table(sample_bars(), folder / "bars.parquet")
    with asof.connect(postgres.database()) as other:
        other.ingest_bars(folder / "bars.parquet", timeframe="1d")
        other.backfill("fs_v1", "1d")
        other.apply("ta_v1")
        yield {"duckdb": filled, "postgres": other}


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def store(request: pytest.FixtureRequest, stores: dict[str, asof.FeatureStore]) -> asof.FeatureStore:
    return stores[request.param]


@pytest.fixture(scope="module")
def served(store: asof.FeatureStore) -> Iterator[Api]:
    with api(store) as made:
        yield made


@pytest.fixture(scope="module")
def client(served: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as made:
        yield made


def table(answer: httpx.Response) -> pa.Table:
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == ARROW:
        return pa.ipc.open_stream(answer.content).read_all()
    assert answer.headers["content-type"] == PARQUET
    return pa.parquet.read_table(io.BytesIO(answer.content))


def records(store: asof.FeatureStore, **selection: object) -> list[dict[str, object]]:
    rows = store.store.read(vectors_table(asof.fs_v1), Selection("1d", **selection))  # type: ignore[arg-type]
    return [json.loads(line) for rows in rows for _, line in lines(asof.fs_v1, rows)]


def problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    told = answer.json()
    assert answer.status_code == told["status"] == status, told
    assert set(told) >= {"type", "title", "detail", "instance"}
    assert "Traceback" not in answer.text
    for word in words:
        assert word in told["detail"], told["detail"]


def test_the_newest_vectors_come_out_of_memory_as_they_are_stored(client: httpx.Client, store: asof.FeatureStore) -> None:
    told = client.get(LATEST, params=SET | {"instrument": ["I1", "no one", "I0"]}).json()
    assert (told["feature_set"], told["timeframe"], told["missing"], told["stale"]) == ("fs_v1", "1d", ["no one"], [])
    newest = {one["instrument_id"]: one for one in records(store, start=datetime(2024, 2, 29, tzinfo=UTC))}
    assert told["vectors"] == [newest["I1"], newest["I0"]]
    assert len(told["age_seconds"]) == 2
    assert min(told["age_seconds"]) > 86_400
    assert client.get(LATEST, params=SET).json()["vectors"] == list(newest.values())


def test_a_question_from_memory_from_the_store_and_by_post_has_one_answer(client: httpx.Client, store: asof.FeatureStore) -> None:
    asked = SET | {"instrument": ["I0", "I2"]}
    posted = client.post(LATEST, json=SET | {"instruments": ["I0", "I2"]}).json()
    from_store = client.get(LATEST, params=asked | {"at": "2030-01-01"}).json()
    from_memory = client.get(LATEST, params=asked).json()
    assert from_memory["vectors"] == from_store["vectors"] == posted["vectors"]
    assert [one["instrument_id"] for one in posted["vectors"]] == ["I0", "I2"]


def test_the_newest_of_a_moment_and_of_some_features(client: httpx.Client, store: asof.FeatureStore) -> None:
    told = client.get(LATEST, params=SET | {"at": "2024-01-20T12:00:00Z", "instrument": "I1", "feature": ["ret_1"]}).json()
    assert told["vectors"][0]["ts_utc"] == "2024-01-19T00:00:00Z"
    assert list(told["vectors"][0]["features"]) == ["ret_1"]
    assert client.get(LATEST, params=SET | {"known_at": "2020-01-01"}).json()["vectors"] == []


def test_what_is_too_old_is_left_out_and_named(client: httpx.Client) -> None:
    told = client.get(LATEST, params=SET | {"max_age": "3d", "instrument": "I1"}).json()
    assert (told["stale"], told["vectors"], told["age_seconds"]) == (["I1"], [], [])
    assert len(client.get(LATEST, params=SET | {"max_age": "30000d"}).json()["vectors"]) == 3
    assert table(client.get(LATEST, params=SET | {"max_age": "3d"}, headers={"accept": ARROW})).num_rows == 0


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_tables_are_those_of_the_store(kind: str, client: httpx.Client, store: asof.FeatureStore) -> None:
    headers = {"accept": kind}
    assert table(client.get(LATEST, params=SET, headers=headers)) == store.latest("fs_v1", "1d").table
    assert table(client.get(HISTORY, params=SET, headers=headers)).equals(store.history("fs_v1", "1d").table)
    some = client.get(
        HISTORY, params=SET | {"instrument": "I0", "from": "2024-02-01", "to": "2024-02-03", "feature": "ret_1"}, headers=headers
    )
    assert table(some) == store.history(["fs_v1:ret_1"], "1d", instruments=["I0"], start="2024-02-01", end="2024-02-03").table


def test_history_is_records_in_json_and_in_lines(client: httpx.Client, store: asof.FeatureStore) -> None:
    told = client.get(HISTORY, params=SET).json()
    assert (told["next_cursor"], told["vectors"]) == (None, records(store))
    listed = client.get(HISTORY, params=SET, headers={"accept": LINES})
    assert [json.loads(line) for line in listed.text.splitlines()] == records(store)


@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61, 180])
def test_pages_together_are_the_whole(limit: int, client: httpx.Client, store: asof.FeatureStore) -> None:
    for more in ({}, {"instrument": ["I0", "I2"], "from": "2024-01-05"}):
        found, asked = [], SET | more | {"limit": limit}
        for _ in range(200):
            answer = client.get(HISTORY, params=asked, headers={"accept": ARROW})
            found.append(table(answer))
            assert len(found[-1]) <= limit
            if "asof-next-cursor" not in answer.headers:
                break
            asked["cursor"] = answer.headers["asof-next-cursor"]
        chosen = {} if not more else {"instruments": ["I0", "I2"], "start": "2024-01-05"}
        assert pa.concat_tables(found).combine_chunks() == store.history("fs_v1", "1d", **chosen).table.combine_chunks()  # type: ignore[arg-type]


def test_a_join_is_that_of_the_store_in_every_format(client: httpx.Client, store: asof.FeatureStore) -> None:
    wanted = store.get_historical_features(ENTITIES, "fs_v1", "1d").table
    out, parquet = io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(out, ENTITIES.schema) as writer:
        writer.write_table(ENTITIES)
    pa.parquet.write_table(ENTITIES, parquet)
    rows = [
        {"label": n + 1, "instrument_id": name, "event_timestamp": "2024-01-23T08:53:20Z"} for n, name in enumerate(["I1", "I0", "no one"])
    ]
    for kind, body in ((ARROW, out.getvalue()), (PARQUET, parquet.getvalue())):
        for accept in (ARROW, PARQUET):
            assert table(client.post(JOIN, params=SET, content=body, headers={"content-type": kind, "accept": accept})) == wanted
    for given in (rows, {"entities": rows}):
        told = client.post(JOIN, params=SET | {"feature": "ret_5"}, json=given).json()["rows"]
        assert [row["ret_5"] for row in told] == wanted["ret_5"].to_pylist()
        assert told[0] == rows[0] | {
            "ret_5": wanted["ret_5"][0].as_py(), "ts": "2024-01-22T00:00:00Z",
            "available_at": "2024-01-23T00:00:00Z", "quality_flags": ["NO_EVENTS"],
        }  # fmt: skip


def test_feature_sets_have_definition_and_lineage(client: httpx.Client) -> None:
    listed = client.get("/v1/feature-sets").json()["feature_sets"]
    assert [one["version"] for one in listed] == ["fs_v1", "ta_v1"]
    told = client.get("/v1/feature-sets/fs_v1").json()
    assert told["fingerprint"] == asof.fs_v1.fingerprint
    assert asof.FeatureSet.parse(told["definition"]).fingerprint == told["fingerprint"]
    nodes, edges = told["graph"]["nodes"], told["graph"]["edges"]
    assert {name for node in nodes for name in node["is"]} == {*asof.fs_v1.features, *asof.fs_v1.flags}
    assert all(first < second for first, second in edges), "inputs come first"
    problem(client.get("/v1/feature-sets/fs_v9"), 404, "fs_v9", "did you mean 'fs_v1'")


def test_what_is_sent_is_computed_to_the_bit(client: httpx.Client) -> None:
    bars = sample_bars(1).slice(0, 25)
    sent = [row | {"ts": row["ts"].isoformat(), "timeframe": "1d"} for row in bars.to_pylist()]
    wanted = asof.compute(asof.fs_v1, bars, timeframe="1d").table
    told = client.post("/v1/compute", json={"feature_set": "fs_v1", "bars": sent, "last": True}).json()
    assert told["vectors"][0]["features"]["vol_20"] == wanted["vol_20"][24].as_py()
    arrow = table(client.post("/v1/compute", json={"feature_set": "fs_v1", "bars": sent}, headers={"accept": ARROW}))
    assert arrow["ret_1"].to_pylist() == wanted["ret_1"].to_pylist()


def test_clients_of_feast_are_answered(client: httpx.Client) -> None:
    told = client.post("/get-online-features", json={"features": ["fs_v1:ret_1"], "entities": {"instrument_id": ["I0", "no one"]}}).json()
    assert told["results"][1]["statuses"] == ["PRESENT", "NOT_FOUND"]
    problem(client.post("/get-online-features", json={"features": ["fs_v1:ret_2"], "entities": {"instrument_id": []}}), 404, "ret_2")


def test_the_stream_is_there(client: httpx.Client) -> None:
    with client.stream("GET", "/v1/features/stream", params={"feature_set": "fs_v1", "newest": "true"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = [line for line, _ in zip(answer.iter_lines(), range(8), strict=False)]
    assert found[0] == "event: reset"
    assert found[3] == "event: vector"


def test_who_watches_is_answered(client: httpx.Client) -> None:
    assert client.get(LATEST, params=SET).status_code == 200
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"ready": True}
    text = client.get("/metrics").text
    assert 'feature_store_http_requests_total{route="/v1/features/latest",status="200"}' in text
    assert client.get("/health").headers["server"] == f"asof/{asof.__version__}"
    assert client.head("/health").status_code == 200
    assert client.head(LATEST, params=SET).status_code == 200


BAD: list[tuple[str, str, dict[str, object], int, str]] = [
    ("GET", LATEST, {"params": SET | {"feature_set": "fs_v2x"}}, 404, "fs_v2x"),
    ("GET", LATEST, {"params": SET | {"timeframe": "5x"}}, 422, "did you mean '5s'"),
    ("GET", LATEST, {"params": SET | {"feature": "ret_2"}}, 404, "ret_2"),
    ("GET", LATEST, {"params": SET | {"instrumnt": "A"}}, 422, "did you mean 'instrument'"),
    ("GET", LATEST, {"params": {"feature_set": "fs_v1"}}, 422, "timeframe is missing"),
    ("GET", LATEST, {"params": SET | {"at": "yesterday"}}, 422, "yesterday"),
    ("GET", LATEST, {"params": SET | {"at": "2024-01-01T00:00:00"}}, 422, "has no zone"),
    ("GET", LATEST, {"params": SET | {"max_age": "soon"}}, 422, "soon"),
    ("GET", LATEST, {"params": SET, "headers": {"accept": "image/png"}}, 406, "image/png"),
    ("GET", LATEST, {"params": SET | {"feature_set": "x" * 300}}, 422, "feature_set"),
    ("GET", LATEST, {"params": SET | {"feature_set": "../../etc"}}, 404, "etc"),
    ("GET", LATEST, {"params": SET | {"instrument": "I0\x00'; DROP TABLE bars; --"}}, 200, ""),
    ("POST", LATEST, {"json": SET | {"instruments": [f"I{n}" for n in range(10_001)]}}, 422, "10,001 instruments"),
    ("POST", LATEST, {"json": SET | {"instruments": [str(n) for n in range(1_000_000)]}}, 422, "bytes"),
    ("POST", LATEST, {"content": b"{"}, 422, "no JSON object"),
    ("POST", LATEST, {"content": b"[" * 100_000}, 422, "no JSON object"),
    ("POST", LATEST, {"json": SET | {"instrument": ["I0"]}}, 422, "did you mean 'instruments'"),
    ("POST", LATEST, {"json": SET | {"columns": ["close"]}, "headers": {"accept": ARROW}}, 404, "close"),
    ("GET", HISTORY, {"params": SET | {"from": "2024-02-01", "to": "2024-01-01"}}, 422, "turn them round"),
    ("GET", HISTORY, {"params": SET | {"from": "2024-13-01"}}, 422, "2024-13-01"),
    ("GET", HISTORY, {"params": SET | {"limit": "0"}}, 422, "limit"),
    ("GET", HISTORY, {"params": SET | {"limit": "many"}}, 422, "limit"),
    ("GET", HISTORY, {"params": SET | {"cursor": "abc"}}, 422, "cursor"),
    ("GET", HISTORY, {"params": SET | {"cursor": "W10="}}, 422, "cursor"),
    ("GET", HISTORY, {"params": SET | {"known_at": "now"}}, 422, "known_at"),
    ("POST", JOIN, {"params": SET, "content": b"ARROW1", "headers": {"content-type": ARROW}}, 422, "no whole table"),
    ("POST", JOIN, {"params": SET, "content": b"PAR1", "headers": {"content-type": PARQUET}}, 422, "no whole table"),
    ("POST", JOIN, {"params": SET, "content": b"a,b", "headers": {"content-type": "text/csv"}}, 415, "text/csv"),
    ("POST", JOIN, {"params": SET, "json": {"rows": []}}, 422, "entities"),
    ("POST", JOIN, {"params": SET, "json": [{"instrument_id": "I0"}]}, 422, "event_timestamp"),
    ("POST", JOIN, {"params": SET, "json": [{"instrument_id": "I0", "event_timestamp": "2024-01-01T00:00:00"}]}, 422, "zone"),
    ("POST", JOIN, {"params": SET | {"timezone": "Mars"}, "json": [{"instrument_id": "I0", "event_timestamp": "2024-01-01"}]}, 422, "Mars"),
    ("POST", "/v1/compute", {"json": {"feature_set": "fs_v1", "bars": [{"instrument_id": "A"}]}}, 422, "ts"),
    (
        "POST",
        "/v1/compute",
        {"json": {"feature_set": "nobody", "bars": [{"instrument_id": "A", "ts": "2024-01-01", "close": 1}]}},
        404,
        "nobody",
    ),
    ("GET", "/v1/features/stream", {"params": {"feature_set": "no"}}, 404, "no"),
    ("GET", "/v1/features/latst", {}, 404, "did you mean"),
    ("DELETE", LATEST, {}, 405, "GET, HEAD, POST"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_cannot_be_used_is_told_with_the_mend(number: int, client: httpx.Client) -> None:
    method, path, given, status, word = BAD[number]
    answer = client.request(method, path, **given)  # type: ignore[arg-type]
    if status == 200:
        assert answer.status_code == 200
    else:
        problem(answer, status, word)


def test_truncated_arrow_is_refused_wherever_it_is_cut(client: httpx.Client) -> None:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, ENTITIES.schema) as writer:
        writer.write_table(ENTITIES)
    whole = out.getvalue()
    for cut in range(0, len(whole) - 8, 97):
        problem(client.post(JOIN, params=SET, content=whole[:cut], headers={"content-type": ARROW}), 422)


def test_numbers_that_json_has_not_are_told_so(client: httpx.Client) -> None:
    out = io.BytesIO()
    odd = ENTITIES.set_column(0, "label", [[1.0, float("nan"), 2.0]])
    with pa.ipc.new_stream(out, odd.schema) as writer:
        writer.write_table(odd)
    problem(client.post(JOIN, params=SET, content=out.getvalue(), headers={"content-type": ARROW}), 422, "not finite")


def test_before_the_store_is_open_and_for_a_topic_it_says_so() -> None:
    with api(None) as served, httpx.Client(base_url=served.url) as client:
        problem(client.get(HISTORY, params=SET), 503, "not open yet")
        problem(client.get("/v1/feature-sets"), 503)
        assert client.get("/health").status_code == 200


def test_a_store_that_goes_away_is_a_problem_and_one_that_is_back_is_asked_again(
    filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with api(filled) as served, httpx.Client(base_url=served.url) as client:
        with monkeypatch.context() as patch:
            patch.setattr(type(filled.store), "read", _away)
            problem(client.get(HISTORY, params=SET), 503, "the server is gone")
            assert client.get(LATEST, params=SET).status_code == 200, "memory needs no store"
        assert client.get(HISTORY, params=SET).status_code == 200


def test_what_breaks_is_told_to_the_log_and_not_to_the_client(filled: asof.FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(*given: object, **named: object) -> None:
        raise RuntimeError("password=hunter2")

    with api(filled) as served, httpx.Client(base_url=served.url) as client:
        monkeypatch.setattr(type(filled.store), "registered", broken)
        answer = client.get("/v1/feature-sets")
    problem(answer, 500, "the log says what")
    assert "hunter2" not in answer.text
    assert caplog.records[0].exc_info


def _away(*given: object, **named: object) -> Iterator[pa.Table]:
    raise StoreError("the server is gone")


# Who may


@pytest.fixture
def guarded(filled: asof.FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[App, KeyFile]:
    monkeypatch.setattr(keys_module, "LOOK_SECONDS", 0.0)
    settings = Settings(keys_file=tmp_path / "keys.json", audit="off", most_rate=0)
    serving = state_of(filled, settings)
    app, _ = application(serving, Gate.of(settings, "127.0.0.1"))
    return app, KeyFile(tmp_path / "keys.json")


def test_without_a_right_key_nothing_is_answered(guarded) -> None:
    app, file = guarded
    mounted = ["/docs", "/redoc", "/openapi.json", "/v1/openapi.json"]
    assert nobody_is_let_in(app, ROUTES, file, mounted) > 1000


def test_each_route_needs_its_scope(guarded) -> None:
    app, file = guarded
    scopes_are_needed(app, ROUTES, file)


def test_a_key_for_one_feature_set_sees_nothing_of_another(guarded) -> None:
    app, file = guarded
    mine = bearer(key(file, "read:fs_v1"))
    one = {"feature_set": "ta_v1", "timeframe": "1d"}
    query = "feature_set=ta_v1&timeframe=1d"
    bars = [{"instrument_id": "A", "ts": "2024-01-01T00:00:00Z", "close": 1.0}]
    tried = [
        ask(app, "GET", f"{LATEST}?{query}", mine),
        ask(app, "GET", f"{LATEST}?{query}&at=2024-01-01", mine),
        ask(app, "GET", f"{HISTORY}?{query}", mine),
        ask(app, "GET", f"/v1/features/stream?{query}", mine),
        ask(app, "GET", "/v1/feature-sets/ta_v1", mine),
        ask(app, "POST", LATEST, mine, body=[json.dumps(one).encode()]),
        ask(app, "POST", HISTORY, mine, body=[json.dumps(one).encode()]),
        ask(app, "POST", f"{JOIN}?{query}", mine, (b"content-type", b"application/json"), body=[b"[]"]),
        ask(app, "POST", "/v1/compute", mine, body=[json.dumps(one | {"bars": bars}).encode()]),
        ask(app, "POST", "/get-online-features", mine, body=[b'{"features": ["ta_v1:x"], "entities": {"instrument_id": ["A"]}}']),
    ]
    assert [answer.status for answer in tried] == [403] * len(tried)
    listed = ask(app, "GET", "/v1/feature-sets", mine).json["feature_sets"]
    assert [each["version"] for each in listed] == ["fs_v1"]
    assert b"ta_v1" not in ask(app, "GET", "/v1/feature-sets/ta_v9", bearer(key(file, "read:ta_v9"))).body
    assert ask(app, "GET", f"{LATEST}?{query.replace('ta_v1', 'fs_v1')}", mine).status == 200


def test_every_route_is_described_with_an_example_and_its_problems() -> None:
    paths = described_api().openapi()["paths"]
    for one in TABLE:
        for method in one.route.methods:
            told = paths[one.route.path][method.lower()]
            assert told["summary"]
            assert told["responses"]["200"]["content"]
            assert {str(status) for status in one.wrong} <= set(told["responses"])
            if method == "POST":
                assert all(kind != JSON or "example" in body for kind, body in told["requestBody"]["content"].items())


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", JSON), ("", JSON), ("application/*;q=0.5, application/vnd.apache.arrow.stream", ARROW), (f"{PARQUET}, {ARROW}", PARQUET),
     (f"{ARROW};q=0, */*", JSON), ("text/html, */*;q=0.1", JSON)],
)  # fmt: skip
def test_the_best_of_what_is_accepted_is_answered(accept: str, kind: str) -> None:
    assert accepted(accept, (JSON, ARROW, PARQUET)) == kind
    with pytest.raises(NotAcceptable, match="text/html"):
        accepted("text/html", (JSON,))
