from __future__ import annotations

import logging
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from asof.telemetry import traces
from asof.telemetry.traces import span, tracing


@pytest.fixture
def collector():
    """A collector of traces: its URL, and the spans that it was sent, as (name, name of the parent, attributes)."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    sent = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                import gzip

                body = gzip.decompress(body)
            sent.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()
        thread.join()


def spans(sent) -> list[tuple[str, str, dict[str, object]]]:
    found = [s for request in sent for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    names = {s.span_id: s.name for s in found}
    return [(s.name, names.get(s.parent_span_id, ""), values(s.attributes)) for s in found]


def values(attributes) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def test_without_an_endpoint_a_span_is_nothing(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with tracing() as on:
        assert not on
        assert span("cycle") is span("read")
        began = time.perf_counter()
        for _ in range(100_000):
            with span("compute"):
                pass
        assert time.perf_counter() - began < 1.0


def test_steps_are_sent_with_what_they_are_part_of(monkeypatch, collector):
    url, sent = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    with tracing() as on:
        assert on
        with span("cycle", timeframe="1m"):
            with span("read"):
                pass
            with pytest.raises(ValueError, match="broken"), span("compute", bars=3):
                raise ValueError("broken")
    assert spans(sent) == [("read", "cycle", {}), ("compute", "cycle", {"bars": 3}), ("cycle", "", {"timeframe": "1m"})]
    resource = {a.key: a.value.string_value for a in sent[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "asof"
    assert span("cycle") is span("read"), "after the block a span is nothing again"


def test_without_the_extra_it_goes_on_and_names_the_command(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delitem(sys.modules, "asof.telemetry.opentelemetry", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING), tracing() as on, traces.span("cycle"):
        assert not on
    assert "asof[traces]" in caplog.text


def test_a_collector_that_is_not_there_holds_nothing_up(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with tracing(), span("cycle"):
        pass
    assert time.monotonic() - began < 5
