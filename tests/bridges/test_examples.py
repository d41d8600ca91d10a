"""The examples run, each in the program that it is for where that is there, and say what the page on backtests says of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
APART = "is not beside asof's own libraries: docs/backtests.md says why, and how to run this in an environment of its own"
pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs an example as its user would, and gives what it prints."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def ran(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return ran


def test_the_loop_of_ones_own_walks(run):
    assert run("walk.py") == "from 01 January 2024 to 27 December 2024: 1 has become 0.764\n"


def test_pandas_and_polars_have_the_same_frame(run):
    pandas, polars = run("frames.py").splitlines()
    assert pandas.removeprefix("pandas: ") == polars.removeprefix("Polars: ")


@pytest.mark.filterwarnings("ignore")  # its own: it calls pandas in ways that pandas will drop
def test_a_strategy_of_backtesting_py_runs(run):
    pytest.importorskip("backtesting", reason=f"backtesting.py {APART}")
    assert run("backtesting_py.py") == "61 trades, return -10.53 %\n"


@pytest.mark.filterwarnings("ignore")  # vectorbt's own
def test_signals_run_in_vectorbt(run):
    pytest.importorskip("vectorbt", reason=f"vectorbt {APART}")
    assert [line.split()[0] for line in run("vectorbt_signals.py").splitlines()[-5:]] == ["ALFA", "BRAVO", "CARGO", "DELTA", "ECHO"]


@pytest.mark.filterwarnings("ignore")  # Zipline's own
def test_a_pipeline_runs_in_zipline(run):
    pytest.importorskip("zipline", reason=f"Zipline {APART}")
    assert "2024-03-07 Equity(1 [ALFA])   0.010059   1.0" in run("zipline_pipeline.py")


def test_files_for_lean_are_written(run, tmp_path):
    assert run("lean_files.py", str(tmp_path)).startswith("5 files, fs_v1/1d/alfa.csv among them:\nas_of,ts,ret_1,vol_20,quality_flags\n")


def test_hindsight_is_drawn_and_pays(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = runpy.run_path(str(EXAMPLES / "hindsight.py"))
    grown = example["growth"](40)
    honest, corrected, ahead = (grown[kind] for kind in example["KINDS"])
    assert ahead[-1] > 1.2 * max(honest[-1], corrected[-1])
    assert not np.array_equal(honest, corrected)
    example["draw"](grown, tmp_path / "hindsight.png")
    assert (tmp_path / "hindsight.png").stat().st_size > 10_000
    assert (ROOT / "docs" / "images" / "hindsight.png").stat().st_size < 100_000
