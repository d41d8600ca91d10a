"""How everything here is measured: candidates take turns, each in its whole length, and the median of their times counts."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What a benchmark is told: how large its data is, how often everything runs, a folder that it may fill, and where a picture goes."""

    scale: float
    repeat: int
    folder: Path
    picture: Path | None = None


@dataclass(frozen=True)
class Figure:
    """One candidate's figure. `rows` is what it worked on in `seconds`; `value` stands for what is not a time, such as memory."""

    name: str
    seconds: float | None = None
    rows: int | None = None
    value: str = ""
    note: str = ""

    @property
    def rate(self) -> float | None:
        """Rows a second."""
        return self.rows / self.seconds if self.rows and self.seconds else None


@dataclass(frozen=True)
class Result:
    """What a benchmark found. The first figure is ours, the others are its peers; `met` is None where the design sets no target."""

    title: str
    figures: list[Figure]
    target: str = ""
    measured: str = ""
    met: bool | None = None
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """Something to time. `prepare` runs before each turn, off the clock."""

    run: Callable[[], Any]
    prepare: Callable[[], None] = lambda: None


def take_turns(
    candidates: Mapping[str, Candidate], repeat: int, first_answers: Callable[[str, Any], None] = lambda name, answer: None
) -> dict[str, float]:
    """The median seconds of each candidate; they run A B A B, so that a busy moment of the machine meets them all.

    `first_answers` is called with what each one returned in the first round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeat):
        for name, candidate in candidates.items():
            candidate.prepare()
            gc.collect()
            began = time.perf_counter()
            answer = candidate.run()
            seconds[name].append(time.perf_counter() - began)
            if not turn:
                first_answers(name, answer)
            del answer
    return {name: statistics.median(found) for name, found in seconds.items()}


def python(code: str, *arguments: str) -> str:
    """Run a few lines in a fresh interpreter; its standard output."""
    return subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout


_MEASURED = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": seconds, "peak": peak, "status": done.returncode, "error": done.stderr}))
"""


def peak_memory(*command: str) -> tuple[float, int]:
    """The seconds that a command takes and the most memory it holds, in bytes. Raises `RuntimeError` where it fails.

    A small process starts it: a child's peak is counted from that of the process which started it.
    """
    found = json.loads(python(_MEASURED, *command))
    if found["status"]:
        raise RuntimeError(f"{' '.join(command)} ended with {found['status']}: {found['error']}")
    return found["seconds"], found["peak"]
