"""Traces: a span for each step of the service's work, sent by OpenTelemetry where the standard `OTEL_EXPORTER_OTLP_ENDPOINT` says where to.

Elsewhere a span is nothing: one shared object, entered and left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Name = Literal["cycle", "read", "compute", "upsert", "consume"]
"""The steps: a cycle of the compute loop and what it is made of, and a batch of messages."""
Attribute = str | int | float | bool
Opener = Callable[[str, dict[str, Attribute]], AbstractContextManager[object]]

_NOTHING = nullcontext()
_open: Opener | None = None
log = logging.getLogger(__name__)


def span(name: Name, **attributes: Attribute) -> AbstractContextManager[object]:
    """A step for the block, inside of the one that this thread is in. What the block raises is noted with it."""
    return _open(name, attributes) if _open else _NOTHING


@contextmanager
def tracing() -> Iterator[bool]:
    """Within the block spans are sent, where it is configured where to; whether they are. The last ones are sent at its end."""
    global _open  # noqa: PLW0603  # one process has one place that its spans go to
    if not any(os.environ.get(name) for name in ENDPOINTS):
        yield False
        return
    try:
        from asof.telemetry.opentelemetry import sending  # noqa: PLC0415  # OpenTelemetry is an extra
    except ImportError as error:
        log.warning('no traces: OpenTelemetry is missing, pip install "asof[traces]" (%s)', error)
        yield False
        return
    with sending() as _open:
        try:
            yield True
        finally:
            _open = None
