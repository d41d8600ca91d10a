"""What the bridges hand over: the values of a join as of the right moments, in the form that each program reads."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest

import asof
from asof.backtests import changes
from asof.bridges import backtesting_py, lean, vectorbt, zipline
from asof.errors import DataError, MissingExtra, NotFound
from asof.records import vector_schema
from asof.stores.store import BARS_TABLE, vectors_table
from tests.bridges.conftest import BEFORE, MINI, _bar, _vector, day, known

PAGE = Path(__file__).parents[2] / "docs" / "backtests.md"
NEW_YORK = ZoneInfo("America/New_York")


def same(found: object, expected: object) -> bool:
    return found == expected or (expected is None and isinstance(found, float) and math.isnan(found))


def test_backtesting_gets_prices_and_what_was_known_when_the_next_bar_opened(store: asof.FeatureStore) -> None:
    made = backtesting_py.frame(store, "mini", "1d", "ALFA")
    assert list(made.columns) == ["Open", "High", "Low", "Close", "Volume", "up", "wide"]
    assert isinstance(made.index, pd.DatetimeIndex)
    assert str(made.index.tz) == "UTC"
    assert made.index.is_monotonic_increasing
    opens = [moment.to_pydatetime() for moment in made.index]
    expected = known(store, [("ALFA", moment) for moment in [*opens[1:], opens[-1] + timedelta(days=1)]])
    assert all(same(*pair) for pair in zip(made["up"], [row["up"] for row in expected], strict=True))
    assert made["up"].tolist()[:7] == [0.0, 0.1, 0.2, 0.3, 0.3, 0.5, 0.6]  # that of day 4 comes when that of day 5 is there
    newest = backtesting_py.frame(store, "mini", "1d", "ALFA", known_at=None)
    assert newest["up"].tolist()[0] == 99.0


def test_backtesting_gets_no_bar_without_a_price(store: asof.FeatureStore) -> None:
    with pytest.raises(DataError, match=r"1 bars of 'BRAVO' lack a price, the first at 2024-03-03T14:30.*leave_out_missing=True"):
        backtesting_py.frame(store, "mini", "1d", "BRAVO")
    made = backtesting_py.frame(store, "mini", "1d", "BRAVO", leave_out_missing=True)
    assert len(made) == 12
    assert not made[["Open", "High", "Low", "Close"]].isna().any(axis=None)


def test_vectorbt_gets_wide_frames_with_what_was_known_at_each_open(store: asof.FeatureStore) -> None:
    panels = vectorbt.panels(store, "mini", "1d")
    assert list(panels) == ["open", "high", "low", "close", "volume", "up", "wide"]
    assert {panel.shape for panel in panels.values()} == {(14, 2)}
    for name in panels["up"].columns:
        rows = panels["up"][name]
        at = [(name, moment.to_pydatetime()) for moment in rows.index if (name, moment.to_pydatetime()) != ("BRAVO", day(3))]
        assert all(same(rows[row["event_timestamp"]], row["up"]) for row in known(store, at))
    assert math.isnan(panels["up"]["BRAVO"][day(3)])
    assert math.isnan(panels["open"]["BRAVO"][day(2)])


def test_zipline_gets_what_was_known_at_the_cutoff_of_each_session_in_summer_time_and_in_winter_time(store: asof.FeatureStore) -> None:
    sessions = [date(2024, 3, 4), pd.Timestamp("2024-03-08"), date(2024, 3, 11), date(2024, 3, 14)]  # the clocks change on the 10th
    made = zipline.frames(store, "mini", "1d", sessions)
    assert list(made) == ["up", "wide"]
    up = made["up"]
    assert (str(up.index.dtype), list(up.columns)) == ("datetime64[ns]", ["ALFA", "BRAVO"])
    for session in up.index:
        at = datetime(session.year, session.month, session.day, 8, 45, tzinfo=NEW_YORK)
        assert [row["up"] for row in known(store, [("ALFA", at), ("BRAVO", at)])] == up.loc[session].tolist()
    with pytest.raises(DataError, match=r"cutoff='25:00' in timezone='America/New_York' is no time of day"):
        zipline.frames(store, "mini", "1d", sessions, cutoff="25:00")
    with pytest.raises(DataError, match=r"timezone='America/Nowhere' is no time of day"):
        zipline.frames(store, "mini", "1d", sessions, timezone="America/Nowhere")
    with pytest.raises(DataError, match=r"not after the moment before it"):
        zipline.frames(store, "mini", "1d", sessions[::-1])


def test_a_pipeline_needs_zipline_and_an_asset_for_each_instrument(store: asof.FeatureStore) -> None:
    made = zipline.frames(store, "mini", "1d", [date(2024, 3, 4)])
    if find_spec("zipline") is None:
        with pytest.raises(MissingExtra, match="pip install zipline-reloaded"):
            zipline.data_set(made, {"ALFA": 1, "BRAVO": 2})
    else:
        with pytest.raises(NotFound, match="no asset for 'BRAVO'"):
            zipline.data_set(made, {"ALFA": 1})


class Record(dict[str, float]):
    """What LEAN's `PythonData` is to a reader: a dictionary with attributes."""

    symbol: object
    time: datetime
    end_time: datetime


