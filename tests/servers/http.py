"""An HTTP service of the tests' own: the routes that the client asks, over a store, and every way in which a service can go wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa

import asof
from asof.errors import AsofError
from asof.serving.questions import JOIN, VECTORS, Question

ARROW = "application/vnd.apache.arrow.stream"


@dataclass
class Faults:
    """What goes wrong with the next answers: each fault once, in this order."""

    next: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    connections: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"asof/{asof.__version__}"
    sys_version = ""
    store: asof.FeatureStore
    faults: Faults

    def setup(self) -> None:
        super().setup()
        self.faults.connections += 1

    def log_message(self, *given: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answered(b"")

    def do_POST(self) -> None:
        self.answered(self.rfile.read(int(self.headers["Content-Length"])))

    def answered(self, body: bytes) -> None:
        self.faults.requests.append(f"{self.command} {self.path}")
        self.faults.keys.append(self.headers["Authorization"])
        fault = self.faults.next.pop(0) if self.faults.next else ""
        if fault == "gone":
            self.close_connection = True
        elif fault in FAULTS:
            status, kind, text, more = FAULTS[fault]
            self.whole(status, kind, text, more)
        else:
            self.tried(body, fault)

    def tried(self, body: bytes, fault: str) -> None:
        try:
            kind, parts = self.found(body)
        except AsofError as error:
            problem = json.dumps({"status": 422, "kind": type(error).__name__, "detail": str(error)})
            self.whole(422, "application/problem+json", problem.encode())
            return
        if kind == "application/json":
            self.whole(200, kind, b"".join(parts))
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        closing = fault.startswith("closes")
        self.send_header(*(("Connection", "close") if closing else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        sent = list(parts)
        if fault.endswith(("cut", "late")):
            sent = [b"".join(sent)[: -(200 if fault.endswith("cut") else 8)]]
        if fault == "slow":
            self.wfile.flush()
            time.sleep(0.6)
        for part in sent:
            self.wfile.write(part if closing else b"%x\r\n%s\r\n" % (len(part), part))
        if fault == "breaks cut" or closing:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def found(self, body: bytes) -> tuple[str, Iterator[bytes]]:
        """The kind of an answer, and its parts."""
        url = urlsplit(self.path)
        if url.path == "/v1/feature-sets":
            sets = [
                {"version": s.version, "fingerprint": s.fingerprint, "definition": s.text, "applied_at": s.applied_at.isoformat()}
                for s in self.store.registered().values()
            ]
            return "application/json", iter([json.dumps({"feature_sets": sets}).encode()])
        if url.path == "/v1/features/join":
            plural = {"column": "columns", "feature": "features"}
            asked = {plural.get(n, n): v if n in plural else v[0] for n, v in parse_qs(url.query).items()}
            question = Question.read(json.dumps(asked).encode(), JOIN)
            joined = question.joined(self.store, question.definition(self.store), pa.ipc.open_stream(body).read_all())
            return ARROW, streamed(joined.schema, iter([joined]))
        question = Question.read(json.dumps(json.loads(body) | ({"latest": True} if url.path.endswith("latest") else {})).encode(), VECTORS)
        definition = question.definition(self.store)
        return ARROW, streamed(question.schema(definition), question.tables(self.store, definition))

    def whole(self, status: int, kind: str, body: bytes, more: tuple[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if more:
            self.send_header(*more)
        self.end_headers()
        self.wfile.write(body)


FAULTS: dict[str, tuple[int, str, bytes, tuple[str, str] | None]] = {
    "busy": (503, "application/problem+json", b'{"detail": "too many requests at once"}', ("Retry-After", "0")),
    "busy page": (503, "text/html", b"<h1>busy</h1>", ("Retry-After", "0")),
    "forbidden": (403, "application/problem+json", b'{"detail": "this key may not read fs_v1"}', None),
    "moved": (301, "text/html", b"", ("Location", "https://elsewhere/")),
    "stranger": (200, "text/html", b"<h1>Welcome</h1>", None),
    "garbage": (200, ARROW, b"no arrow at all", None),
    "nothing": (200, ARROW, b"", None),
    "not json": (200, "application/json", b"<", None),
    "other json": (200, "application/json", b'{"sets": []}', None),
    "older": (404, "text/plain", b"there is nothing here", None),
    "broken": (500, "application/problem+json", b'{"detail": "something went wrong; the log says what"}', None),
}
"""Answers that are no answer: status, kind, body and a header."""


def streamed(schema: pa.Schema, tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """An Arrow stream in parts."""
    out = BytesIO()
    with pa.ipc.new_stream(out, schema) as writer:
        for table in tables:
            writer.write_table(table, max_chunksize=50)
    yield out.getvalue()


@contextmanager
def answering(store: asof.FeatureStore) -> Iterator[tuple[str, Faults]]:
    """A service over a store for the block: its URL, and what is to go wrong."""
    faults = Faults()
    handler = type("Bound", (Handler,), {"store": store, "faults": faults})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # so that its end waits for them
    server.block_on_close = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
