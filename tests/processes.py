"""Processes that tests start and end: always by their own handle, never by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import asof

ASOF = [sys.executable, "-c", "from asof.cli import main; main()"]
"""The command line, whether or not it is installed."""
SETTINGS = ("ASOF_", "FEATURE_", "PIPELINE_", "POSTGRES_", "KAFKA_", "ENRICHED_", "HEALTH_", "LOG_", "OTEL_")
"""What the names of settings begin with."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process that finds this very package, and none of the settings that the tests' own process may have."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    source, checkout = Path(asof.__file__).resolve().parents[1], Path(__file__).resolve().parents[1]
    return kept | {"PYTHONPATH": f"{source}{os.pathsep}{checkout}", "PYTHONWARNINGS": "error", "PYTHONFAULTHANDLER": "1"} | changes


def start(arguments: list[str], folder: Path, **changes: str) -> subprocess.Popen[str]:
    """A process in `folder`, its input and output in pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, cwd=folder, env=environment(**changes), text=True, **pipes)


def python(code: str, folder: Path, **changes: str) -> subprocess.Popen[str]:
    """A Python process that runs `code`."""
    return start([sys.executable, "-c", code], folder, **changes)


def command(*arguments: str | Path, folder: Path, **changes: str) -> subprocess.Popen[str]:
    """The command line with these arguments."""
    return start([*ASOF, *map(str, arguments)], folder, **changes)


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    """The exit code, output and error output of a process; one that does not end in time is killed."""
    with process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, output, errors
