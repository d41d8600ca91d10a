"""What the second axis of time costs, over 1M bars of `fs_v1` in a DuckDB file: reads as known at a moment, one corrected bar, a replay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import data
import pyarrow as pa
from measure import Candidate, Figure, Result, Settings, take_turns

import asof
from asof.records import BARS
from asof.stores.store import BARS_TABLE, Selection

KNOWN_TARGET, CORRECTION_TARGET, REPLAY_TARGET = 2.0, 0.05, 10.0


@contextmanager
def _filled(settings: Settings) -> Iterator[tuple[asof.FeatureStore, data.Size]]:
    """A store with bars, events and vectors."""
    wanted = data.size(1_000_000, 100, settings.scale)
    path = settings.folder / "proof.duckdb"
    data.fill(path, wanted)
    with asof.connect(str(path)) as store:
        store.backfill(asof.fs_v1, "1m")
        yield store, wanted
    path.unlink()


def _corrected(store: asof.FeatureStore, nth: int) -> None:
    """Another close of one bar, in the middle of the history."""
    (bar,) = (row for t in store.store.read(BARS_TABLE, Selection("1m", ("I000005",))) for row in t.slice(50 + nth % 40, 1).to_pylist()[:1])
    bar["close"] = 100.0 + nth
    store.store.upsert(BARS_TABLE, pa.Table.from_pylist([bar], schema=BARS), datetime.now(UTC))


def known_at(settings: Settings) -> Result:
    """Measure reads of vectors as they were known, with every hundredth revised since."""
    with _filled(settings) as (store, wanted):
        then = datetime.now(UTC)
        table = next(iter(store.store.read(BARS_TABLE, Selection("1m")))).slice(0, max(1, wanted.rows // 100))
        revised = table.set_column(table.schema.get_field_index("close"), "close", pa.array([50.0] * len(table)))
        store.store.upsert(BARS_TABLE, revised, datetime.now(UTC) + timedelta(seconds=1))
        store.backfill(asof.fs_v1, "1m")
        rows: dict[str, int] = {}
        candidates = {
            "as known at a moment": Candidate(lambda: len(store.history(asof.fs_v1, "1m", known_at=then))),
            "as it is": Candidate(lambda: len(store.history(asof.fs_v1, "1m"))),
        }
        seconds = take_turns(candidates, settings.repeat, rows.__setitem__)
    ratio = seconds["as known at a moment"] / seconds["as it is"]
    return Result(
        f"{wanted.rows:,} vectors out of DuckDB, as they were known before corrections",
        [Figure(name, found, wanted.rows) for name, found in seconds.items()],
        f"at most {KNOWN_TARGET:g} x the plain read's time",
        f"{ratio:.2f} x",
        ratio <= KNOWN_TARGET,
        [f"{name} read {count} rows" for name, count in rows.items() if count != wanted.rows],
    )


def correction(settings: Settings) -> Result:
    """Measure the recompute of what one corrected bar reaches."""
    with _filled(settings) as (store, wanted):
        store.catch_up(asof.fs_v1, "1m")
        turns = iter(range(1, 10_000))
        computed: dict[str, int] = {}
        catch_up = Candidate(lambda: store.catch_up(asof.fs_v1, "1m").computed, lambda: _corrected(store, next(turns)))
        seconds = take_turns({"after one corrected bar": catch_up}, max(5, settings.repeat), computed.__setitem__)
    took = seconds["after one corrected bar"]
    wrong = computed["after one corrected bar"] != min(21, wanted.bars)
    return Result(
        f"what one corrected bar of {wanted.rows:,} reaches, computed again in DuckDB",
        [Figure("after one corrected bar", took, computed["after one corrected bar"])],
        f"less than {CORRECTION_TARGET * 1000:g} ms",
        f"{took * 1000:.0f} ms",
        took < CORRECTION_TARGET,
        [f"{computed} vectors were computed, not 21"] if wrong else [],
    )


def replay(settings: Settings) -> Result:
    """Measure a replay and a verification beside a backfill."""
    with _filled(settings) as (store, wanted):
        counts: dict[str, int] = {}

        def replayed() -> int:
            with asof.connect("duckdb://") as scratch:
                return store.replay(asof.fs_v1, "1m", scratch).changes.inserted

        candidates = {
            "replay": Candidate(replayed),
            "verify": Candidate(lambda: store.verify(asof.fs_v1, "1m").equal),
            "backfill of what is there": Candidate(lambda: store.backfill(asof.fs_v1, "1m").changes.unchanged),
        }
        seconds = take_turns(candidates, settings.repeat, counts.__setitem__)
    ratio = seconds["replay"] / seconds["backfill of what is there"]
    verify = seconds["verify"] / seconds["backfill of what is there"]
    return Result(
        f"a replay of {wanted.rows:,} bars + {wanted.instruments * wanted.events:,} events in DuckDB",
        [Figure(name, found, wanted.rows) for name, found in seconds.items()],
        f"at most {REPLAY_TARGET:g} x the backfill's time",
        f"{ratio:.1f} x, and verify {verify:.1f} x",
        ratio <= REPLAY_TARGET,
        [f"{name} counts {count}" for name, count in counts.items() if count != wanted.rows],
    )
