from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from asof.config import Settings
from asof.serving.app import application
from asof.serving.gate import Gate
from asof.serving.newest import Newest
from asof.serving.server import answering
from asof.serving.state import Serving
from asof.serving.watching import WELL, health_of, ready_of
from asof.telemetry.health import LEAST_STALE_SECONDS, Health
from asof.telemetry.metrics import Metrics


class Clock:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health("fs_v1", "feature-store.v1.0", 60, clock)


def get(port: int, path: str = "/health", method: str = "GET") -> tuple[int, str, bytes]:
    """Status, type and body of an answer."""
    request = Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310 # our own server
            return answer.status, answer.headers["Content-Type"], answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


@contextmanager
def serve(health: Health, metrics: Metrics) -> Iterator[int]:
    """A service that is as `health` says."""
    how = health_of(health, metrics)
    serving = Serving(Settings(), metrics, Newest(), how, ready_of(how, lambda: False))
    app, stream = application(serving, Gate.of(serving.settings, "127.0.0.1"))
    with answering(app, "127.0.0.1", 0, before_end=stream.close) as port:
        yield port


def test_a_service_is_starting_until_its_first_cycle_has_succeeded(health):
    assert health.report()["status"] == "starting"
    with health.computing():
        assert (health.report()["status"], health.report()["compute_active"]) == ("starting", True)
        health.failed()
        assert health.report()["status"] == "starting"
        assert health.report()["last_success_age_seconds"] is None
        health.succeeded()
        assert health.report()["status"] == "ok"


def test_it_is_degraded_from_a_failure_to_the_next_success(health):
    with health.computing():
        health.succeeded()
        health.failed()
        assert health.report()["status"] == "degraded"
        health.succeeded()
        assert health.report()["status"] == "ok"


def test_it_is_stale_when_three_cycles_have_brought_no_success(health, clock):
    with health.computing():
        health.succeeded()
        clock.now += 180
        assert health.report()["status"] == "ok"
        assert health.report()["last_success_age_seconds"] == 180.0
        clock.now += 0.001
        assert health.report()["status"] == "stale"
        health.succeeded()
        assert health.report()["status"] == "ok"


def test_quick_cycles_do_not_make_it_stale_at_once(clock):
    assert Health("fs_v1", "p", 0.1, clock).stale_after == LEAST_STALE_SECONDS


def test_it_is_stopped_once_the_compute_loop_has_ended_however_it_did(health):
    health.succeeded()
    with pytest.raises(RuntimeError), health.computing():
        raise RuntimeError
    assert (health.report()["status"], health.report()["compute_active"]) == ("stopped", False)


def test_the_answer_has_the_names_of_the_contract_and_no_others(health):
    metrics = Metrics()
    with serve(health, metrics) as port, health.computing():
        assert get(port)[0] == 503
        health.succeeded()
        metrics.cached_events.set(7)
        status, kind, body = get(port)
        ready, _, told = get(port, "/ready")
    assert (ready, json.loads(told)) == (503, {"ready": False, "status": "ok", "store_open": False})
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "status": "ok",
        "compute_active": True,
        "last_success_age_seconds": 0.0,
        "cached_events": 7,
        "feature_set_version": "fs_v1",
        "pipeline_version": "feature-store.v1.0",
    }


def test_only_a_service_that_is_well_is_answered_with_200(health, clock):
    metrics, seen = Metrics(), {}

    def see() -> None:
        status, _, body = get(port)
        seen[json.loads(body)["status"]] = status

    with serve(health, metrics) as port:
        with health.computing():
            see()
            health.succeeded()
            see()
            health.failed()
            see()
            clock.now += 181
            see()
        see()
    assert seen == {status: 200 if well else 503 for status, well in WELL.items()}


def test_the_metrics_are_text_that_prometheus_reads(health):
    metrics = Metrics()
    metrics.compute_runs.inc()
    with serve(health, metrics) as port:
        status, kind, body = get(port, "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = body.decode()
    assert "\nfeature_store_compute_runs_total 1.0\n" in text
    assert "\nfeature_store_stale_after_seconds 180.0\n" in text
    assert re.search(r"^process_resident_memory_bytes [1-9]", text, re.MULTILINE)
