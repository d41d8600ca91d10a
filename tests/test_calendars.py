"""Sessions of exchanges: which bars are expected, when they close, and what that does to vectors."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import exchange_calendars
import numpy as np
import pyarrow as pa
import pytest

import asof
from asof import bars
from asof.calendars import Calendars, assigned, calendar
from asof.config import ConfigError, load_settings
from asof.errors import DefinitionError
from asof.features.feature_set import FeatureSet
from asof.features.library.quality import quality_flags
from asof.timeframes import timeframe as micros_of

EXCHANGES = ("XNYS", "XLON", "XHKG", "XTKS", "CMES", "24/7")
RETURN = FeatureSet("returns", {"ret_1": bars.close / bars.close.lag(1) - 1})
FLAGGED = FeatureSet("flagged", RETURN.features, flags=quality_flags(RETURN.features, asof.events.window("1h")))


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def times(*texts: str) -> np.ndarray:
    return np.array([at(text) for text in texts], np.int64)


def missed(exchange: str, timeframe: str, *opens: str) -> list[str]:
    """The bars before which expected ones are absent."""
    whole = Calendars({"*": exchange}).unbroken("X", times(*opens), timeframe)
    return [text for text, one in zip(opens, whole, strict=True) if np.isnan(one)]


def close_of(exchange: str, timeframe: str, open_: str) -> str:
    close = Calendars({"*": exchange}).closes("X", times(open_), timeframe)[0]
    return datetime.fromtimestamp(int(close) / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def listed(exchange: str, timeframe: str) -> np.ndarray:
    """The bars of a month and a half, anchored to the beginning of each stretch of trading, as exchange_calendars lists them."""
    known = exchange_calendars.get_calendar(exchange)
    minutes = f"{micros_of(timeframe) // 60_000_000}min"
    index = known.trading_index("2024-03-01", "2024-04-15", minutes, intervals=False, closed="left", force=False, ignore_breaks=False)
    return index.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


class TestWhatIsExpected:
    def test_weekends_and_holidays_are_not(self):
        thanksgiving = ("2024-11-26", "2024-11-27", "2024-11-29", "2024-12-02")
        assert missed("XNYS", "1d", *thanksgiving) == []
        assert missed("24/7", "1d", *thanksgiving) == ["2024-11-29", "2024-12-02"]

    def test_a_day_of_trading_is(self):
        assert missed("XNYS", "1d", "2024-11-26", "2024-11-29", "2024-12-02") == ["2024-11-29"]

    def test_daily_bars_may_open_with_the_session(self):
        assert missed("XNYS", "1d", "2024-03-08T14:30", "2024-03-11T13:30", "2024-03-13T13:30") == ["2024-03-13T13:30"]

    def test_nights_are_not_and_minutes_are(self):
        assert missed("XNYS", "1m", "2024-11-26T20:59", "2024-11-27T14:30", "2024-11-27T14:32") == ["2024-11-27T14:32"]
        assert missed("XNYS", "1m", "2024-11-26T20:58", "2024-11-27T14:30") == ["2024-11-27T14:30"]
        assert missed("XNYS", "1m", "2024-11-26T20:59", "2024-11-27T14:31") == ["2024-11-27T14:31"]

    def test_the_afternoon_of_a_half_day_is_not(self):
        assert missed("XNYS", "1m", "2024-11-29T17:59", "2024-12-02T14:30") == []
        assert missed("XNYS", "1h", "2024-11-29T17:00", "2024-12-02T14:00") == []

    def test_daylight_saving_moves_the_session(self):
        assert missed("XNYS", "1m", "2024-03-08T20:59", "2024-03-11T13:30") == []
        assert missed("XNYS", "1m", "2024-03-11T19:59", "2024-03-12T13:30") == []

    def test_a_lunch_break_is_not(self):
        assert missed("XHKG", "1m", "2024-03-05T03:59", "2024-03-05T05:00") == []
        assert missed("XHKG", "1m", "2024-03-05T03:59", "2024-03-05T05:01") == ["2024-03-05T05:01"]

    def test_trading_outside_the_session_is_taken_as_it_comes(self):
        assert missed("XNYS", "1m", "2024-11-26T20:59", "2024-11-26T22:15", "2024-11-27T09:00", "2024-11-27T14:30") == []

    def test_days_without_trading_since_the_market_closed_for_a_hurricane(self):
        assert missed("XNYS", "1d", "2012-10-26", "2012-10-31") == []

    def test_bars_may_be_anchored_to_the_session(self):
        day = ("2024-11-26T14:30", "2024-11-26T18:30")
        assert missed("XNYS", "4h", *day, "2024-11-27T14:30", "2024-12-02T14:30") == ["2024-12-02T14:30"]
        assert missed("XNYS", "4h", "2024-11-26T16:00", "2024-11-26T20:00", "2024-11-27T12:00", "2024-11-27T20:00") == ["2024-11-27T20:00"]

    @pytest.mark.parametrize("exchange", EXCHANGES)
    @pytest.mark.parametrize("timeframe", ["1m", "5m", "1h", "4h"])
    @pytest.mark.parametrize("anchored", [False, True])
    def test_exactly_what_the_library_lists_is_expected(self, exchange: str, timeframe: str, anchored: bool):
        """The oracle: every bar that exchange_calendars lists over some weeks, with holidays and a change of the clock."""
        step = micros_of(timeframe)
        opens = listed(exchange, timeframe if anchored else "1m")
        if not anchored:
            opens = np.unique(opens // step * step)
        gaps = calendar(exchange).gaps
        assert not gaps(opens, timeframe).any()
        odd = np.delete(opens, slice(1, -1, 2))
        assert gaps(odd, timeframe).sum() == len(opens) - len(odd)


class TestWhenItCloses:
    def test_a_daily_bar_closes_with_its_session(self):
        assert close_of("XNYS", "1d", "2024-03-08") == "2024-03-08 21:00"
        assert close_of("XNYS", "1d", "2024-03-11") == "2024-03-11 20:00"
        assert close_of("XNYS", "1d", "2024-11-29") == "2024-11-29 18:00"
        assert close_of("XNYS", "1d", "2024-11-29T14:30") == "2024-11-29 18:00"
        assert close_of("XTKS", "1d", "2024-03-08") == "2024-03-08 06:00"

    def test_a_bar_of_no_session_closes_after_its_timeframe(self):
        assert close_of("XNYS", "1d", "2024-11-28") == "2024-11-29 00:00"
        assert close_of("XNYS", "1d", "1905-01-03") == "1905-01-04 00:00"
        assert close_of("XNYS", "1h", "2024-11-29T17:00") == "2024-11-29 18:00"
        assert close_of("24/7", "1d", "2024-11-28") == "2024-11-29 00:00"

    def test_nothing_closes_where_there_is_nothing(self):
        assert len(calendar("XNYS").closes(times(), "1d")) == 0


class TestNames:
    def test_one_exchange_or_one_for_each(self):
        assert assigned("XNYS") == {"*": "XNYS"}
        assert assigned(" AAPL=XNYS, BTC = 24/7,") == {"AAPL": "XNYS", "BTC": "24/7"}
        assert assigned("BRK=B=XNYS") == {"BRK=B": "XNYS"}

    @pytest.mark.parametrize("text", ["AAPL=", "XNYS, XLON", "A=XNYS, A=XLON", "=, ="])
    def test_what_gives_nothing_or_twice_is_refused(self, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ASOF_CALENDARS", text)
        with pytest.raises(ConfigError, match=r"setting ASOF_CALENDARS: .*each once"):
            load_settings()

    def test_a_table_in_asof_toml(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "asof.toml").write_text('[calendars]\nAAPL = "XNYS"\n"*" = "24/7"\n')
        known = load_settings().market_calendars
        assert (known.of("AAPL"), known.of("BTC")) == (calendar("XNYS"), calendar("24/7"))

    def test_instruments_without_one(self):
        assert Calendars({"AAPL": "XNYS"}).of("BTC") is None

    def test_a_misspelt_exchange_is_met_with_the_nearest(self):
        with pytest.raises(DefinitionError, match=r"neither 24/7 nor the code of an exchange.*XNYS"):
            calendar("XNYC")

    def test_without_the_extra_the_error_says_what_to_install(self):
        program = "import sys; sys.modules['exchange_calendars'] = None; from asof.calendars import calendar; calendar('XNYS')"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
        assert 'pip install "asof[calendars]"' in done.stderr


def daily(*days: str) -> pa.Table:
    closes = [100.0 + i for i in range(len(days))]
    return pa.table({"instrument_id": ["AAPL"] * len(days), "ts": pa.array(times(*days), pa.timestamp("us", "UTC")), "close": closes})


class TestVectors:
    DAYS = ("2024-11-25", "2024-11-26", "2024-11-29", "2024-12-02")

    @pytest.mark.parametrize(
        ("calendars", "flagged"), [({}, []), ({"AAPL": "XNYS"}, ["2024-11-29"]), ({"AAPL": "24/7"}, ["2024-11-29", "2024-12-02"])]
    )
    def test_an_absent_bar_is_missing_while_the_lookback_reaches_it(self, calendars: dict[str, str], flagged: list[str]):
        found = asof.compute(FLAGGED, daily(*self.DAYS), timeframe="1d", calendars=calendars).to_arrow().to_pylist()
        assert [f"{v['ts']:%Y-%m-%d}" for v in found if "MISSING_OHLCV" in v["quality_flags"]] == flagged

    def test_features_are_the_same_with_a_calendar_and_without(self):
        with_one, without = (asof.compute(FLAGGED, daily(*self.DAYS), timeframe="1d", calendars=c).to_arrow() for c in ({"*": "XNYS"}, {}))
        assert with_one["ret_1"].equals(without["ret_1"])

    def test_a_vector_is_available_when_the_session_closes(self):
        found = asof.compute(FLAGGED, daily("2024-11-27", "2024-11-29"), timeframe="1d", calendars={"*": "XNYS"}).to_arrow()
        assert [f"{t:%d %H:%M}" for t in found["available_at"].to_pylist()] == ["27 21:00", "29 18:00"]
