"""Clients that follow the stream of new vectors: how long after a vector became the newest they have it, and that all have all.

The clients are real connections of another process. Vectors are put every tenth of a second, as the bars of one moment come, and carry the
time at which they were put. Server and clients share the machine.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from measure import Figure, Result, Settings

SUBSCRIBERS, RATES, SECONDS, TICK = 1_000, (10, 100), 5, 0.1
PADDING = "x" * 600
"""So that a vector has the size of one of `fs_v1`."""
SENT = re.compile(rb'"at": ([0-9.]+)')
REQUEST = b"GET /v1/features/stream?feature_set=fs HTTP/1.1\r\nHost: here\r\n\r\n"


def run(settings: Settings) -> Result:
    """Measure it."""
    subscribers = max(10, round(SUBSCRIBERS * settings.scale))
    figures, problems, worst = [], [], 0.0
    for rate in RATES:
        sent, found = _delays(subscribers, rate, max(1.0, SECONDS * settings.scale))
        p50, p99, most = np.quantile(found["delays"], [0.5, 0.99, 1.0])
        value = f"p99 {p99 * 1000:.0f} ms, the last {most * 1000:.0f} ms"
        figures.append(Figure(f"{rate} vectors/s", float(p50), value=value, note=f"{len(found['delays']):,} events"))
        problems += [] if set(found["counts"]) == {sent} else [f"of {sent} vectors some had {min(found['counts'])}"]
        worst = max(worst, float(p99))
    return Result(
        f"{subscribers:,} subscribers of the stream on one process, from a vector that is put to a client that has it, medians",
        figures,
        f"{SUBSCRIBERS:,} subscribers on one process, which have everything",
        f"{subscribers:,} subscribers, p99 {worst * 1000:.0f} ms",
        subscribers >= SUBSCRIBERS and not problems,
        problems,
    )


def _delays(subscribers: int, rate: int, seconds: float) -> tuple[int, dict[str, list[float]]]:
    """How many vectors were put, and what the clients say."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from asof.serving.events import Stream  # noqa: PLC0415  # the clients' process needs none of it
    from asof.serving.newest import Entry, Newest  # noqa: PLC0415
    from asof.serving.server import answering  # noqa: PLC0415
    from asof.telemetry.metrics import Metrics  # noqa: PLC0415

    newest, metrics, sent = Newest(), Metrics(), 0
    newest.fill("fs", "1m", [])
    stream = Stream(newest, metrics)
    with answering(stream, "127.0.0.1", 0, before_end=stream.close) as port:
        clients = subprocess.Popen([sys.executable, __file__, str(port), str(subscribers)], stdout=subprocess.PIPE)
        while metrics.value(metrics.subscribers) < subscribers:
            time.sleep(0.05)
        time.sleep(0.5)
        began = time.perf_counter()
        for tick in range(round(seconds / TICK)):
            made = [json.dumps({"n": n, "at": time.time(), "pad": PADDING}).encode() for n in range(max(1, round(rate * TICK)))]
            newest.put("fs", "1m", [(f"I{n:04d}", Entry(tick, tick, line)) for n, line in enumerate(made)])
            sent += len(made)
            time.sleep(max(0.0, began + (tick + 1) * TICK - time.perf_counter()))
        newest.drop("fs", "1m", ["I0000"])
        told, _ = clients.communicate(timeout=60)
    return sent, json.loads(told)


class _Client(asyncio.Protocol):
    """A connection, which ends with the first vector that is gone."""

    def __init__(self, over: asyncio.Future[int], delays: list[float]) -> None:
        self._over = over
        self._delays = delays
        self._count = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        at, (whole, _, rest) = time.time(), (self._rest + data).rpartition(b"\n\n")
        self._rest = rest
        found = [at - float(sent) for sent in SENT.findall(whole)]
        self._count += len(found)
        self._delays += found
        if b"event: gone" in whole:
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self._over.set_result(self._count)


async def _listen(port: int, clients: int) -> None:
    loop, delays, overs = asyncio.get_running_loop(), [], []
    for _ in range(clients):
        overs.append(loop.create_future())
        await loop.create_connection(lambda: _Client(overs[-1], delays), "127.0.0.1", port)
    print(json.dumps({"counts": await asyncio.gather(*overs), "delays": delays}))


if __name__ == "__main__":
    asyncio.run(_listen(int(sys.argv[1]), int(sys.argv[2])))