class Config:
    """A subscription to ALFA."""

    class symbol:  # noqa: N801  # as LEAN calls it
        value = "ALFA"


def reader(folder: Path) -> Any:
    """The reader of the documentation, with stand-ins for what LEAN gives it."""
    code = re.search(r"```python\n(from AlgorithmImports import \*\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    media = type("Media", (), {"LOCAL_FILE": "local"})
    names: dict[str, object] = {
        "PythonData": Record,
        "SubscriptionTransportMedium": media,
        "SubscriptionDataSource": lambda path, medium: path,
    }
    names |= {"Globals": type("Globals", (), {"data_folder": str(folder)}), "QCAlgorithm": object, "datetime": datetime}
    exec(code[1].replace("from AlgorithmImports import *", "import os"), names)  # noqa: S102  # the example of our own page
    return names["AsofFeatures"]()


def test_lean_reads_each_vector_at_the_moment_from_which_on_it_was_known(store: asof.FeatureStore, tmp_path: Path) -> None:
    written = lean.write(store, "mini", "1d", tmp_path / "custom" / "asof", day(3), day(12))
    assert [str(path.relative_to(tmp_path)) for path in written] == ["custom/asof/mini/1d/alfa.csv", "custom/asof/mini/1d/bravo.csv"]
    asked = reader(tmp_path)
    path = Path(asked.get_source(Config, day(3), False))
    assert path == written[0]
    lines = path.read_text().splitlines()
    assert lines[0] == "as_of,ts,up,wide,quality_flags"
    got = [asked.reader(Config, line, day(3), False) for line in lines]
    assert got.pop(0) is None
    expected = [row for table in changes(store, "mini", "1d", day(3), day(12), instruments=["ALFA"]) for row in table.to_pylist()]
    assert [record.end_time for record in got] == [row["as_of"].replace(tzinfo=None) for row in expected]
    assert [record.time for record in got] == [record.end_time for record in got]
    assert [record.get("up") for record in got] == [row["up"] for row in expected]
    assert [record.get("wide") for record in got] == [row["wide"] for row in expected]
    assert any(line.endswith(",ODD;WIDE") for line in lines)
    assert any(record.get("wide") is None for record in got)


@pytest.mark.parametrize(("names", "says"), [(("ALFA", "../up"), "can be no file's name"), (("ALFA", "alfa"), "would have one file")])
def test_lean_files_have_names_that_files_can_have(names: tuple[str, str], says: str, tmp_path: Path) -> None:
    with asof.connect("duckdb://") as store:
        store.apply(MINI)
        store.store.upsert(BARS_TABLE, pa.Table.from_pylist([_bar(name, 0) for name in names], BARS_TABLE.schema), BEFORE)
        vectors = pa.Table.from_pylist([_vector(name, 0) for name in names], vector_schema(tuple(MINI.features)))
        store.store.upsert(vectors_table(MINI), vectors, BEFORE)
        with pytest.raises(DataError, match=says):
            lean.write(store, "mini", "1d", tmp_path, day(0), day(3))
    assert not list(tmp_path.rglob("*.*"))
