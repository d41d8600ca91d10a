"""The commands that prove: `asof leakcheck` over somebody's own file, and `asof dataset` from its making to what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from asof.operators import FORMS
from tests.cli.conftest import Command

RESEARCH = """
import polars as pl

def endless(bars: pl.DataFrame) -> pl.DataFrame:
    x = pl.col("close").ewm_mean(span=20, adjust=False).over("instrument_id")
    return bars.select("instrument_id", "ts", x=x)

def next_close(bars):
    return bars.select("instrument_id", "ts", x=pl.col("close").shift(-1).over("instrument_id"))

def last_close(bars):
    return bars.select("instrument_id", "ts", x=pl.col("close").shift(1).over("instrument_id"))
"""


@pytest.fixture
def research(folder: Path) -> None:
    """A file of functions over data frames."""
    (folder / "research.py").write_text(RESEARCH)


def test_what_is_defined_is_clean_on_made_up_data_with_no_store_at_all(asof: Command, folder: Path) -> None:
    asof("init")
    done = asof("leakcheck", "--cuts", "3")
    assert (done.code, done.errors) == (0, "")
    assert done.text.startswith("clean: 2 checked (fs_v1, my_v1), ")
    assert not (folder / "asof.duckdb").exists()


def test_a_set_that_ships_is_named_by_its_version(asof: Command, folder: Path) -> None:
    done = asof("leakcheck", "book_v1", "--cuts", "2")
    assert (done.code, done.text.startswith("clean: 1 checked (book_v1), ")) == (0, True), done.said


def test_a_leak_ends_with_1_and_is_shown_with_its_row_and_bits(asof: Command, research: None) -> None:
    done = asof("leakcheck", "research.py:next_close", "research.py:endless", "--frame", "polars", "--cuts", "4")
    assert done.code == 1
    assert "next_close: x" in done.text
    assert "looks ahead" in done.text
    assert "endless: x" in done.text
    assert "depends on the start" in done.text
    assert "start: the data began later" in done.text
    finding = asof("leakcheck", "research.py:next_close", "--frame", "polars", "--cuts", "4", "--json").json["findings"][0]  # type: ignore[index]
    assert {k: finding[k] for k in ("subject", "feature", "check", "means", "instrument", "part")} == {
        "subject": "next_close",
        "feature": "x",
        "check": "truncated",
        "means": "looks ahead",
        "instrument": "ALFA",
        "part": None,
    }
    assert float.fromhex(float(finding["whole"]).hex()) == finding["whole"]
    assert (len(finding["whole_bits"]), finding["part_bits"]) == (16, "")


def test_an_honest_function_is_clean_on_the_bars_of_the_store(asof: Command, project: Path, research: None) -> None:
    line = "leakcheck research.py:last_close --frame polars -t 1d -i ALFA -i ECHO --bars 60 --cuts 3 --lookback 2 --tolerance 0 --seed 5"
    found = asof(*line.split(), "--json")
    assert (found.code, found.json["clean"]) == (0, True)
    assert asof(*line.split(), "--json").json == found.json
    assert asof("leakcheck", "research.py:next_close", "--frame", "polars", "-t", "1d", "--skip", "truncated").code == 1


def test_every_operator_can_be_checked_too(asof: Command, folder: Path) -> None:
    asof("init")
    done = asof("leakcheck", "features.py:my_v1", "--operators", "--cuts", "1", "--json")
    assert done.json["subjects"] == ["my_v1", *(operator.key for operator in FORMS)]
    assert (done.json["clean"], done.json["unseen"]) == (True, [])


def test_a_data_set_is_made_listed_shown_and_proved(asof: Command, project: Path) -> None:
    line = "dataset create first data/entities.csv --features my_v1:ret_1 --features my_v1:vol_20 -t 1d --max-age 5d"
    made = asof(*line.split())
    assert (made.code, made.errors) == (0, "")
    assert made.text.startswith("30 rows in datasets/first/data.parquet, as known at 20")
    assert asof("dataset", "verify", "first").text == (
        "first: all equal: 30 rows equal, 0 different, 0 without their vector, 0 with one that was not there\n"
    )
    listed = asof("dataset", "list").text.splitlines()
    assert listed[0].split() == ["name", "rows", "columns", "feature", "sets", "timeframe", "known", "at"]
    assert listed[1].split()[:5] == ["first", "30", "8", "my_v1", "1d"]
    shown = asof("dataset", "show", "first").text
    assert "max age: 5d" in shown
    assert "feature vol_20 = ret_1.std(20, ddof=0)" in shown
    again = asof(*line.split())
    assert again.code == 4
    assert "is already there" in again.said
    assert asof("dataset", "list", "--out", "elsewhere").text == "no data sets in elsewhere\n"


def test_an_age_may_be_in_trading_time(asof: Command, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("join", "my_v1", "data/entities.csv", "-t", "1d", "-o", "rows.csv", "--json", "--max-age", "1d trading")
    refused = asof(*line)
    assert (refused.code, "no instrument has a calendar" in refused.said) == (3, True)
    monkeypatch.setenv("ASOF_CALENDARS", "XNYS")
    assert int(str(asof(*line).json["found"])) > int(str(asof(*line[:-1], "6h").json["found"]))
    asof("dataset", "create", "first", "data/entities.csv", "-f", "my_v1", "-t", "1d", "--max-age", "1d trading")
    assert "max age: 1d trading (*=XNYS)\n" in asof("dataset", "show", "first").text


def test_a_correction_leaves_a_data_set_proved_and_a_changed_file_does_not(asof: Command, project: Path) -> None:
    asof("dataset", "create", "first", "data/entities.csv", "-f", "my_v1", "-t", "1d", "--out", "sets")
    (project / "late.csv").write_text("instrument_id,ts,close\nALFA,2024-06-13T14:30:00Z,1.5\n")
    assert asof("ingest", "bars", "late.csv", "-t", "1d", "--json").json["corrected"] == 1
    assert asof("backfill", "my_v1", "-t", "1d", "--json").json["corrected"] > 0  # type: ignore[operator]
    assert asof("dataset", "verify", "first", "--out", "sets").code == 0
    asof("dataset", "create", "second", "data/entities.csv", "-f", "my_v1", "-t", "1d", "--out", "sets")
    data = project / "sets/first/data.parquet"
    data.write_bytes((project / "sets/second/data.parquet").read_bytes())
    done = asof("dataset", "verify", "first", "--out", "sets")
    assert done.code == 1
    assert "first: data.parquet has SHA-256" in done.text
    facts = asof("dataset", "verify", "first", "--out", "sets", "--json")
    assert (facts.code, facts.json["right"], [file["file"] for file in facts.json["files"]]) == (1, False, ["data.parquet"])  # type: ignore[attr-defined]


def test_a_vector_that_the_store_no_longer_has_is_shown(asof: Command, project: Path) -> None:
    asof("dataset", "create", "first", "data/entities.csv", "-f", "my_v1", "-t", "1d")
    other = "other.duckdb"
    asof("ingest", "bars", "data/bars.parquet", "--store", other)
    asof("backfill", "my_v1", "-t", "1d", "--store", other)
    done = asof("dataset", "verify", "first", "--store", other)
    assert done.code == 1
    assert "0 rows equal, 0 different, 30 without their vector" in done.text
    assert "from the store None" in done.text


def test_a_broken_manifest_does_not_hide_the_other_data_sets(asof: Command, project: Path) -> None:
    for name in ("first", "second"):
        asof("dataset", "create", name, "data/entities.csv", "-f", "my_v1", "-t", "1d")
    (project / "datasets/first/manifest.json").write_text("{")
    done = asof("dataset", "list")
    assert done.code == 0
    assert "datasets/first/manifest.json is no manifest of a data set" in done.said
    assert "second" in done.text
