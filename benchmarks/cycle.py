"""A cycle of the service over PostgreSQL: one new minute bar of each of 5,000 instruments, and an event for each tenth of them.

Timed is the whole cycle: asking what has changed, reading it with what is around it, computing `fs_v1` or `alpha158`, and writing the
vectors. The bars and events are written before the clock starts, as another program would. An idle cycle is timed beside it.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import data
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns
from postgres_io import private_server

import asof
from asof.features.library import SHIPPED
from asof.jobs.live import Live, Plan
from asof.records import BARS, EVENTS
from asof.stores.postgres import PostgresStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics

TARGET = 1.0
HISTORY = 120
"""Minutes of bars that are there before."""
OPEN = datetime(2024, 1, 2, tzinfo=UTC)


class Market:
    """A store of so many instruments, whose next minute can be written, and the loop that keeps up with it."""

    def __init__(self, store: PostgresStore, feature_set: asof.FeatureSet, instruments: int) -> None:
        self.store, self.instruments, self.minute = store, instruments, 0
        for _ in range(HISTORY):
            self.write()
        plan, health = Plan((feature_set,), ("1m",), None, "bench", 60), Health(feature_set.version, "bench", 60)
        self.loop = Live(store, plan, Metrics(), health, lambda: OPEN + timedelta(minutes=self.minute))
        self.loop.cycle()

    def write(self) -> None:
        """The bar of the next minute of each instrument, and an event of each tenth one."""
        names = data.names(0, self.instruments)
        ts = pa.scalar(OPEN + timedelta(minutes=self.minute), BARS.field("ts").type)
        close = [100.0 + (self.minute * 7 + k) % 13 for k in range(self.instruments)]
        volume = [1_000.0 + (self.minute * 11 + k) % 17 for k in range(self.instruments)]
        prices = {"open": [x - 0.5 for x in close], "high": [x + 1.0 for x in close], "low": [x - 1.0 for x in close], "close": close}
        self.store.upsert(BARS_TABLE, _table(BARS, instrument_id=names, timeframe="1m", ts=ts, **prices, volume=volume), OPEN)
        some = names.slice(0, self.instruments // 10)
        ids = [f"{self.minute}-{k}" for k in range(len(some))]
        news = {"instrument_id": some, "event_id": ids, "enriched_at_utc": ts, "score": 0.5, "confidence": 0.9, "scored_at_utc": ts}
        self.store.upsert(EVENTS_TABLE, _table(EVENTS, **news), OPEN)
        self.minute += 1

    def keep_up(self) -> int:
        """One cycle; how many vectors it computed."""
        return self.loop.cycle().computed


def _table(schema: pa.Schema, **given: object) -> pa.Table:
    rows = len(given["instrument_id"])
    columns = []
    for field in schema:
        value = given.get(field.name)
        whole = isinstance(value, pa.Array | list)
        columns.append(pa.array(value, field.type) if whole else pa.repeat(pa.scalar(value, field.type), rows))
    return pa.table(columns, schema=schema)


def fs_v1(settings: Settings) -> Result:
    """Measure it with `fs_v1`."""
    return _run(settings, asof.fs_v1)


def alpha158(settings: Settings) -> Result:
    """Measure it with `alpha158`."""
    return _run(settings, SHIPPED["alpha158"])


def _run(settings: Settings, feature_set: asof.FeatureSet) -> Result:
    instruments = max(50, round(5_000 * settings.scale))
    with private_server() as postgres, closing(PostgresStore(postgres.database())) as store:
        market = Market(store, feature_set, instruments)
        computed: dict[str, int] = {}
        candidates = {
            "a cycle with new bars": Candidate(market.keep_up, market.write),
            "an idle cycle": Candidate(market.keep_up),
        }
        seconds = take_turns(candidates, settings.repeat, computed.__setitem__)
    expected = {"a cycle with new bars": instruments, "an idle cycle": 0}
    took = seconds["a cycle with new bars"]
    return Result(
        f"a cycle of {feature_set.version} over PostgreSQL, a new minute bar of each of {instruments:,} instruments",
        [Figure(name, found, expected[name]) for name, found in seconds.items()],
        f"less than {TARGET:g} s",
        f"{took:.3f} s",
        took < TARGET,
        [f"{name} computed {computed[name]} vectors" for name in expected if computed[name] != expected[name]],
    )
