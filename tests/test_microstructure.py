"""`book_v1` on real trades, quotes and order books, held to a program in plain Python; and what bad input gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from asof import FeatureSet, books, compute, leakcheck, quotes, trades
from asof.errors import DataError
from asof.features.expression import Expr
from asof.features.library import SHIPPED
from asof.features.library import microstructure as micro
from asof.jobs.backfill import backfill
from asof.jobs.leakcheck import stored, stored_market
from asof.jobs.verify import verify
from asof.jobs.work import Work
from asof.stores.store import BARS_TABLE, Selection, Store
from tests.market_data import MINUTE, NOW, SECOND, real_market, rows_of
from tests.market_oracle import Instrument, amihud

BOOK_V1 = SHIPPED["book_v1"]
START = datetime(2024, 3, 1, 14, 30, tzinfo=UTC)
OF_BARS = {"MISSING_OHLCV", "INSUFFICIENT_OHLCV", "TIMESTAMP_MISMATCH"}
REAL = [("1m", "BAC", MINUTE), ("1s", "BTCUSDT", SECOND)]


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(real_market(shared_data, tmp_path_factory.mktemp("cut"))) as store:
        store.register(BOOK_V1, NOW)
        yield store


@pytest.mark.parametrize(("timeframe", "name", "step"), REAL, ids=["BAC", "BTCUSDT"])
def test_every_feature_and_flag_is_what_plain_python_gives_of_real_data(real: Store, timeframe: str, name: str, step: int):
    work = Work(real, BOOK_V1, timeframe, NOW, "test")
    backfill(work)
    market, seen = Instrument(**rows_of(real, name)), set[str]()
    for some in real.read(work.table, Selection(timeframe)):
        for vector in some.to_pylist():
            close = round(vector["ts"].timestamp() * 1_000_000) + step
            for feature, wanted in market.vector(close).items():
                near = wanted if wanted is None else pytest.approx(wanted, rel=1e-11, abs=1e-15)
                assert vector[feature] == near, (feature, vector["ts"])
                seen |= {feature} if wanted else set()
            assert set(vector["quality_flags"]) - OF_BARS == market.flags(close)
    needed = {f for f in BOOK_V1.features if name == "BTCUSDT" or not f.endswith(("_5", "_5_1m", "_buy", "_sell"))}
    assert seen >= needed - {"amihud_20", "roll_spread_1m"}, "every feature had something to say"
    assert all(found.right for found, _ in verify(work))


def test_amihud_is_what_plain_python_gives(real: Store):
    work = Work(real, BOOK_V1, "1m", NOW, "test")
    bars = pa.concat_tables(real.read(BARS_TABLE, Selection("1m"))).to_pylist()
    vectors = work.vectors(pa.concat_tables(real.read(BARS_TABLE, Selection("1m"))), Selection(instruments=("BAC",))).to_pylist()
    wanted = amihud(bars, rows_of(real, "BAC")["trades"], MINUTE)[20:]
    assert len(wanted) > 10
    assert [vector["amihud_20"] for vector in vectors[20:]] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("timeframe", "name", "step"), REAL, ids=["BAC", "BTCUSDT"])
def test_nothing_leaks(real: Store, timeframe: str, name: str, step: int):
    bars, events, actions = stored(real, timeframe, (name,), bars=30)
    market = stored_market(real, bars, timeframe)
    found = leakcheck(BOOK_V1, bars, events, actions, **market, timeframe=timeframe, cuts=6)
    assert found.clean, found.findings
    assert found.compared


def test_the_check_finds_what_looks_at_trades_behind_the_close(real: Store):
    bars, events, actions = stored(real, "1s", ("BTCUSDT",), bars=20)

    def tomorrow(bars: Any, trades: Any) -> Any:
        counted = [(trades["ts"] <= ts + timedelta(seconds=5)).sum() for ts in bars["ts"]]
        return bars[["instrument_id", "ts"]].assign(trades_so_far=counted)

    market = stored_market(real, bars, "1s")
    found = leakcheck(tomorrow, bars, events, actions, **market, timeframe="1s", cuts=6)
    assert {f.check for f in found.findings} >= {"truncated", "late"}


def bar_at(second: float) -> dict[str, object]:
    return {"instrument_id": "X", "ts": START + timedelta(seconds=second), "close": 1.0}


def rows(*points: tuple[float, dict[str, object]]) -> pa.Table:
    """Points of one instrument at seconds, numbered as they come."""
    made = [{"instrument_id": "X", "ts": START + timedelta(seconds=at), "seq": k} | row for k, (at, row) in enumerate(points)]
    return pa.Table.from_pylist(made) if made else pa.table({"instrument_id": pa.array([], pa.string())})


def asked(expression: Expr, **market: pa.Table) -> float | None:
    """The expression at a bar of one minute."""
    table = pa.Table.from_pylist([bar_at(0)])
    return compute(FeatureSet("asked", {"x": expression}), table, timeframe="1m", **market).to_pylist()[0]["x"]


def trade(price: float, size: float = 1.0, side: float | None = None) -> dict[str, object]:
    return {"price": price, "size": size, "side": side}


def quote(bid: float | None, ask: float | None, bid_size: float | None = 1.0, ask_size: float | None = 1.0) -> dict[str, object]:
    return {"bid": bid, "bid_size": bid_size, "ask": ask, "ask_size": ask_size}


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]], gap: bool = False) -> dict[str, object]:
    sides = {"bid": bids, "ask": asks}
    return {
        f"{side}_{what}": [level[k] for level in levels] for side, levels in sides.items() for k, what in enumerate(("prices", "sizes"))
    } | {"gap": gap}


QUOTES = quotes.window("1m")
LAST = quotes.last(1, within="1m")
TRADES = trades.window("1m")
BOOKS = books.last(1, within="1m")


@pytest.mark.parametrize(
    ("expression", "given", "wanted"),
    [
        pytest.param(LAST.mid.last(), [quote(1.0, 2.0)], 1.5, id="a mid"),
        pytest.param(LAST.spread.last(), [quote(2.0, 2.0)], 0.0, id="a locked market has a spread of 0"),
        pytest.param(LAST.spread.last(), [quote(3.0, 2.0)], -1.0, id="a crossed one a negative one"),
        pytest.param(LAST.crossed.last(), [quote(2.0, 2.0)], 0.0, id="a locked market is not crossed"),
        pytest.param(LAST.mid.last(), [quote(1.0, 2.0), quote(None, 2.0)], None, id="the last quote has no bid"),
        pytest.param(micro.average(QUOTES.mid), [quote(1.0, 2.0), quote(None, 2.0)], 1.5, id="a mean passes over it"),
        pytest.param(micro.average(QUOTES.mid), [quote(None, 2.0)], None, id="where none has a mid, there is no mean"),
        pytest.param(LAST.microprice.last(), [quote(1.0, 2.0, 3.0, 1.0)], 1.75, id="the microprice leans to the thinner side"),
        pytest.param(LAST.microprice.last(), [quote(1.0, 2.0, 0.0, 0.0)], None, id="sizes of 0 are unknown"),
        pytest.param(LAST.mid.last(), [quote(1.0, 2.0, 0.0, 0.0)], 1.5, id="and the prices there"),
        pytest.param(LAST.imbalance.last(), [quote(1.0, 2.0, 3.0, 1.0)], 0.5, id="an imbalance"),
        pytest.param(micro.order_flow_imbalance(QUOTES), [quote(1.0, 2.0, 5.0, 7.0), quote(1.0, 2.0, 8.0, 6.0)], 4.0, id="flow by sizes"),
        pytest.param(micro.order_flow_imbalance(QUOTES), [quote(1.0, 3.0, 5.0, 7.0), quote(2.0, 4.0, 8.0, 6.0)], 15.0, id="flow by prices"),
        pytest.param(micro.order_flow_imbalance(QUOTES), [quote(1.0, 3.0)], 0.0, id="one quote alone is no flow"),
        pytest.param(micro.order_flow_imbalance(QUOTES), [quote(1.0, 3.0), quote(None, 3.0)], 0.0, id="nor is one that lacks a side"),
        pytest.param(micro.realised_volatility(QUOTES), [quote(1.0, 3.0), quote(1.0, 3.0)], 0.0, id="a mid that stays"),
        pytest.param(micro.realised_volatility(QUOTES), [quote(1.0, 3.0)], None, id="one mid alone does not move"),
    ],
)
def test_quotes(expression: Expr, given: list[dict[str, object]], wanted: float | None):
    assert asked(expression, quotes=rows(*((10.0 + k, row) for k, row in enumerate(given)))) == wanted


@pytest.mark.parametrize(
    ("expression", "given", "wanted"),
    [
        pytest.param(BOOKS.depth(2).last(), book([(9, 1), (8, 2)], [(10, 3), (11, 4)]), 10.0, id="depth"),
        pytest.param(BOOKS.imbalance(2).last(), book([(9, 1), (8, 2)], [(10, 3), (11, 4)]), -0.4, id="imbalance"),
        pytest.param(BOOKS.depth(3).last(), book([(9, 1), (8, 2)], [(10, 3), (11, 4)]), None, id="a short book has no depth"),
        pytest.param(BOOKS.vwap_to_depth(5).last(), book([(9, 1)], [(10, 3), (11, 4)]), 10.4, id="what buying 5 costs"),
        pytest.param(BOOKS.vwap_to_depth(-2).last(), book([(9, 1), (8, 2)], [(10, 3)]), 8.5, id="what selling 2 gives"),
        pytest.param(BOOKS.vwap_to_depth(7.5).last(), book([(9, 1)], [(10, 3), (11, 4)]), None, id="more than there is"),
        pytest.param(BOOKS.vwap_to_depth(7).last(), book([(9, 1)], [(10, 3), (11, 4)]), 74 / 7, id="just what there is"),
        pytest.param(BOOKS.mid.last(), book([], [(10, 3)]), None, id="an empty side"),
        pytest.param(BOOKS.mid.last(), book([(9, 1)], [(10, 3)]), 9.5, id="the best level"),
        pytest.param(BOOKS.gap.last(), book([(9, 1)], [(10, 3)], gap=True), 1.0, id="a gap"),
    ],
)
def test_books(expression: Expr, given: dict[str, object], wanted: float | None):
    assert asked(expression, books=rows((10.0, given))) == wanted


SIGN = micro.trade_sign(TRADES, quotes.window("10s"), within="20s")


@pytest.mark.parametrize(
    ("given", "quoted", "wanted"),
    [
        pytest.param([(10, trade(5.0, side=-1.0))], [(9, quote(1.0, 2.0))], -1.0, id="the source says it"),
        pytest.param([(10, trade(1.9))], [(9, quote(1.0, 2.0))], 1.0, id="above the middle"),
        pytest.param([(10, trade(1.1))], [(9, quote(1.0, 2.0))], -1.0, id="below the middle"),
        pytest.param([(10, trade(1.1))], [(9, quote(1.0, 2.0)), (10, quote(0.1, 0.2))], -1.0, id="a quote of the same moment is not seen"),
        pytest.param([(9, trade(1.4)), (10, trade(1.5))], [(8, quote(1.0, 2.0))], 1.0, id="at the middle the tick test"),
        pytest.param([(10, trade(1.5))], [(9, quote(1.0, 2.0))], None, id="at the middle, and no trade before"),
        pytest.param([(8, trade(1.6)), (9, trade(1.5)), (10, trade(1.5))], [], -1.0, id="a price that stays keeps its tick"),
        pytest.param([(8, trade(1.4)), (29, trade(1.5))], [], None, id="the trade before is too long ago"),
        pytest.param([(9, trade(1.4)), (20.5, trade(1.5))], [(10, quote(2.0, 3.0))], 1.0, id="the quote is too old, the tick is not"),
        pytest.param([(9, trade(1.4)), (20, trade(1.5))], [(10, quote(2.0, 3.0))], -1.0, id="the quote is just not too old"),
    ],
)
def test_signs(given: list[tuple[float, dict[str, object]]], quoted: list[tuple[float, dict[str, object]]], wanted: float | None):
    newest = micro.trade_sign(trades.last(1, within="1m"), quotes.window("10s"), within="20s").last()
    assert asked(newest, trades=rows(*given), **({"quotes": rows(*quoted)} if quoted else {})) == wanted


@pytest.mark.parametrize(
    ("expression", "given", "wanted"),
    [
        pytest.param(micro.vwap(TRADES), [trade(1.0, 1.0), trade(2.0, 3.0)], 1.75, id="vwap"),
        pytest.param(
            micro.signed_volume(TRADES, TRADES.side), [trade(1.0, 2.0, 1.0), trade(1.0, 5.0, -1.0), trade(1.0)], -3.0, id="signed volume"
        ),
        pytest.param(micro.vpin(TRADES, TRADES.side, 2), [trade(1.0, 3.0, 1.0), trade(1.0, 1.0, -1.0)], 0.5, id="vpin parts trades"),
        pytest.param(micro.vpin(TRADES, TRADES.side, 1), [trade(1.0, 3.0, 1.0), trade(1.0, 1.0, -1.0)], 0.5, id="vpin of one bucket"),
        pytest.param(micro.vpin(TRADES, TRADES.side, 4), [trade(1.0, 3.0, 1.0), trade(1.0, 1.0, -1.0)], 1.0, id="vpin of whole trades"),
        pytest.param(micro.kyle_lambda(TRADES, TRADES.side), [trade(1.0), trade(1.5, 2.0, 1.0), trade(1.25, 1.0, -1.0)], 0.25, id="kyle"),
        pytest.param(micro.kyle_lambda(TRADES, TRADES.side), [trade(1.0, 1.0, 1.0)], None, id="one trade has no impact"),
        pytest.param(micro.roll_spread(TRADES), [trade(p) for p in (1.0, 1.5, 1.0, 1.5, 1.0, 1.5)], 1.0, id="prices that bounce"),
        pytest.param(micro.roll_spread(TRADES), [trade(p) for p in (1.0, 1.5, 1.5, 2.5, 4.5)], 0.0, id="prices that trend"),
        pytest.param(micro.roll_spread(TRADES), [trade(1.0), trade(2.0)], None, id="too few prices"),
        pytest.param(trades.last(2, within="1m").size.sum(), [trade(1.0, n) for n in (1.0, 2.0, 4.0)], 6.0, id="the last two"),
        pytest.param(trades.last(9, within="1m").size.sum(), [trade(1.0, n) for n in (1.0, 2.0, 4.0)], 7.0, id="fewer than asked for"),
        pytest.param(micro.effective_spread(TRADES, quotes.window("10s")), [trade(1.0)], None, id="no quote prevailed"),
    ],
)
def test_trades(expression: Expr, given: list[dict[str, object]], wanted: float | None):
    assert asked(expression, trades=rows(*((10.0 + k, row) for k, row in enumerate(given)))) == wanted


def test_empty_windows_are_missing_count_0_and_are_flagged():
    vector = compute(BOOK_V1, pa.Table.from_pylist([bar_at(0)]), timeframe="1m").to_pylist()[0]
    there = {name: vector[name] for name in BOOK_V1.features if vector[name] is not None}
    flows = {"order_flow_imbalance_10s", "order_flow_imbalance_1m", "signed_volume_10s", "signed_volume_1m", "volume_1m"}
    assert there == dict.fromkeys({*flows, "trade_count_1m", "quote_count_1m"}, 0.0)
    assert set(vector["quality_flags"]) >= {"NO_TRADES", "NO_QUOTES", "NO_BOOKS"}
    assert not set(vector["quality_flags"]) & {"CROSSED_BOOK", "BOOK_GAP", "SHORT_BOOK", "COMPUTATION_ERROR"}


def test_crossed_quotes_gaps_and_short_books_are_flagged():
    crossed, short = quote(3.0, 2.0), book([(9, 1)], [(10, 3)], gap=True)
    vector = compute(
        BOOK_V1, pa.Table.from_pylist([bar_at(0)]), quotes=rows((1, crossed), (2, quote(1.0, 2.0))), books=rows((3, short)), timeframe="1m"
    ).to_pylist()[0]
    assert set(vector["quality_flags"]) >= {"CROSSED_BOOK", "BOOK_GAP", "SHORT_BOOK"}
    assert (vector["depth_5"], vector["vwap_to_buy"], vector["vwap_to_sell"]) == (None, 10.0, 9.0)


def test_two_trades_of_one_place_are_refused():
    twice = pa.Table.from_pylist([{"instrument_id": "X", "ts": START, "seq": 1} | trade(price) for price in (1.0, 2.0)])
    with pytest.raises(DataError, match="two trades of X at 2024-03-01 14:30:00\\+00:00 have seq 1: number them in their order"):
        asked(TRADES.count(), trades=twice)


def test_points_of_one_moment_are_in_the_order_of_their_numbers():
    twice = pa.Table.from_pylist([{"instrument_id": "X", "ts": START, "seq": seq} | trade(price) for seq, price in ((2, 5.0), (1, 7.0))])
    assert asked(TRADES.price.last(), trades=twice) == 5.0
    assert asked(TRADES.price.first(), trades=twice) == 7.0
