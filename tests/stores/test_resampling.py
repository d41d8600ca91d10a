"""Resampled bars in stores: made once, kept up to date with the lower ones, and never over bars of another source."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof import FeatureSet, bars
from asof.calendars import Calendars
from asof.errors import NotFound
from asof.jobs.live import Live, Plan
from asof.jobs.panels import sort_bars
from asof.jobs.resampling import Resampled, Resampling, resampled
from asof.records import BARS
from asof.stores.store import BARS_TABLE, Selection, Store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, bar, bars_of, later, minute, rows_in


def job(store: Store, now: datetime = NOON, higher: str = "5m", **options: object) -> Resampling:
    return Resampling(store, "1m", higher, now, **options)  # type: ignore[arg-type]  # the job's options


def caught_up(store: Store, now: datetime = NOON) -> Resampled:
    return sum(job(store, now).catch_up(), job(store, now).begin())


def held(store: Store, timeframe: str) -> pa.Table:
    return pa.concat_tables([BARS.empty_table(), *store.read(BARS_TABLE, Selection(timeframe))])


def made(store: Store, timeframe: str = "5m") -> list[dict[str, object]]:
    return held(store, timeframe).to_pylist()


def expected(store: Store) -> list[dict[str, object]]:
    """What the lower bars give, all of them having closed."""
    return resampled(sort_bars(held(store, "1m")), "1m", "5m").to_pylist()


def test_all_bars_are_made_once_and_again_changes_nothing(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(12) for name in "AB")), NOON)
    first = job(store).everything()
    assert (first.made, first.changes.inserted) == (6, 6)
    assert made(store) == expected(store)
    again = job(store, later(1)).everything()
    assert (again.changes.inserted, again.changes.corrected, again.changes.unchanged) == (0, 0, 6)


def test_the_last_interval_is_not_made_before_it_has_closed(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(8))), NOON)
    assert caught_up(store, minute(8)).made == 1
    (waited,) = job(store, minute(9)).catch_up()
    assert (waited.made, waited.next_close) == (0, minute(10))
    assert caught_up(store, minute(10)).made == 1
    assert made(store) == expected(store)


def test_corrections_and_withdrawals_of_lower_bars_are_followed(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(15))), NOON)
    caught_up(store)
    store.upsert(BARS_TABLE, bars_of(bar(7, 99.0), bar(3, 4.0)), later(1))
    done = caught_up(store, later(1))
    assert (done.made, done.changes.corrected) == (1, 0), "the close of the interval is another minute's"
    store.upsert(BARS_TABLE, bars_of(bar(9, 99.0)), later(2))
    assert caught_up(store, later(2)).changes.corrected == 1
    assert made(store) == expected(store)
    store.withdraw(BARS_TABLE, bars_of(*(bar(n) for n in range(5, 10))).select(BARS_TABLE.key), later(3))
    assert caught_up(store, later(3)).withdrawn == 1
    assert made(store) == expected(store)
    assert [row["ts"] for row in made(store)] == [minute(0), minute(10)]


def test_going_over_everything_withdraws_what_is_made_of_nothing_any_more(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(15))), NOON)
    job(store).everything()
    store.withdraw(BARS_TABLE, bars_of(*(bar(n) for n in range(5, 10))).select(BARS_TABLE.key), later(1))
    assert job(store, later(2)).everything().withdrawn == 1
    assert made(store) == expected(store)


def test_bars_of_another_source_stay(store: Store) -> None:
    theirs = bar(5, 77.0) | {"timeframe": "5m", "source": "exchange"}
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(15)), theirs), NOON)
    done = job(store).everything()
    assert (done.made, done.left_alone) == (2, 1)
    assert [row["close"] for row in made(store)] == [1.0, 77.0, 1.0]
    store.upsert(BARS_TABLE, bars_of(bar(9, 5.0)), later(1))
    assert caught_up(store, later(1)).left_alone == 1
    assert [row["source"] for row in made(store)] == ["asof resample 1m", "exchange", "asof resample 1m"]


def test_a_long_history_is_gone_over_in_stretches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [minute(1440 * day + n) for day in range(12) for n in range(4)]
    rows = [bar(0, float(k + 1), name) | {"ts": moment} for k, moment in enumerate(days) for name in "ABC"]
    store.upsert(BARS_TABLE, bars_of(*rows), NOON)
    monkeypatch.setattr("asof.jobs.resampling.MOST_PART_ROWS", 10)
    told: list[int] = []
    assert job(store, higher="1d").everything(lambda done, total: told.append(done)).made == 36
    assert len(told) > 10
    assert made(store, "1d") == resampled(sort_bars(held(store, "1m")), "1m", "1d").to_pylist()


def test_days_of_sessions_are_kept_up_to_date(store: Store) -> None:
    opens = datetime.fromisoformat("2024-02-28T14:30:00Z")
    rows = [bar(0, float(k + 1)) | {"ts": opens + timedelta(hours=k)} for k in range(-2, 9)]
    store.upsert(BARS_TABLE, bars_of(*rows), NOON)
    calendars = Calendars({"*": "XNYS"})
    before, after = (datetime.fromisoformat(f"2024-02-28T{time}Z") for time in ("20:59:00", "21:00:00"))
    assert job(store, before, "1d", calendars=calendars).begin().made == 0
    (done,) = job(store, after, "1d", calendars=calendars).catch_up()
    assert done.made == 1
    (day,) = made(store, "1d")
    assert (day["ts"], day["available_at"], day["close"]) == (opens, after, 7.0)


def test_where_there_is_nothing_it_is_said_and_the_first_bars_are_made_later(store: Store) -> None:
    with pytest.raises(NotFound, match="the store has no 1m bars to make 5m bars of"):
        job(store).begin()
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    assert caught_up(store).changes.inserted == 1


def test_positions_tell_what_waits(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(6)), NOON)
    job(store, minute(7)).begin()
    assert [json.loads(kept) for kept in store.positions("waiting/").values()] == [[["A", minute(5).isoformat()]]]


minutes = st.integers(0, 24)
steps = st.one_of(
    st.tuples(st.just("bar"), st.sampled_from("AB"), minutes, st.sampled_from([1.0, 2.0, None])),
    st.tuples(st.just("gone"), st.sampled_from("AB"), minutes),
    st.just(("catch up",)),
)


@pytest.mark.slow
@given(todo=st.lists(steps, min_size=5, max_size=40))
@settings(max_examples=15)
def test_after_any_changes_the_bars_are_those_of_the_lower_ones(new_store: Opener, todo: Iterable[tuple[object, ...]]) -> None:
    with new_store() as store:
        store.follow(job(store).name)
        for n, step in enumerate([*todo, ("catch up",)]):
            match step:
                case ("bar", str(name), int(at), close):
                    store.upsert(BARS_TABLE, bars_of(bar(at, close, name)), later(n))  # type: ignore[arg-type]  # a price or None
                case ("gone", str(name), int(at)):
                    store.withdraw(BARS_TABLE, bars_of(bar(at, instrument=name)).select(BARS_TABLE.key), later(n))
                case _:
                    list(job(store, later(n)).catch_up())
                    assert made(store) == expected(store)


def test_the_service_makes_them_before_the_features_that_look_at_them(store: Store) -> None:
    feature_set = FeatureSet("looking", {"x": bars.close / bars.every("5m").close.latest()})
    now = [minute(0)]
    plan = Plan((feature_set,), ("1m",), None, "test", 1.0, resampled=(("1m", "5m"),))
    live = Live(store, plan, Metrics(), Health("looking", "test", 1.0), lambda: now[0])
    for n in range(12):
        store.upsert(BARS_TABLE, bars_of(bar(n, float(n + 1))), minute(n))
        now[0] = minute(n + 1)
        live.cycle()
    found = rows_in(store, live._work(feature_set, "1m").table)  # where its vectors lie
    assert [row["x"] for row in found] == [None] * 4 + [(n + 1) / (5 if n < 9 else 10) for n in range(4, 12)]
    assert made(store) == expected(store)[:2]
    assert live.health.report()["status"] == "ok"
