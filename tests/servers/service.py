"""The service for the tests: `asof run` in a process of its own, as a deployment sets it up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from psycopg.conninfo import conninfo_to_dict

from tests.processes import ASOF, environment

NAMES = {
    "host": "POSTGRES_HOST",
    "port": "POSTGRES_PORT",
    "dbname": "POSTGRES_DB",
    "user": "POSTGRES_USER",
    "password": "POSTGRES_PASSWORD",
}
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def database(url: str) -> dict[str, str]:
    """The variables that name a database."""
    parts = conninfo_to_dict(url)
    return {variable: str(parts.get(name, "")) for name, variable in NAMES.items()}


@dataclass
class Service:
    """A service that runs."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer."""
        try:
            with urlopen(self.address + path, timeout=10) as answer:  # noqa: S310 # our own
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def health(self) -> dict[str, object]:
        """What `/health` says, with the code of the answer."""
        code, body = self.get("/health")
        return json.loads(body) | {"code": code}

    def value(self, name: str, **labels: str) -> float:
        """A metric: the sum over all labels that are not given."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        samples = SAMPLE.findall(self.get("/metrics")[1])
        return sum(float(value) for found, said, value in samples if found == f"feature_store_{name}" and wanted <= set(said.split(",")))

    def logged(self) -> list[dict[str, object]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def says(self, text: str) -> bool:
        """Whether a line of the log holds a text."""
        return text in self.log.read_text()

    def end(self, how: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """End it; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(seconds)


@contextmanager
def service(folder: Path, url: str, **variables: str) -> Iterator[Service]:
    """A service over the database of a URL; what it logs goes to `folder`. It is killed where it still runs at the end."""
    folder.mkdir(exist_ok=True)
    settings = {"KAFKA_BOOTSTRAP_SERVERS": "", "LOG_FORMAT": "json", "HEALTH_PORT": "0", "FEATURE_REFRESH_SECONDS": "0.2"}
    environ = environment(**(settings | database(url) | variables))
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*ASOF, "run"], cwd=folder, env=environ, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        address = said.rpartition(" ")[2].strip()
        assert address.startswith("http://"), f"{said!r}, {(folder / 'log').read_text()}"
        yield Service(process, address, folder / "log")
    except BaseException:
        sys.stderr.write((folder / "log").read_text()[-4000:])
        raise
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
