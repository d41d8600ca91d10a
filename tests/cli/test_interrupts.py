"""Ctrl-C in the middle of the long commands: one clear line, the code 130, and a store in which nothing is half done."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.crashes import COMMANDS, Work, contents, in_process, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_says_so_and_run_again_finishes(tmp_path: Path, work: Work, name: str) -> None:
    folder = work.copy(name, tmp_path)
    process, took = started(folder, name), work.seconds[name]
    time.sleep(took / 3)
    assert process.poll() is None, "the command was to be in the middle of its work"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors == "stopped; what was not yet committed is undone. Run the same command again to finish.\n"
    in_process(folder, name)
    assert contents(folder) == work.expected[name]
