"""The command line, run in this process: fast, and with its output in hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from asof.cli.app import run


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, and what it said."""

    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """The output as text."""
        return self.output.decode()

    @property
    def said(self) -> str:
        """The error output in one line, without the frames around it."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.errors)

    @property
    def json(self) -> dict[str, object]:
        """The output, which is one JSON object on one line."""
        (line,) = self.text.splitlines()
        value: dict[str, object] = json.loads(line)
        return value


Command = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an environment without settings."""
    for name in list(os.environ):
        if name.startswith(("ASOF_", "FEATURE_", "PIPELINE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asof(folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Runs `asof` with some arguments in the folder."""

    def command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["asof", *map(str, arguments)])
        capsysbinary.readouterr()
        try:
            run()
            code: object = 0
        except SystemExit as end:
            code = end.code
        captured = capsysbinary.readouterr()
        assert isinstance(code, int)
        return Done(code, captured.out, captured.err.decode())

    return command


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that each test gets a copy of."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in ("init", "ingest bars data/bars.parquet", "ingest events data/events.jsonl", "backfill my_v1 -t 1d"):
            patch.setattr(sys, "argv", ["asof", *line.split()])
            with pytest.raises(SystemExit) as end:
                run()
            assert end.value.code == 0
    (folder / "splits.csv").write_text("instrument_id,ts,split\nALFA,2024-06-10T04:00:00Z,2\n")
    (folder / "index.csv").write_text("instrument_id,ts\nALFA,2024-06-10T04:00:00Z\n")
    (folder / "trades.csv").write_text("instrument_id,ts,seq,price,size\nALFA,2024-06-10T14:30:01Z,1,40.5,3\n")
    (folder / "quotes.csv").write_text("instrument_id,ts,seq,bid,bid_size,ask,ask_size\nALFA,2024-06-10T14:30:01Z,1,40.4,3,40.6,2\n")
    (folder / "level2.csv").write_text("instrument_id,ts,kind,update_id,side,price,size\nALFA,2024-06-10T14:30:01Z,snapshot,1,b,40.4,3\n")
    return folder


@pytest.fixture
def project(made_once: Path, folder: Path) -> Path:
    """A project as `asof init` makes it, with its sample ingested and `my_v1` backfilled."""
    shutil.copytree(made_once, folder, dirs_exist_ok=True)
    return folder
