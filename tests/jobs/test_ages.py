"""Ages in trading time, held to a plain count over the schedules that exchange_calendars gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import exchange_calendars
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asof.calendars import Calendars
from asof.errors import DefinitionError
from asof.jobs.ages import Age

Stretch = tuple[datetime, datetime]
BEGIN, END = datetime(2024, 2, 20, tzinfo=UTC), datetime(2024, 12, 31, tzinfo=UTC)
"""Daylight saving begins and ends in between, on other days here and there; Thanksgiving and Christmas have half days in New York."""
MOMENTS = st.datetimes(BEGIN.replace(tzinfo=None), END.replace(tzinfo=None)).map(lambda moment: moment.replace(tzinfo=UTC))


@cache
def schedule(exchange: str) -> tuple[list[datetime], list[Stretch]]:
    """The openings of the sessions, and the stretches of trading, by themselves."""
    days = exchange_calendars.get_calendar(exchange).schedule.loc[str(BEGIN.date()) : str(END.date())]
    opens, stretches = [], []
    for day in days.itertuples():
        opens.append(day.open.to_pydatetime())
        if day.break_start == day.break_start:  # it has a break: not NaT
            stretches.append((day.open.to_pydatetime(), day.break_start.to_pydatetime()))
            stretches.append((day.break_end.to_pydatetime(), day.close.to_pydatetime()))
        else:
            stretches.append((day.open.to_pydatetime(), day.close.to_pydatetime()))
    return opens, stretches


def traded(exchange: str, since: datetime, until: datetime) -> timedelta:
    """The oracle: what the two have in common with each stretch of trading."""
    both = [min(until, end) - max(since, begin) for begin, end in schedule(exchange)[1]]
    return sum((part for part in both if part > timedelta(0)), timedelta(0))


def begun(exchange: str, since: datetime, until: datetime) -> int:
    """The oracle: the sessions that open after the one and not after the other."""
    return sum(since < opened <= until for opened in schedule(exchange)[0])


def covers(age: str | timedelta, since: datetime, until: datetime, calendars: dict[str, str], instrument: str = "X") -> bool:
    times = (np.array([int(moment.timestamp() * 1_000_000)]) for moment in (since, until))
    return bool(Age.of(age).covers(Calendars(calendars), pa.chunked_array([[instrument]]), *times)[0])


@pytest.mark.parametrize("exchange", ["XNYS", "XLON", "XHKG", "CMES"])
@given(moments=st.lists(MOMENTS, min_size=2, max_size=8))
@example(
    moments=[datetime(2024, 11, 27, 21, tzinfo=UTC), datetime(2024, 11, 29, 18, tzinfo=UTC), datetime(2024, 12, 2, 14, 30, tzinfo=UTC)]
)
@example(moments=[datetime(2024, 3, 8, 21, tzinfo=UTC), datetime(2024, 3, 11, 13, 30, tzinfo=UTC), datetime(2024, 3, 11, 20, tzinfo=UTC)])
def test_trading_and_sessions_are_what_the_schedule_adds_up_to(exchange: str, moments: list[datetime]) -> None:
    opens, stretches = schedule(exchange)
    moments = sorted({*moments, opens[40], stretches[41][1], opens[200]})
    since, until = moments[:-1], moments[1:]
    found = Calendars({"*": exchange}).of("X")
    assert found is not None
    micros = np.array([(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta.resolution for moment in moments], np.int64)
    expected = [traded(exchange, *pair) // timedelta.resolution for pair in zip(since, until, strict=True)]
    assert np.diff(found.trading(micros)).tolist() == expected
    days = np.diff(found.sessions(micros)) / 86_400_000_000
    assert days.tolist() == [begun(exchange, *pair) for pair in zip(since, until, strict=True)]


FRIDAY, MONDAY = datetime(2024, 3, 8, 21, tzinfo=UTC), datetime(2024, 3, 11, 14, tzinfo=UTC)
"""A session's close, and half an hour into the next, which begins an hour earlier than the one before."""


@pytest.mark.parametrize(
    ("age", "fresh"), [("2d", False), ("3d", True), ("29m trading", False), ("30m trading", True), ("1d trading", True), ("2h", False)]
)
def test_a_vector_of_friday_is_not_stale_on_monday_morning(age: str, fresh: bool) -> None:
    assert covers(age, FRIDAY, MONDAY, {"*": "XNYS"}) == fresh


def test_a_session_is_over_for_an_age_when_the_next_but_one_begins() -> None:
    tuesday = datetime(2024, 3, 12, 13, 30, tzinfo=UTC)
    assert covers("1d trading", FRIDAY, tuesday - timedelta.resolution, {"*": "XNYS"})
    assert not covers("1d trading", FRIDAY, tuesday, {"*": "XNYS"})
    assert covers("2d trading", FRIDAY, tuesday, {"*": "XNYS"})


def test_each_instrument_has_its_own_calendar_and_without_one_it_goes_by_the_clock() -> None:
    calendars = {"AAPL": "XNYS", "BTC": "24/7", "0700": "XHKG"}
    names = pa.chunked_array([["AAPL", "BTC"], ["0700", "OTHER", "AAPL"]])
    since, until = (np.full(5, int(moment.timestamp() * 1_000_000)) for moment in (FRIDAY, MONDAY))
    assert Age.of("1h trading").covers(Calendars(calendars), names, since, until).tolist() == [True, False, False, False, True]
    assert Age.of("6h trading").covers(Calendars(calendars), names, since, until).tolist() == [True, False, True, False, True]
    assert Age.of("3d trading").covers(Calendars(calendars), names, since, until).tolist() == [True] * 5


def test_before_the_first_session_that_is_known_and_after_the_last_it_goes_by_the_clock() -> None:
    long_ago = datetime(1975, 1, 1, tzinfo=UTC)
    far_off = datetime(2120, 1, 1, tzinfo=UTC)
    for moment in (long_ago, far_off):
        for age in ("48h trading", "2d trading"):
            assert covers(age, moment, moment + timedelta(days=2), {"*": "XNYS"})
            assert not covers(age, moment, moment + timedelta(days=2, seconds=1), {"*": "XNYS"})


@pytest.mark.parametrize(
    ("age", "text"),
    [
        ("5d", "5d"),
        ("120m", "2h"),
        (timedelta(hours=36), "36h"),
        ("120m trading", "2h trading"),
        ("24h trading", "24h trading"),
        ("48d trading", "48d trading"),
        ("90s trading", "90s trading"),
    ],
)
def test_an_age_is_written_as_it_is_read(age: str | timedelta, text: str) -> None:
    assert Age.of(age).text == text
    assert Age.of(text) == Age.of(age)


@pytest.mark.parametrize("age", ["2h tradng", "1 session", "2h  trading", "2h trading time", "3 trading days"])
def test_what_is_no_age_is_refused_with_the_mend(age: str) -> None:
    with pytest.raises(DefinitionError, match=r"max_age .* is neither .*'2h trading' for hours .* '3d trading' for sessions"):
        Age.of(age)


@pytest.mark.parametrize("age", ["trading", "5 ", "-2h trading", "0h trading", "2w trading"])
def test_a_length_that_is_none_is_refused_too(age: str) -> None:
    with pytest.raises(DefinitionError, match=r"duration .* is not one of|is neither"):
        Age.of(age)


def test_trading_where_nobody_has_a_calendar_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'2h trading' counts trading, and no instrument has a calendar: name one in asof.toml"):
        covers("2h trading", FRIDAY, MONDAY, {})
