"""Who is let in, over an app with a route of every kind."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asof.config import ConfigError, load_settings
from asof.errors import AccessError
from asof.serving import access
from asof.serving import keys as keys_module
from asof.serving.access import Access
from asof.serving.gate import EVERYBODY, Gate
from asof.serving.keys import FILE, KeyFile
from asof.serving.limits import Limited, Limits
from asof.serving.oidc import Issuer, Tokens
from asof.serving.problems import Problems
from asof.serving.routes import Route
from tests.servers.issuer import AUDIENCE, issuing
from tests.serving.asgi import ask, asked, bearer
from tests.serving.walk import is_problem, key, nobody_is_let_in, paths, scopes_are_needed, wrong

TABLE = (
    Route("/health", need="public"),
    Route("/metrics", need="public"),
    Route("/openapi.json", need="any"),
    Route("/v1/features/latest", frozenset({"GET", "POST"})),
    Route("/v1/feature-sets/{version}"),
    Route("/v1/bars", frozenset({"POST"}), need="write"),
    Route("/v1/keys", need="admin"),
)


async def app(scope, receive, send):
    """Answers with who asks; a feature set that is named in the query has to be one that they may read."""
    principal = scope["state"]["principal"]
    if scope["query_string"]:
        principal.read(scope["query_string"].decode())
    if scope["path"] == "/openapi.json" and scope["method"] == "HEAD":
        raise ValueError("a secret of ours")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(sorted(principal.scopes)).encode()})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    monkeypatch.setattr(keys_module, "LOOK_SECONDS", 0.0)
    return KeyFile(tmp_path / FILE)


def guarded(gate: Gate, **more) -> Access:
    return Access(Problems(Limited(app, Limits())), gate, TABLE, **more)


def test_without_a_right_key_nothing_is_answered_but_what_is_public(file):
    root = guarded(Gate(file))
    assert nobody_is_let_in(root, TABLE, file) > 1000
    for method in ("GET", "HEAD"):
        assert ask(root, method, "/health").json == [], "nobody has no scopes"


def test_a_key_without_the_scope_is_refused_and_what_is_not_stated_is_not_there(file):
    root = guarded(Gate(file))
    scopes_are_needed(root, TABLE, file)
    assert "did you mean '/v1/features/latest'?" in ask(root, "GET", "/v1/features/lastest", bearer(key(file, "write"))).json["detail"]


def test_a_key_opens_what_its_scopes_say_and_no_more(file):
    root = guarded(Gate(file))
    opened = {
        "read:fs_v1": {"/openapi.json", "/v1/features/latest", "/v1/feature-sets/fs_v1"},
        "write": {"/openapi.json", "/v1/bars"},
        "admin": set(paths(TABLE)),
    }
    for scope, there in opened.items():
        brought = bearer(key(file, scope))
        for route, path in zip(TABLE, paths(TABLE), strict=True):
            for method in route.methods:
                assert ask(root, method, path, brought).status == (200 if path in there or route.need == "public" else 403), (scope, path)


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key", b"cookie", b"host"]), st.binary(max_size=90))), st.text(max_size=40)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_nobody_is_let_in_by_it(file, headers, path):
    key(file, "admin")
    assert is_problem(ask(guarded(Gate(file)), "GET", f"/v1/{path}", *headers), 401)


def test_a_handler_refuses_the_set_that_a_key_may_not_read(file):
    root = guarded(Gate(file))
    brought = bearer(key(file, "read:fs_v1"))
    assert ask(root, "GET", "/v1/features/latest?fs_v1", brought).status == 200
    answer = ask(root, "GET", "/v1/features/latest?fs_v2", brought)
    assert is_problem(answer, 403, "this key may not read fs_v2: it needs the scope read:fs_v2")
    assert answer.json["kind"] == "AccessError"
    assert ask(root, "GET", "/health?fs_v1", brought).status == 403, "a public route reads for nobody"


def test_an_expired_key_and_a_revoked_one_are_told_so(file):
    root = guarded(Gate(file))
    said = dict(wrong(file))
    for word in ("expired", "revoked"):
        assert is_problem(ask(root, "GET", "/v1/keys", *said[word]), 401, f"is {word} since")
    good = key(file, "admin")
    for header in (bearer(good), (b"x-api-key", good.encode()), (b"authorization", b"bearer " + good.encode())):
        assert ask(root, "GET", "/v1/keys", header).status == 200
    assert is_problem(ask(root, "GET", f"/v1/keys?authorization=Bearer%20{good}&key={good}"), 401)


def test_a_key_is_revoked_while_the_service_runs(file):
    root = guarded(Gate(KeyFile(file.path)))
    token = key(file, "admin")
    assert ask(root, "GET", "/v1/keys", bearer(token)).status == 200
    file.revoke(token[5:13])
    assert ask(root, "GET", "/v1/keys", bearer(token)).status == 401
    file.path.write_text("{")
    assert is_problem(ask(root, "GET", "/v1/keys", bearer(token)), 503, "its log says why")
    assert str(file.path) not in str(ask(root, "GET", "/v1/keys", bearer(token)).body)


def test_a_flood_of_wrong_keys_is_limited_by_address_and_right_ones_still_work(file):
    root = guarded(Gate(file))
    good = bearer(key(file, "admin"))
    statuses = [ask(root, "GET", "/v1/keys", bearer(f"asof_{n:08x}_{n:064x}")).status for n in range(50)]
    assert statuses[: access.WRONG_BURST] == [401] * access.WRONG_BURST
    assert set(statuses[access.WRONG_BURST + 1 :]) == {429}
    answer = ask(root, "GET", "/v1/keys", bearer("wrong"))
    assert is_problem(answer, 429)
    assert 1 <= int(answer.headers[b"retry-after"]) <= 2
    assert ask(root, "GET", "/v1/keys", good).status == 200
    assert ask(root, "GET", "/v1/keys", bearer("wrong"), client="192.0.2.2").status == 401
    ipv6 = [ask(root, "GET", "/v1/keys", bearer("wrong"), client=f"2001:db8::{n:x}").status for n in range(30)]
    assert 429 in ipv6, "one network is one client"


def test_whatever_is_wrong_in_a_key_the_same_work_is_done(file, monkeypatch):
    good = key(file, "admin")
    compared: list[tuple[int, int]] = []

    def comparing(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(keys_module.hmac, "compare_digest", comparing)
    for token in (good, good[:-1] + ("0" if good[-1] != "0" else "1"), f"asof_00000000_{'0' * 64}", "nothing", ""):
        compared.clear()
        with suppress(AccessError):
            file.authenticate(token)
        assert compared == [(64, 64)], "one hash, compared in constant time, whether there is a key of that prefix or not"


def test_a_key_that_asks_too_often_waits_and_others_do_not(file):
    root = guarded(Gate(file), rate=2.0)
    first, second = bearer(key(file, "admin")), bearer(key(file, "admin"))
    assert [ask(root, "GET", "/v1/keys", first).status for _ in range(3)] == [200, 200, 429]
    assert ask(root, "GET", "/v1/keys", first).headers[b"retry-after"] == b"1"
    assert ask(root, "GET", "/v1/keys", second).status == 200


def test_a_service_of_its_own_machine_is_open_until_there_is_a_key(file, monkeypatch):
    monkeypatch.chdir(file.path.parent)
    gate = Gate.of(load_settings(), "127.0.0.1")
    root = guarded(gate)
    assert gate.authenticate(None) is EVERYBODY
    assert ask(root, "GET", "/v1/features/latest?fs_v1").json == ["read:*"]
    assert ask(root, "GET", "/v1/features/latest", bearer("whatever")).status == 200
    assert is_problem(ask(root, "POST", "/v1/bars"), 403), "open is for reading"
    token = key(file, "read:fs_v1")
    assert ask(root, "GET", "/v1/features/latest").status == 401
    assert ask(root, "GET", "/v1/features/latest", bearer(token)).status == 200
    file.path.unlink()
    assert ask(root, "GET", "/v1/features/latest").status == 403, "what was closed stays so"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8006", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8006"])
def test_an_open_service_is_asked_by_a_name_of_its_machine(file, host):
    assert ask(guarded(Gate(file, alone=True)), "GET", "/v1/features/latest", (b"host", host.encode())).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [(b"host", b"evil.example:8006")],
        [(b"host", b"127.0.0.1.evil.example")],
        [(b"host", b"localhost.evil.example")],
        [(b"host", b"0.0.0.0")],
        [(b"host", b"")],
        [(b"host", b"\xff")],
        [(b"host", b"127.0.0.1"), (b"host", b"evil.example")],
        [(b"host", b"localhost"), (b"origin", b"https://evil.example")],
        [(b"host", b"localhost"), (b"origin", b"null")],
        [(b"host", b"localhost"), (b"x-forwarded-for", b"192.0.2.1")],
        [(b"host", b"localhost"), (b"forwarded", b"for=192.0.2.1")],
        [(b"accept", b"*/*"), (b"host", b"::1")],
    ],
)
def test_an_open_service_refuses_what_comes_by_way_of_a_browser_or_a_proxy(file, headers):
    answer = ask(guarded(Gate(file, alone=True)), "GET", "/v1/features/latest", *headers)
    assert is_problem(answer, 403, "open to its own machine alone")


def test_a_service_without_keys_that_others_reach_lets_nobody_in(file, monkeypatch):
    monkeypatch.chdir(file.path.parent)
    for host in ("0.0.0.0", "::", "192.0.2.1", "store.example", ""):  # noqa: S104  # that is what is tried
        gate = Gate.of(load_settings(), host)
        assert not gate.open
        assert is_problem(ask(guarded(gate), "GET", "/v1/features/latest"), 403, "asof keys create NAME")
        assert ask(guarded(gate), "GET", "/health").status == 200
        with pytest.raises(ConfigError, match="nobody could be let in: it listens at"):
            gate.check(host)
    for host in ("localhost", "127.0.0.1", "::1"):
        Gate.of(load_settings(), host).check(host)
    key(file, "admin")
    Gate.of(load_settings(), "0.0.0.0").check("0.0.0.0")  # noqa: S104  # likewise


def test_a_file_of_keys_that_is_named_has_to_hold_some(file, monkeypatch):
    monkeypatch.setenv("ASOF_KEYS_FILE", str(file.path))
    with pytest.raises(ConfigError, match="ASOF_KEYS_FILE is set, and there are no keys"):
        Gate.of(load_settings(), "127.0.0.1").check("127.0.0.1")


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"oidc_issuer": "https://login.example.com"}, "set ASOF_OIDC_AUDIENCE, too"),
        ({"oidc_audience": "asof"}, "set ASOF_OIDC_ISSUER, too"),
        ({"oidc_issuer": "http://login.example.com", "oidc_audience": "asof"}, "has to be an https:// address"),
    ],
)
def test_settings_of_an_issuer_that_cannot_work_are_refused_at_start(tmp_path, monkeypatch, given_settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        Gate.of(load_settings(**given_settings), "127.0.0.1")


def test_tokens_are_let_in_beside_keys(file):
    with issuing() as issuer:
        root = guarded(Gate(file, Tokens(Issuer(issuer.url), AUDIENCE)))
        assert ask(root, "GET", "/v1/features/latest").status == 401
        for _ in range(2):
            assert ask(root, "GET", "/v1/features/latest?fs_v1", bearer(issuer.token())).json == ["read:fs_v1"]
        assert ask(root, "GET", "/v1/features/latest?fs_v2", bearer(issuer.token())).status == 403
        assert ask(root, "GET", "/v1/features/latest", bearer(key(file, "read:*"))).json == ["read:*"]
        assert is_problem(ask(root, "GET", "/v1/keys", bearer(issuer.token(aud="other"))), 401, "for another audience")
        assert is_problem(ask(root, "GET", "/v1/keys", bearer("no.token.here")), 401)


def test_an_issuer_that_is_away_is_no_open_door(file):
    root = guarded(Gate(file, Tokens(Issuer("http://127.0.0.1:9"), AUDIENCE)))
    with issuing() as other:
        answer = ask(root, "GET", "/v1/features/latest", bearer(other.token()))
        assert is_problem(answer, 503, "cannot be asked for its keys now")
        assert b"retry-after" in answer.headers
        assert "kind" not in answer.json, "so that a client asks again"
    assert ask(root, "GET", "/v1/features/latest", bearer(key(file, "read:*"))).status == 200, "keys need no issuer"


def test_what_an_app_raises_is_told_without_its_words(file, caplog):
    answer = ask(guarded(Gate(file)), "HEAD", "/openapi.json", bearer(key(file, "admin")))
    assert answer.status == 500
    assert "secret" not in str(answer)
    assert "a secret of ours" in caplog.text


def test_every_decision_is_one_line_and_no_line_has_a_key(file, caplog):
    caplog.set_level(logging.DEBUG)
    heard: list[str] = []
    token = key(file, "read:fs_v1")
    root = guarded(Gate(file), told=heard.append)
    for path, headers in (
        ("/v1/features/latest?fs_v1", (bearer(token),)),
        ("/v1/features/latest?fs_v2", (bearer(token),)),
        ("/v1/keys", (bearer(token),)),
        (f"/v1/{token}", (bearer(token),)),
        (f"/v1/keys?key={token}", ((b"x-api-key", token[:-1].encode()),)),
        ("/health", ()),
    ):
        ask(root, "GET", path, *headers)
    lines = [record for record in caplog.records if record.name == "asof.audit"]
    shown = [(vars(r)["verdict"], vars(r)["status"], vars(r)["who"], vars(r)["prefix"], vars(r)["route"]) for r in lines]
    desk = ("desk", token[5:13])
    assert shown == [
        ("let-in", 200, *desk, "/v1/features/latest"),
        ("not-allowed", 403, *desk, "/v1/features/latest"),
        ("not-allowed", 403, *desk, "/v1/keys"),
        ("not-found", 404, *desk, None),
        ("unauthenticated", 401, None, None, "/v1/keys"),
    ]
    assert heard == [verdict for verdict, *_ in shown]
    assert token[14:40] not in str([vars(record) for record in caplog.records])


def test_the_refused_are_logged_in_bounded_number_and_the_rest_counted(file, caplog):
    caplog.set_level(logging.INFO, "asof.audit")
    root = guarded(Gate(file), audited="refused")
    good = bearer(key(file, "admin"))
    for _ in range(200):
        ask(root, "GET", "/v1/keys", bearer("wrong"))
        ask(root, "GET", "/v1/keys", good)
    assert access.SAID_BURST <= len(caplog.records) < 60
    ask(root, "GET", "/v1/keys", bearer("wrong"), client="192.0.2.9")
    assert sum(vars(record).get("not_logged", 0) for record in caplog.records) == 201 - len(caplog.records)


def test_the_stack_is_put_together_from_the_settings(file, monkeypatch, caplog):
    monkeypatch.chdir(file.path.parent)
    caplog.set_level(logging.INFO, "asof.audit")
    set_here = load_settings(most_body_bytes="1024", most_rate="1", audit="off")
    root, brought = access.guarded(app, Gate(file), TABLE, set_here), bearer(key(file, "read:*"))
    assert ask(root, "POST", "/v1/features/latest", brought, (b"content-length", b"1025")).status == 413
    assert ask(root, "GET", "/v1/features/latest", brought).status == 429
    assert not caplog.records


def test_websockets_are_refused_and_the_lifespan_is_handed_on(file):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    async def lifespan(scope, receive, send):
        sent.append(scope["type"])

    root = Access(lifespan, Gate(file, alone=True), TABLE)
    asyncio.run(root({"type": "websocket", "path": "/v1/features/latest", "headers": []}, receive, send))
    assert sent.pop()["type"] == "websocket.close"
    asyncio.run(root({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan"]


def test_many_at_once_are_told_apart(file):
    root = guarded(Gate(file))
    tokens = {version: key(file, f"read:{version}") for version in ("fs_v1", "fs_v2")}

    async def all_of_them():
        versions = ["fs_v1", "fs_v2"] * 50
        return versions, await asyncio.gather(*(asked(root, "GET", f"/v1/features/latest?{v}", [bearer(tokens[v])]) for v in versions))

    versions, answers = asyncio.run(all_of_them())
    assert [answer.json for answer in answers] == [[f"read:{version}"] for version in versions]
