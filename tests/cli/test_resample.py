"""`asof resample`, and what looks at its bars: explained and checked for leaks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command

FEATURES = """
from asof import FeatureSet, bars

hour = bars.every("1h")
looking = FeatureSet("looking", {"x": bars.close / hour.close.mean(2).latest() - 1, "y": hour.adjusted.close.latest()})
"""


@pytest.fixture
def minutes(asof: Command, folder: Path) -> Path:
    """A folder whose store has ten hours of five-minute bars of two instruments, and a set that looks at hours."""
    rng, start = np.random.default_rng(1), datetime(2024, 3, 1, 8, tzinfo=UTC)
    lines = ["instrument_id,ts,open,high,low,close,volume"]
    for name in ("ALFA", "ECHO"):
        for k, close in enumerate(100 + rng.normal(0, 1, 120).cumsum()):
            lines.append(f"{name},{(start + timedelta(minutes=5 * k)).isoformat()},{close},{close + 1},{close - 1},{close},{k + 1}")
    (folder / "bars.csv").write_text("\n".join(lines) + "\n")
    (folder / "looking.py").write_text(FEATURES)
    (folder / "asof.toml").write_text('store = "duckdb:///asof.duckdb"\nfeatures = "looking.py"\n')
    assert asof("ingest", "bars", "bars.csv", "--timeframe", "5m").code == 0
    return folder


def test_bars_are_made_once_and_again_when_they_have_changed(asof: Command, minutes: Path) -> None:
    made = asof("resample", "5m", "15m", "1h", "--json")
    assert made.json["1h"] == {"made": 20, "inserted": 20, "corrected": 0, "unchanged": 0, "withdrawn": 0, "left_alone": 0}
    assert made.json["15m"]["made"] == 80
    told = asof("resample", "5m", "1h", "--changed").text
    assert "1h: 20 bars in" in told
    assert "20 unchanged" in told
    assert asof("resample", "5m", "1h", "--changed", "--json").json["1h"]["made"] == 0


def test_what_cannot_be_made_is_said(asof: Command, minutes: Path) -> None:
    done = asof("resample", "5m", "1h", "7m")
    assert done.code == 3
    assert "7m bars cannot be made of 5m bars: a higher timeframe is longer, a multiple of the lower one, and a day at most" in done.errors
    assert "the store has no 1m bars to make 1h bars of" in asof("resample", "1m", "1h").errors
    assert asof("resample", "5m", "1h", "--changed", "-i", "ALFA").code == 2


def test_a_set_that_looks_at_them_is_backfilled_verified_explained_and_clean(asof: Command, minutes: Path) -> None:
    asof("resample", "5m", "1h")
    assert asof("backfill", "looking", "-t", "5m").code == 0
    assert asof("verify", "looking", "-t", "5m", "--json").json["equal"] == 240
    assert asof("verify", "looking", "-t", "5m", "--against", "replay", "--json").json["equal"] == 240
    line = ("explain", "looking", "-t", "5m", "-i", "ALFA", "--ts", "2024-03-01T10:55:00Z")
    found = asof(*line, "--json").json
    hours = found["higher"]["1h"]
    assert [row["ts"][11:16] for row in hours] == ["09:00", "10:00"]
    (mean,) = (part for part in found["features"]["x"]["parts"][0]["parts"] if "latest" in part["text"])
    assert mean["value"] == (hours[0]["close"] + hours[1]["close"]) / 2
    assert mean["parts"][0]["text"] == 'bars.every("1h").close.mean(2)'
    assert "2 1h bars" in asof(*line).text
    checked = asof("leakcheck", "looking.py", "-t", "5m", "--cuts", "6", "--json")
    assert (checked.code, checked.json["clean"], checked.json["unseen"]) == (0, True, [])
