"""`GET /health` and `GET /metrics`, for those who watch the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from asof.serving.connections import Answer, answering
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics

WELL = {"starting": False, "ok": True, "degraded": True, "stale": False, "stopped": False}
"""Every status, and whether it is answered with 200 (else 503)."""


@contextmanager
def serve(health: Health, metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Answer `/health` and `/metrics` on a thread of its own for the block; the port, which is a free one where `port` is 0.

    Raises `ConfigError` where the address cannot be had.
    """

    def how_it_is() -> Answer:
        report = health.report(int(metrics.value(metrics.cached_events)))
        status = HTTPStatus.OK if WELL[str(report["status"])] else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, json.dumps(report).encode() + b"\n", "application/json")

    def numbers() -> Answer:
        return Answer(HTTPStatus.OK, metrics.text(), Metrics.CONTENT_TYPE)

    metrics.stale_after.set(health.stale_after)
    with answering({"/health": how_it_is, "/metrics": numbers}, host, port) as found:
        yield found
