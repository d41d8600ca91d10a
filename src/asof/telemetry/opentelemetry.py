"""Spans to an OpenTelemetry collector, over HTTP. Where to, how many and under which name is said by the standard `OTEL_...` variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from asof import __version__
from asof.telemetry.traces import Attribute, Opener

TIMEOUT = "OTEL_EXPORTER_OTLP_TIMEOUT"
PATIENCE_SECONDS = 3
"""How long a batch is tried for, unless that variable says otherwise: a collector that is away does not hold up the service's end."""


@contextmanager
def sending() -> Iterator[Opener]:
    """What opens spans; they are sent a batch at a time on a thread of their own, the last ones at the end of the block."""
    service = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "asof"), "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
    patience = None if TIMEOUT in os.environ else PATIENCE_SECONDS
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=patience)))
    tracer = provider.get_tracer("asof", __version__)

    def opened(name: str, attributes: dict[str, Attribute]) -> AbstractContextManager[object]:
        return tracer.start_as_current_span(name, attributes=attributes)

    try:
        yield opened
    finally:
        provider.shutdown()
