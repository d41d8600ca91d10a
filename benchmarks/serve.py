"""The newest vectors over HTTP while the service works: `asof run` takes in bars from Kafka, stores and publishes, and is asked meanwhile.

So is a replica of the topic that it publishes to (`asof serve --from kafka://...`), which has an interpreter of its own: the targets are
for it. First each is asked as fast as it answers, by some connections at once; then at half of that rate, each request timed from when it
was to be sent, whether or not a connection was free. Clients are another process; they, the services, broker and database share the
machine. `ASOF_BENCH_FEAST` names a Python with Feast, whose feature server is then asked for the same vectors out of SQLite.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import stream
from measure import Figure, Result, Settings
from postgres_io import private_server

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.servers import kafka as brokers
from tests.servers.kafka import Kafka
from tests.servers.service import service

TARGETS = {1: 0.001, 100: 0.003}
"""Seconds of the 99th percentile, by instruments of a request."""
RATIO = 10
"""Times the requests a second of Feast's feature server."""
SECONDS = 10
CONNECTIONS = 16
BARS = 10
"""Bars a second that the service takes in meanwhile: those of 500 instruments, a minute each, are 8."""
FEAST = os.environ.get("ASOF_BENCH_FEAST")
"""Looked at before a benchmark's own surroundings are made."""
QUANTILES = (0.5, 0.95, 0.99, 0.999)


def run(settings: Settings) -> Result:
    """Measure it."""
    seconds = max(0.5, SECONDS * settings.scale)
    figures, problems, met, measured = [], [], [], []
    with working(settings) as (addresses, kafka):
        url, rates = addresses["a replica"], {}
        for who, instruments in itertools.product(addresses, TARGETS):
            rates[who, instruments] = most = load(addresses[who], asked(instruments), 0, seconds)["rate"]
            name = f"{who}, {instruments} instrument{'s' if instruments > 1 else ''}, at {most / 2:,.0f} of {most:,.0f} requests/s"
            p99 = shown(name, load(addresses[who], asked(instruments), most / 2, seconds), figures, problems)
            if who == "a replica":
                met.append(p99 < TARGETS[instruments])
                measured.append(f"p99 {p99 * 1000:.2f} ms of {instruments}")
        rate = rates["a replica", 1]
        if kafka.server is not None:
            restarting = threading.Thread(target=restart, args=(kafka, seconds / 4))
            restarting.start()
            shown(
                "a replica, 1 instrument, while the broker is killed and started again",
                load(url, asked(1), rate / 2, seconds),
                figures,
                problems,
            )
            restarting.join()
        if FEAST:
            theirs = peer(FEAST, settings.folder, seconds, problems)
            value = f"{theirs:,.0f} requests/s, ours {rate / theirs:.1f} times"
            figures.append(Figure("Feast's feature server, 1 instrument", 1 / theirs, value=value))
            met.append(rate >= RATIO * theirs)
            measured.append(f"{rate / theirs:.1f} times Feast")
    return Result(
        f"the newest vectors over HTTP, while {BARS} bars/s come in, medians of seconds",
        figures,
        f"p99 below 1 ms for one instrument and 3 ms for 100, at half of its own maximum; {RATIO} times Feast",
        ", ".join(measured),
        all(met),
        problems,
    )


def shown(name: str, found: dict[str, Any], figures: list[Figure], problems: list[str]) -> float:
    """Add what was found to the figures; its 99th percentile."""
    latencies = np.asarray(found["latencies"])
    quantiles = np.quantile(latencies, QUANTILES)
    value = ", ".join(f"p{100 * q:g} {at * 1000:.2f}" for q, at in zip(QUANTILES, quantiles, strict=True))
    figures.append(Figure(name, float(quantiles[0]), value=f"{value} ms, {found['errors']} errors", note=drawn(latencies)))
    problems += [f"{name}: {found['errors']} of {len(latencies)} failed"] if found["errors"] else []
    return float(quantiles[2])


def restart(kafka: Kafka, after: float) -> None:
    """Kill the broker, and start it again."""
    assert kafka.server is not None
    time.sleep(after)
    kafka.server.end(signal.SIGKILL)
    time.sleep(after)
    kafka.server.start()


def asked(instruments: int) -> bytes:
    """A request for so many instruments."""
    query = [("feature_set", "fs_v1"), ("timeframe", "1m"), *(("instrument", f"I{n:04d}") for n in range(instruments))]
    return f"GET /v1/features/latest?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


