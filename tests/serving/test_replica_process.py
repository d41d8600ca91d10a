"""A replica in a process of its own, which is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.jobs.streams import eventually
from tests.servers.kafka import Kafka
from tests.serving.test_topic import write

PROGRAM = """
import json, sys, threading, time
from asof.config import Settings
from asof.serving.following import follow
from asof.telemetry.metrics import Metrics

replica, _ = follow(sys.argv[1], Settings(features_topic=sys.argv[2]), Metrics(), threading.Event())
threading.Thread(target=replica.run, daemon=True).start()
while True:
    held = {name: json.loads(found.line)["ts_utc"][14:16] for name, found in list((replica.newest.of("fs", "1m") or {}).items())}
    print(json.dumps({"ready": replica.ready, "held": held}), flush=True)
    time.sleep(0.1)
"""


@contextmanager
def replica(kafka: Kafka, topic: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, f"kafka://{kafka.bootstrap}", topic], stdout=file, env=dict(os.environ))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(log: Path) -> dict[str, object]:
    """What it said last."""
    whole = log.read_bytes().rpartition(b"\n")[0].splitlines()
    told = [line for line in whole if line.startswith(b"{")]  # the others are its log
    return json.loads(told[-1]) if told else {"ready": False}


@pytest.mark.slow
def test_a_replica_that_is_killed_fills_itself_again_and_holds_the_same(kafka: Kafka, tmp_path: Path) -> None:
    topic, log = kafka.topic(), tmp_path / "log"
    write(kafka, topic, *((f"I{n}", 1) for n in range(50)), ("I7", None))
    expected = {f"I{n}": "01" for n in range(50) if n != 7}
    with replica(kafka, topic, log) as process:
        eventually(lambda: said(log)["ready"], 30)
        assert said(log)["held"] == expected
        process.send_signal(signal.SIGKILL)
        process.wait()
    write(kafka, topic, ("I0", 2), ("I7", 2), ("I9", None))
    expected = {name: at for name, at in (expected | {"I0": "02", "I7": "02"}).items() if name != "I9"}
    with replica(kafka, topic, log):
        eventually(lambda: said(log)["ready"], 30)
        assert said(log)["held"] == expected
        write(kafka, topic, ("I1", 3))
        eventually(lambda: said(log)["held"] == expected | {"I1": "03"})
