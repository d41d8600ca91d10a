"""The laws over trades, quotes and order books: no look-ahead, no start date, any split, exact reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.engine.panel import Panel
from asof.features.expression import Expr, PointWindow, constant, where
from asof.features.feature_set import FeatureSet
from asof.features.library import book_v1
from asof.features.market import BookWindow, TradeWindow, books, quotes, trades
from asof.jobs.following import Reach, Times
from asof.jobs.panels import panel_of, sort_bars
from asof.jobs.points import NO_EVENTS, SCHEMAS, known
from asof.operators import EVENT_SHAPES, OPERATORS, POINT_SHAPES
from asof.operators.operator import of_chosen
from asof.records import BARS, UTC, micros
from asof.stores.store import CHANGES
from tests.laws.markets import SEEDS
from tests.laws.vectors import Vectors, assert_same, planned, vectors_of_panel
from tests.operator_cases import called, parameters

STEP, START, SECOND = 60_000_000, 1_600_000_200_000_000, 1_000_000
NAMES = ("A", "B")
Bools = np.ndarray


@dataclass(frozen=True)
class Market:
    """Minute bars, and trades, quotes and books by stream, all in canonical form."""

    bars: pa.Table
    points: dict[str, pa.Table]

    def points_where(self, keep: Callable[[pa.Table], Bools]) -> Market:
        return replace(self, points={stream: table.filter(pa.array(keep(table))) for stream, table in self.points.items()})

    def bars_where(self, keep: Bools) -> Market:
        return replace(self, bars=self.bars.filter(pa.array(keep)))

    @property
    def closes(self) -> np.ndarray:
        return micros(self.bars["ts"]) + STEP

    def panel(self, feature_set: FeatureSet) -> Panel:
        return panel_of(planned(feature_set), "1m", sort_bars(self.bars), NO_EVENTS, market=self.points)

    def vectors(self, feature_set: FeatureSet, threads: int = 1, rows: int | None = None) -> Vectors:
        codes = [NAMES.index(name) for name in sort_bars(self.bars).instruments.to_pylist()]
        return vectors_of_panel(planned(feature_set), self.panel(feature_set), codes, threads, rows)


def made_up(seed: int, count: int, points: int) -> Market:
    """Points on the edges of windows, at one time, known late, one-sided, crossed, without sizes, in books too short."""
    rng = np.random.default_rng(seed)
    opens = [START + np.cumsum(rng.choice([1, 1, 1, 2, 7], n)) * STEP for n in (count, rng.integers(0, count + 1))]
    ts, who = np.concatenate(opens), np.repeat(NAMES, [len(o) for o in opens])
    close = np.where(rng.random(len(ts)) < 0.1, np.nan, rng.integers(95, 105, len(ts)) / 10)
    columns = {name: pa.array(close, from_pandas=True) for name in ("open", "high", "low", "close")} | {"volume": pa.array(close)}
    columns |= {"instrument_id": pa.array(who), "ts": pa.array(ts).cast(UTC), "timeframe": pa.repeat("1m", len(ts))}
    columns |= {name: pa.nulls(len(ts), BARS.field(name).type) for name in ("source", "available_at")}
    table = pa.table([columns[name] for name in BARS.names], schema=BARS)
    return Market(table, {stream: _points(rng, stream, points, ts + STEP) for stream in ("trades", "quotes", "books")})


def _points(rng: np.random.Generator, stream: str, count: int, closes: np.ndarray) -> pa.Table:
    edges = rng.choice([0, -1, 1, -10 * SECOND, -10 * SECOND - 1, -STEP, -STEP - 1, -5 * SECOND, -SECOND], count)
    at = np.where(rng.random(count) < 0.6, rng.choice(closes, count) + edges, rng.integers(START, closes.max() + STEP, count))
    at = np.where((rng.random(count) < 0.3) & (np.arange(count) > 0), np.roll(at, 1), at)
    late = np.where(rng.random(count) < 0.1, rng.integers(0, 3 * STEP, count), 0)
    columns = {"instrument_id": pa.array(rng.choice([*NAMES, "Z"], count), pa.string()), "ts": pa.array(at).cast(UTC)}
    columns |= {"seq": pa.array(rng.permutation(count)), "available_at": pa.array(at + late, mask=late == 0).cast(UTC)}
    price = rng.integers(95, 105, count) / 10
    size = rng.choice([1.0, 2.5, 0.1, 100.0, np.nan], count, p=[0.3, 0.3, 0.2, 0.18, 0.02])
    if stream == "trades":
        side = rng.choice([1.0, -1.0, np.nan], count)
        columns |= {
            name: pa.array(v, from_pandas=True) for name, v in (("price", price), ("size", np.nan_to_num(size, nan=3.0)), ("side", side))
        }
    elif stream == "quotes":
        empty = rng.choice([0, 1, 2], count, p=[0.8, 0.1, 0.1])
        for k, (name, sign) in enumerate((("bid", -1), ("ask", 1)), 1):
            columns[name] = pa.array(price + sign * rng.choice([0.1, 0.2, 0.0, -0.1], count), mask=empty == k)
            columns[f"{name}_size"] = pa.array(size, mask=(empty == k) | np.isnan(size))
    else:
        columns["gap"] = pa.array(rng.random(count) < 0.1)
        for name, sign in (("bid", -1), ("ask", 1)):
            levels = rng.integers(0, 8, count)
            prices = [(p + sign * 0.1 * np.arange(n)).tolist() for p, n in zip(price, levels, strict=True)]
            columns[f"{name}_prices"] = pa.array(prices, pa.list_(pa.float64()))
            columns[f"{name}_sizes"] = pa.array([rng.integers(1, 9, n).astype(float).tolist() for n in levels], pa.list_(pa.float64()))
    schema = SCHEMAS[stream]
    return pa.table([columns[name] for name in schema.names], schema=schema)


def markets() -> st.SearchStrategy[Market]:
    return st.builds(made_up, SEEDS, st.integers(1, 30), st.integers(0, 120))


def _columns(of: PointWindow) -> tuple[Expr, Expr]:
    if isinstance(of, TradeWindow):
        return of.price, of.size
    return (of.imbalance(3), of.gap) if isinstance(of, BookWindow) else (of.mid, of.bid_size)  # type: ignore[attr-defined]


def there_of(of: PointWindow) -> Expr:
    one, _ = _columns(of)
    return where(one.is_missing(), 0, one)


@cache
def over(stream: str) -> FeatureSet:
    """A feature set with every operator over the points of a stream, in windows by time and by number, and inside of others."""
    root = {"trades": trades, "quotes": quotes, "books": books}[stream]
    made: dict[str, Expr] = {}
    for name, of in (("short", root.window("10s")), ("long", root.window("2m")), ("few", root.last(3, within="1m"))):
        one, two = _columns(of)
        there, filled = there_of(of), where(two.is_missing(), 1, two)
        for operator in OPERATORS:
            for k, params in enumerate(parameters(operator)[:2]):
                label = f"{name}_{operator.name}_{len(operator.inputs)}_{k}"
                if operator.shape in EVENT_SHAPES:
                    made[label] = called(operator, (there, filled), params)
                    made[f"{label}_gaps"] = called(operator, (one, two), params)
                    if not k:
                        made[f"{label}_where"] = called(of_chosen(operator), (there, filled)[: len(operator.inputs)], params, two > 1)
                elif operator.shape in POINT_SHAPES:
                    seen = called(operator, (one, root.window("5s").present), params)
                    made[label] = where(seen.is_missing(), 0, seen).sum()
                    made[f"{label}_last"] = seen.last()
    made["seen"] = where(one.at(trades.window("10s")).is_missing(), -1, one.at(trades.window("10s"))).sum()
    made["fading"] = there_of(root.window("2m")).fading_mean("10s") - where(root.window("10s").count() > 0, 1, 0)
    made["back"] = made["short_count_1_0"].sum(3) + made["long_sum_1_0"].lag(2)
    return FeatureSet("laws_v1", made, {"SOME": made["short_count_1_0"] > 0})


SUBJECTS = {
    "book_v1": book_v1.build(),
    "short": book_v1.build("20s", "5s", prevailing="1s", levels=2, amount=3.0),
    **{stream: over(stream) for stream in ("trades", "quotes", "books")},
}
over_every_subject = pytest.mark.parametrize("feature_set", SUBJECTS.values(), ids=SUBJECTS)


@over_every_subject
@given(market=markets(), other=markets(), share=st.floats(0, 1))
def test_what_is_known_at_the_close_or_later_changes_no_bit(feature_set: FeatureSet, market: Market, other: Market, share: float):
    closes = np.sort(market.closes)
    close = closes[round(share * (len(closes) - 1))]
    before = market.points_where(lambda table: known(table) < close)
    after = other.points_where(lambda table: known(table) >= close)
    tables = {stream: pa.concat_tables([table, _renumbered(after.points[stream])]) for stream, table in before.points.items()}
    whole = market.vectors(feature_set)
    past = whole.ts + STEP <= close
    for changed in (before, replace(market, points=tables)):
        assert_same(feature_set, changed.vectors(feature_set).where(past), whole.where(past))


def _renumbered(table: pa.Table) -> pa.Table:
    return table.set_column(table.schema.get_field_index("seq"), "seq", pc.add(table["seq"], 10_000))


@over_every_subject
@given(market=markets(), share=st.floats(0, 1))
def test_points_and_bars_before_what_a_vector_reaches_change_no_bit(feature_set: FeatureSet, market: Market, share: float):
    opens = np.sort(micros(market.bars["ts"]))
    start = opens[round(share * (len(opens) - 1))]
    whole = market.vectors(feature_set)
    kept = market.bars_where(micros(market.bars["ts"]) >= start)
    for stream, reach in feature_set.reaches.items():
        first = start + STEP - reach.length
        table = kept.points[stream]
        kept = replace(kept, points=kept.points | {stream: table.filter(pa.array(known(table) >= first))})
    later = kept.vectors(feature_set)
    full = np.concatenate([np.arange((later.instrument == code).sum()) >= feature_set.lookback - 1 for code in range(len(NAMES))])
    assert_same(feature_set, later.where(full), _same_rows(whole, later).where(full))


def _same_rows(whole: Vectors, part: Vectors) -> Vectors:
    keys = set(zip(part.instrument.tolist(), part.ts.tolist(), strict=True))
    return whole.where(np.array([key in keys for key in zip(whole.instrument.tolist(), whole.ts.tolist(), strict=True)], bool))


@over_every_subject
@given(market=markets(), rows=st.integers(1, 40), threads=st.sampled_from([1, 2]), seed=SEEDS)
def test_any_split_any_order_and_the_last_bars_alone_give_the_same_bits(
    feature_set: FeatureSet, market: Market, rows: int, threads: int, seed: int
):
    whole = market.vectors(feature_set)
    assert_same(feature_set, market.vectors(feature_set, threads, rows), whole)
    rng = np.random.default_rng(seed)
    shuffled = {stream: table.take(pa.array(rng.permutation(len(table)))) for stream, table in market.points.items()}
    assert_same(feature_set, replace(market, points=shuffled).vectors(feature_set), whole)
    panel = market.panel(feature_set)
    tail = panel.take_last(feature_set.lookback)
    codes = [NAMES.index(name) for name in sort_bars(market.bars).instruments.to_pylist()]
    live = vectors_of_panel(planned(feature_set), tail, codes)
    assert_same(feature_set, live.where(_last(tail.offsets)), whole.where(_last(panel.offsets)))


def _last(offsets: np.ndarray) -> np.ndarray:
    mask = np.zeros(offsets[-1], bool)
    mask[offsets[1:][np.diff(offsets) > 0] - 1] = True
    return mask


@over_every_subject
@given(market=markets(), seed=SEEDS, what=st.sampled_from(["gone", "changed", "late"]))
def test_a_point_reaches_the_vectors_whose_windows_hold_it_and_no_other(feature_set: FeatureSet, market: Market, seed: int, what: str):
    rng = np.random.default_rng(seed)
    stream = str(rng.choice(sorted(feature_set.reaches)))
    table = market.points[stream]
    if not len(table):
        return
    hit = np.arange(len(table)) == rng.integers(len(table))
    name, times = table["instrument_id"].filter(pa.array(hit))[0].as_py(), [int(known(table)[hit][0])]
    other = table.filter(pa.array(~hit)) if what == "gone" else _other(table, hit, what)
    times += [] if what == "gone" else [int(known(other)[hit][0])]
    before, after = market.vectors(feature_set), replace(market, points=market.points | {stream: other}).vectors(feature_set)
    differs = (before.bits != after.bits).any(axis=1)
    instruments = pa.chunked_array([pa.array(NAMES).take(pa.array(before.instrument))])
    opens, closes = Times(instruments, before.ts), Times(instruments, before.ts + STEP)
    changes = [{"kind": stream, "instrument_id": name, "time": moment} for moment in times]
    reached, _ = Reach(opens, closes, feature_set.lookback, feature_set.reaches).of(pa.Table.from_pylist(changes, schema=CHANGES))
    assert not (differs & ~reached).any(), f"{stream} of {name} at {times} change {instruments} at {before.ts[differs & ~reached]}"


def _other(table: pa.Table, hit: Bools, what: str) -> pa.Table:
    """The table with another point in the place of one: with other numbers, or known later."""
    rows = table.to_pylist()
    row = rows[int(hit.argmax())]
    if what == "late":
        row["available_at"] = (row["available_at"] or row["ts"]) + 37 * (row["ts"].resolution * SECOND)
    for name in ("price", "size", "bid", "ask_size"):
        if what == "changed" and row.get(name) is not None:
            row[name] *= 2
    for name in ("bid_sizes", "ask_prices"):
        if what == "changed" and name in row:
            row[name] = [3 * value for value in row[name]]
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_a_window_holds_its_beginning_and_not_its_end():
    table = made_up(1, 1, 0).bars.slice(0, 1)
    close = int(micros(table["ts"])[0]) + STEP
    at = [close - 10 * SECOND - 1, close - 10 * SECOND, close - 1, close]
    rows = [{"instrument_id": "A", "ts": moment, "seq": 0, "price": 1.0, "size": 2.0**k} for k, moment in enumerate(at)]
    market = Market(table, {"trades": pa.Table.from_pylist(rows, schema=SCHEMAS["trades"])})
    found = market.vectors(FeatureSet("edges", {"volume": trades.window("10s").size.sum()}))
    assert found.bits[0, 0] == np.float64(6.0).view(np.int64)


def test_constants_and_presence_can_be_seen_from_other_points():
    market = made_up(3, 5, 60)
    of = trades.window("1m")
    seen = quotes.window("1m").present.at(of)
    numbers = FeatureSet("present", {"seen": seen.count(), "unseen": quotes.window("1m").mid.at(of).is_missing().sum() + constant(0)})
    assert market.vectors(numbers).bits.any()
