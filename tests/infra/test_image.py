"""What the image does before and while the service runs: its entry point, and the kernels that were compiled when it was built."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

ROOT = Path(__file__).resolve().parents[2]
ASOF = """#!/bin/sh
echo "$@" >>"$SAID"
[ "${FAILS:-}" = "$1" ] && exit 5
[ "$1" = run ] || exit 0
trap 'echo stopped >>"$SAID"; exit 0' TERM
echo "$$" >"$SAID.pid"
while :; do sleep 0.05; done
"""


@pytest.fixture
def image(tmp_path: Path) -> dict[str, str]:
    """The environment of an entry point whose kernels and `asof` are in a folder of the test."""
    script = (ROOT / "infra" / "entrypoint.sh").read_text()
    assert script.count("/opt/asof/kernels") == 1
    for name, text in {"entrypoint": script.replace("/opt/asof/kernels", str(tmp_path / "baked")), "asof": ASOF}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "baked").mkdir()
    (tmp_path / "baked" / "kernel").write_text("compiled")
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "SAID": str(tmp_path / "said")}


def start(image: dict[str, str], *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["entrypoint", *arguments], env=image | more, stderr=subprocess.PIPE, text=True)


def said(image: dict[str, str]) -> list[str]:
    path = Path(image["SAID"])
    return path.read_text().splitlines() if path.exists() else []


def test_it_migrates_then_becomes_the_service_and_a_signal_reaches_that(image):
    with start(image, "run") as process:
        while not Path(image["SAID"] + ".pid").exists():
            assert process.poll() is None
        assert Path(image["SAID"] + ".pid").read_text() == f"{process.pid}\n", "a shell stands between"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert said(image) == ["migrate", "run", "stopped"]


def test_a_migration_that_fails_is_the_end_of_it(image):
    with start(image, "run", FAILS="migrate") as process:
        assert process.wait(10) == 5
    assert said(image) == ["migrate"]


def test_any_other_command_is_only_that_command(image):
    with start(image, "doctor", "--json") as process:
        assert process.wait(10) == 0
    assert said(image) == ["doctor --json"]


def test_the_kernels_are_copied_to_where_more_can_join_them_once(image):
    for _ in range(2):
        with start(image, "doctor") as process:
            assert process.wait(10) == 0
    kernels = Path(image["NUMBA_CACHE_DIR"])
    assert [path.name for path in kernels.iterdir()] == ["kernel"]


def test_where_they_cannot_be_it_says_what_to_do(image, tmp_path):
    with start(image, "run", NUMBA_CACHE_DIR=str(tmp_path / "no" / "folder")) as process:
        assert "docker run --tmpfs /tmp" in process.stderr.read()
        assert process.wait(10) == 1
    assert said(image) == []


@pytest.mark.heavy
def test_the_kernels_of_the_image_are_all_that_the_shipped_sets_need(tmp_path):
    settings = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}

    def compiled() -> set[Path]:
        command = [sys.executable, str(ROOT / "scripts" / "compile_kernels.py")]
        done = subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return {path for path in (tmp_path / "kernels").rglob("*") if path.is_file()}

    first = compiled()
    assert len(first) > 20
    assert compiled() == first
