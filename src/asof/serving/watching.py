"""`GET /health`, `/ready` and `/metrics`, for those who watch the service: open to all, and answered from the first moment on."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from fastapi.responses import Response

from asof.serving.state import Report, Serving, Watched
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics

WELL = {"starting": False, "ok": True, "degraded": True, "stale": False, "stopped": False}
"""Every status, and whether it is answered with 200 (else 503)."""


def health_of(health: Health, metrics: Metrics) -> Callable[[], Watched]:
    """How a service is that computes."""

    def how_it_is() -> Watched:
        report = health.report(int(metrics.value(metrics.cached_events)))
        return WELL[str(report["status"])], report

    metrics.stale_after.set(health.stale_after)
    return how_it_is


def ready_of(health: Callable[[], Watched], opened: Callable[[], bool]) -> Callable[[], Watched]:
    """Whether a service that computes can be asked for vectors: its store is open, and it has caught up once."""

    def ready() -> Watched:
        well, report = health()
        return well and opened(), {"ready": well and opened(), "status": report["status"], "store_open": opened()}

    return ready


def _said(watched: Watched) -> Response:
    well, report = watched
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(json.dumps(report).encode() + b"\n", status, media_type="application/json", headers={"cache-control": "no-store"})


def health(serving: Serving) -> Response:
    """How the service is: 200 where it is well, else 503."""
    return _said(serving.health())


def ready(serving: Serving) -> Response:
    """Whether it has what it is to serve."""
    return _said(serving.ready())


def metrics(serving: Serving) -> Response:
    """The metrics, as Prometheus reads them."""
    return Response(serving.metrics.text(), media_type=Metrics.CONTENT_TYPE)


__all__ = ["WELL", "Report", "health", "health_of", "metrics", "ready", "ready_of"]
