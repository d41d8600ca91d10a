"""Prometheus for the tests: a server of their own on the loopback, which reads what its configuration says."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

SECONDS = 30
"""How long it may take to start, to stop, and to have an answer."""


@dataclass
class Prometheus:
    """A server that runs."""

    url: str

    def get(self, path: str, **parameters: str) -> object:
        """The data of an answer of its API. Raises `ValueError` with what it says of a question that it does not understand."""
        try:
            with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=SECONDS) as answer:  # noqa: S310 # our own
                return json.load(answer)["data"]
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None

    def query(self, expression: str) -> list[dict[str, object]]:
        """The series that answer an expression now."""
        return self.get("query", query=expression)["result"]

    def wait_for(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, f"after {SECONDS} s still not: {what}"
            time.sleep(0.2)


def program(name: str) -> str:
    """Where a program of Prometheus is; the test is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}: make servers")
    return found


@contextmanager
def prometheus(configuration: dict[str, object], folder: Path) -> Iterator[Prometheus]:
    """A server for the block; its files are in `folder`."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://{address}")
        server.wait_for(lambda: ready(server.url, process), f"Prometheus answers; it says:\n{(folder / 'log').read_text()}")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def ready(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"Prometheus ended with {process.returncode}"
    try:
        with urlopen(f"{url}/-/ready", timeout=SECONDS) as answer:  # noqa: S310 # our own
            return answer.status == 200
    except URLError:
        return False
