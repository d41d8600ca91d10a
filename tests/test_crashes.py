"""Processes that are killed in the middle of writing: the same command again ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.crashes import COMMANDS, Work, contents, in_process, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_at_any_moment_and_run_again_leaves_the_same_rows(
    tmp_path: Path, work: Work, name: str, seed: int
) -> None:
    folder = work.copy(name, tmp_path)
    process = started(folder, name)
    share = (seed + random.Random(seed).random()) / 4  # noqa: S311  # one moment in each quarter of the run
    time.sleep(share * work.seconds[name])
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 0)
    in_process(folder, name)
    assert contents(folder) == work.expected[name]
