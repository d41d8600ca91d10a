"""A walk over an app with `Access` at its root: every route of its table, every method, and every kind of key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from asof.serving.asgi import App
from asof.serving.keys import KeyFile
from asof.serving.routes import Route
from tests.serving.asgi import Answer, ask, bearer

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "ASDF")
ELSEWHERE = (
    "/", "*", "", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/static/x", "/v1", "/v2/features/latest",
    "/V1/features/latest", "//v1/features/latest", "/v1//features/latest", "/v1/features/latest/", "/v1/features/./latest",
    "/health/../v1/features/latest", "/v1/features/latest%00", "/v1/features/latest\x00", "/v1/features/latest;a=b",
    "/health/", "/health;/v1", "/healthz", "/é", "/" + "a" * 9000,
)  # fmt: skip
"""Paths that are tricks, or that frameworks have of their own."""
Headers = tuple[tuple[bytes, bytes], ...]


def key(file: KeyFile, *scopes: str, days: int = 1) -> str:
    """A new key."""
    return file.create("desk", list(scopes), datetime.now(UTC) + timedelta(days=days))[0]


def wrong(file: KeyFile) -> Iterator[tuple[str, Headers]]:
    """Everything that is no key that is right, by what it is: made from keys that may do everything."""
    good, old = key(file, "admin"), key(file, "admin", days=-1)
    gone, kept = file.create("gone", ["admin"], None)
    file.revoke(kept.prefix)
    yield "none", ()
    bearers = {
        "expired": old,
        "revoked": gone,
        "truncated": good[:-1],
        "longer": good + "0",
        "very long": "asof_" + "0" * 60_000,
        "twice": f"{good} {good}",
        "listed": f"{good},{good}",
        "not ASCII": f"ключ{good}",
        "empty": "",
        "behind a blank": f" {good}",
        "in capitals": good.upper(),
        "its hash": file.keys()[good[5:13]].sha256,
        "its prefix and a hash": f"{good[:14]}{file.keys()[good[5:13]].sha256}",
        "with a zero byte": f"{good}\x00",
        "a token of nobody": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
    }
    for name, text in bearers.items():
        yield name, (bearer(text),)
    text = good.encode()
    yield "bytes", ((b"authorization", b"\xff\xfe\x00"),)
    yield "bare", ((b"authorization", text),)
    yield "basic", ((b"authorization", b"Basic " + text),)
    yield "behind a tab", ((b"authorization", b"Bearer\t" + text),)
    yield "an empty header", ((b"authorization", b""),)
    yield "a scheme in X-API-Key", ((b"x-api-key", b"Bearer " + text),)
    yield "an empty X-API-Key", ((b"x-api-key", b""),)
    yield "in a cookie", ((b"cookie", b"authorization=" + text),)
    yield "by another name", ((b"x-authorization", b"Bearer " + text), (b"proxy-authorization", b"Bearer " + text))
    yield "the same twice", (bearer(good), bearer(good))
    yield "a right and a wrong one", (bearer(good), bearer("wrong"))
    yield "in both headers", (bearer(good), (b"x-api-key", text))


def is_problem(answer: Answer, status: int, words: str = "") -> bool:
    """Whether an answer is a problem of a status, whose detail has some words. HEAD has no body."""
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert answer.status == status, answer
    return not answer.body or (answer.json["status"] == status and words in answer.json["detail"])


def paths(table: Iterable[Route], version: str = "fs_v1") -> list[str]:
    """A path of each route."""
    return [re.sub(r"\{[^}]*\}", version, route.path) for route in table]


def nobody_is_let_in(root: App, table: Sequence[Route], file: KeyFile, mounted: Iterable[str] = ()) -> int:
    """Walk over every path and method without a right key; how many were refused. `mounted` are more paths, such as a framework's own."""
    public = {(route.path, method) for route in table if route.need == "public" for method in METHODS if route.answers(method)}
    refused = 0
    kinds = list(wrong(file))
    for n, path in enumerate(dict.fromkeys((*paths(table), *ELSEWHERE, *mounted))):
        for method in METHODS:
            for m, (kind, headers) in enumerate(kinds if method in ("GET", "POST") else kinds[:2]):
                if (path, method) in public:
                    continue
                answer = ask(root, method, path, *headers, client=f"198.{18 + n % 2}.{n}.{m}")
                assert is_problem(answer, 401), (kind, method, path)
                assert answer.headers[b"www-authenticate"] == b'Bearer realm="asof"'
                refused += 1
    return refused


def scopes_are_needed(root: App, table: Sequence[Route], file: KeyFile) -> None:
    """Walk over every route with keys that lack its scope, and over what is not in the table with one that may do everything."""
    poor = {"any": [], "read": ["write"], "write": ["read:*"], "admin": ["read:*", "write"]}
    keys = {need: bearer(key(file, *scopes)) for need, scopes in poor.items() if scopes}
    for route, path in zip(table, paths(table), strict=True):
        for method in route.methods if route.need in keys else ():
            assert is_problem(ask(root, method, path, keys[route.need]), 403, "needs"), (method, path)
    everything = bearer(key(file, "admin"))
    stated = set(paths(table))
    for path in ELSEWHERE:
        if path not in stated:
            assert is_problem(ask(root, "GET", path, everything), 404, "there is no"), path
    for route, path in zip(table, paths(table), strict=True):
        others = [m for m in METHODS if not any(one.answers(m) for one, p in zip(table, paths(table), strict=True) if p == path)]
        for method in others:
            answer = ask(root, method, path, everything)
            assert is_problem(answer, 405), (method, path)
            assert set(route.methods) <= set(answer.headers[b"allow"].decode().split(", "))
