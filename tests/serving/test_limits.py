"""How much a request may have, and what it gets that asks for more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from asof.config import load_settings
from asof.errors import DataError
from asof.serving.limits import Buckets, Limited, Limits
from asof.serving.routes import Route
from tests.serving.asgi import ask, asked

LIMITS = Limits(body_bytes=1000, seconds=0.2, requests=2)


def placed(app, route: Route = Route("/"), limits: Limits = LIMITS):  # noqa: B008  # it is never changed
    """An app within limits, reached by a route."""
    limited = Limited(app, limits)

    async def root(scope, receive, send):
        await limited({**scope, "state": {"route": route}}, receive, send)

    return root


async def counting(scope, receive, send):
    """Answers with how much it got, and says it of a client that goes away, as frameworks do."""
    got, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            raise ConnectionError("the client is gone")
        got, more = got + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(got).encode()})


def test_a_body_may_be_as_large_as_is_set_and_no_larger():
    assert ask(placed(counting), "POST", "/", body=[b"x" * 400, b"x" * 600]).body == b"1000"
    for headers, body in (
        ([], [b"x" * 400, b"x" * 601]),
        ([], [b"x"] * 1001),
        ([(b"content-length", b"1001")], [b""]),
        ([(b"content-length", b"9" * 5000)], [b""]),
        ([(b"content-length", b"5")], [b"x" * 1001]),
    ):
        answer = ask(placed(counting), "POST", "/", *headers, body=body)
        assert answer.status == 413
        assert answer.json["detail"] == "the body is larger than 1,000 bytes, which are the most: send it in parts"


def test_a_request_that_trickles_in_is_ended():
    answer = ask(placed(counting), "POST", "/", body=[b"x"] * 100, pause=0.01)
    assert answer.status == 408
    assert "took longer than 0.2 seconds to arrive" in answer.json["detail"]


def test_an_answer_that_takes_too_long_is_told_so():
    async def slow(scope, receive, send):
        await asyncio.sleep(5)

    answer = ask(placed(slow), "GET", "/")
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
    assert "the answer takes longer than 0.2 seconds" in answer.json["detail"]


def test_an_answer_that_has_begun_may_go_on_but_a_client_that_takes_nothing_is_left():
    sent = []

    async def streaming(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(4):
            await asyncio.sleep(0.08)
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": n < 3})

    assert ask(placed(streaming), "GET", "/").body == b"0123"

    async def run():
        async def stuck(message):
            sent.append(message["type"])
            if len(sent) == 3:
                await asyncio.sleep(5)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await asyncio.wait_for(placed(streaming)(scope, None, stuck), 2)

    asyncio.run(run())
    assert sent == ["http.response.start", "http.response.body", "http.response.body"]


def test_more_requests_than_are_taken_at_once_are_told_to_come_again():
    async def waiting(scope, receive, send):
        await asyncio.sleep(0.05)
        await counting(scope, receive, send)

    async def many(route):
        root = placed(waiting, route)
        return [answer.status for answer in await asyncio.gather(*(asked(root, "GET", "/") for _ in range(5)))]

    assert sorted(asyncio.run(many(Route("/")))) == [200, 200, 503, 503, 503]
    assert asyncio.run(many(Route("/", lasting=True))) == [200] * 5
    assert asyncio.run(many(Route("/", need="public"))) == [200] * 5


def test_a_client_that_goes_away_is_no_error():
    async def run():
        async def gone():
            return {"type": "http.disconnect"}

        async def nobody(message):
            pass

        await placed(counting)({"type": "http", "method": "POST", "path": "/", "headers": []}, gone, nobody)

    asyncio.run(run())


def test_an_error_of_the_app_stays_one_and_gives_its_place_back():
    async def broken(scope, receive, send):
        raise TimeoutError("its own")

    root = placed(broken)
    for _ in range(5):
        with pytest.raises(TimeoutError, match="its own"):
            ask(root, "GET", "/")


def test_what_handlers_check_says_what_is_the_most():
    limits = Limits(instruments=10, values=100, days=30)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    limits.check_instruments(10)
    limits.check_values(10, 10)
    limits.check_range(start, start + timedelta(days=30))
    Limits().check_range(None, None)
    for check, message in (
        (lambda: limits.check_instruments(1_000_000), "names 1,000,000 instruments, and 10 are the most: ask in parts"),
        (lambda: limits.check_values(101, 1), "101 rows of 1 features are 101 values, and 100 are the most"),
        (lambda: limits.check_range(start, start + timedelta(days=31)), "may span 30 days"),
        (lambda: limits.check_range(None, start), "may span 30 days"),
        (lambda: Limits().check_range(start, start - timedelta(days=1)), "is after to 2025-12-31T00:00:00\\+00:00: turn them round"),
    ):
        with pytest.raises(DataError, match=message):
            check()


def test_buckets_fill_again_and_forget_those_not_seen():
    now = [0.0]
    buckets = Buckets(2.0, 3, lambda: now[0], most=2)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert (buckets.wait("a"), buckets.take("a"), buckets.take("a")) == (0, 0, 0.5)
    now[0] = 100
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5], "no more than the burst"
    buckets.take("b")
    buckets.take("c")
    assert buckets.take("a") == 0


def test_the_limits_are_those_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Limits.of(load_settings()) == Limits()
    monkeypatch.setenv("ASOF_MOST_BODY_BYTES", "2048")
    assert Limits.of(load_settings()).body_bytes == 2048
