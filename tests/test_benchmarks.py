"""The benchmarks run, and the peers' numbers are ours. How fast anything is, is no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import asof

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"
NAMES = (
    "fs_v1",
    "alpha158",
    "cross",
    "book",
    "factors",
    "join",
    "history",
    "backfill",
    "postgres_write",
    "postgres_read",
    "events",
    "cycle",
    "cycle_alpha158",
    "stream",
    "serve",
    "replica",
    "subscribers",
    "known_at",
    "correction",
    "replay",
    "memory",
    "imports",
    "cold",
)


def benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"PYTHONPATH": str(Path(asof.__file__).parents[1])}  # the tests' own path may be relative to another folder
    return subprocess.run([sys.executable, RUN, *arguments], cwd=folder, env=surroundings, capture_output=True, text=True, check=False)


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_a_small_benchmark_runs_and_its_peers_agree(name: str, tmp_path: Path):
    done = benchmark(tmp_path, "--only", name, "--scale", "0.001", "--repeat", "1", "--json", "figures.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    assert list(found["results"]) == [name]
    assert found["results"][name]["problems"] == []
    assert found["results"][name]["figures"][0]["seconds"] > 0


@pytest.mark.slow
def test_figures_go_between_the_marks_of_a_page_and_the_rest_stays(tmp_path: Path):
    page = tmp_path / "performance.md"
    page.write_text("# Fast\n\nabove\n\n<!-- figures -->\nold\n<!-- /figures -->\n\nbelow\n")
    done = benchmark(tmp_path, "--only", "imports", "--markdown", page.name)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert text.startswith("# Fast\n\nabove\n\n<!-- figures -->\n")
    assert text.endswith("<!-- /figures -->\n\nbelow\n")
    assert "| import asof |" in text
    assert "old" not in text


def test_a_page_without_marks_is_refused_before_anything_is_measured(tmp_path: Path):
    (tmp_path / "page.md").write_text("no marks")
    done = benchmark(tmp_path, "--markdown", "page.md")
    assert done.returncode == 1
    assert "has no place for figures" in done.stderr


def test_every_benchmark_is_tested():
    listed = benchmark(Path(), "--help").stdout
    assert f"{{{','.join(NAMES)}}}" in "".join(listed.split())