@contextmanager
def working(settings: Settings) -> Iterator[tuple[dict[str, str], Kafka]]:
    """A service that takes in bars all the time, and a replica of it: their addresses, and the broker."""
    with private_server() as postgres, brokers.mocked() if brokers.missing() else brokers.private() as kafka:
        bars, features, events = kafka.topic(), kafka.topic(), kafka.topic()
        topics = {"OHLCV_TOPIC": bars, "FEATURES_TOPIC": features, "ENRICHED_TOPIC": events, "FEATURE_DLQ_TOPIC": f"{events}.dlq"}
        given = {"ASOF_MODE": "stream", "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "KAFKA_GROUP": events, "FEATURE_TIMEFRAMES": "1m"}
        quiet = {"ASOF_AUDIT": "refused", "FEATURE_REFRESH_SECONDS": "60"}
        with service(settings.folder / "service", postgres.database(), **topics, **given, **quiet) as running:
            while running.health()["code"] != 200 or "reading partitions" not in running.log.read_text():
                time.sleep(0.2)
            stream._warm(kafka, bars, features)  # noqa: SLF001  # the same bars as there
            over = threading.Event()
            writer = threading.Thread(target=write, args=(kafka, bars, over))
            writer.start()
            try:
                with replica(kafka, features) as address:
                    yield {"asof run": running.address, "a replica": address}, kafka
            finally:
                over.set()
                writer.join()


@contextmanager
def replica(kafka: Kafka, topic: str) -> Iterator[str]:
    """A replica of a topic that has read it; its address."""
    program = "import sys; from asof.cli import main; sys.argv = ['asof', 'serve', '--port', '0', '--from', sys.argv[1]]; main()"
    given = os.environ | {"FEATURES_TOPIC": topic, "ASOF_AUDIT": "refused"}
    command = [sys.executable, "-c", program, f"kafka://{kafka.bootstrap}"]
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().split()[-1]
            while not _ready(address):
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def _ready(address: str) -> bool:
    try:
        with urlopen(f"{address}/ready", timeout=5) as answer:  # noqa: S310  # our own
            return bool(answer.status == 200)
    except HTTPError:
        return False


def write(kafka: Kafka, topic: str, over: threading.Event) -> None:
    """Bars, evenly, until it is over."""
    number = 0
    while not over.wait(1 / BARS):
        name, _, value = stream._bar(30 + number // stream.INSTRUMENTS, number % stream.INSTRUMENTS)  # noqa: SLF001
        kafka.producer.produce(topic, value, name.encode())
        kafka.producer.poll(0)
        number += 1


def load(url: str, request: bytes, rate: float, seconds: float) -> dict[str, Any]:
    """What clients in a process of their own found: `rate` (requests a second), `latencies`, `errors`. A rate of 0 is as fast as can be."""
    given = json.dumps({"port": int(url.rpartition(":")[2]), "request": request.decode(), "rate": rate, "seconds": seconds})
    done = subprocess.run([sys.executable, __file__], input=given, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peer(python: str, folder: Path, seconds: float, problems: list[str]) -> float:
    """Requests a second of Feast's feature server, of one instrument."""
    body = json.dumps({"features": [f"fs_v1:f{n}" for n in range(8)], "entities": {"instrument_id": ["I0000"]}}).encode()
    head = f"POST /get-online-features HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    script = Path(__file__).with_name("feast_peer.py")
    with subprocess.Popen([python, script, str(folder / "feast")], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = next(line.split()[1] for line in process.stdout if line.startswith("PORT "))
            found = load(f"http://127.0.0.1:{port}", head.encode() + body, 0, seconds)
            problems += [f"Feast refused {found['errors']} requests"] if found["errors"] else []
            return float(found["rate"])
        finally:
            process.terminate()


def drawn(latencies: np.ndarray) -> str:
    """The histogram, a mark for each range of milliseconds."""
    edges = (0, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 3, 5, 10, 20, 50, 1e6)
    counts, _ = np.histogram(latencies * 1000, edges)
    marks = " ▁▂▃▄▅▆▇█"
    shares = np.ceil(counts / max(1, counts.max()) * (len(marks) - 1)).astype(int)
    return f"0..50 ms |{''.join(marks[share] for share in shares)}|"


# What follows runs in the process of the clients.


class _Connection(asyncio.Protocol):
    """A connection, on which one request at a time is under way."""

    def __init__(self, done: asyncio.Queue[_Connection]) -> None:
        self._done = done
        self._buffer = b""
        self.due = 0.0
        self.answers: list[tuple[float, bool]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is free."""
        self._transport: Any = transport  # uvloop's is none of asyncio's
        self._done.put_nowait(self)

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due at some time."""
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(body) >= length:
                self.answers.append((time.perf_counter() - self.due, head.startswith(b"HTTP/1.1 200")))
                self._buffer = body[length:]
                self._done.put_nowait(self)


async def _load(port: int, request: bytes, rate: float, seconds: float) -> dict[str, object]:
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(lambda: _Connection(free), "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    await _asked(free, request, rate or 500.0, 0.5)  # so that everything is warm
    for one in made:
        one.answers.clear()
    began = time.perf_counter()
    await _asked(free, request, rate, seconds)
    took = time.perf_counter() - began
    answers = [answer for one in made for answer in one.answers]
    errors = sum(not good for _, good in answers)
    return {"rate": len(answers) / took, "latencies": [latency for latency, _ in answers] if rate else [], "errors": errors}


async def _asked(free: asyncio.Queue[_Connection], request: bytes, rate: float, seconds: float) -> None:
    """Requests at a rate, or, where it is 0, as fast as connections come free; until all are answered.

    A loop wakes up by the millisecond, so that requests come a few at a time; the wait for a free connection is part of what they take.
    """
    began, number = time.perf_counter(), 0
    while (now := time.perf_counter()) < began + seconds:
        due = began + number / rate if rate else now
        if due > now:
            await asyncio.sleep(due - now)
            continue
        connection = await free.get()
        connection.ask(request, now if rate else time.perf_counter())
        number += 1
    waiting = [await free.get() for _ in range(CONNECTIONS)]
    for connection in waiting:
        free.put_nowait(connection)


def _main() -> None:
    import uvloop  # noqa: PLC0415  # the clients' alone

    given = json.load(sys.stdin)
    json.dump(uvloop.run(_load(given["port"], given["request"].encode(), given["rate"], given["seconds"])), sys.stdout)


if __name__ == "__main__":
    _main()
