"""Bars and label sets for the tests of labels, and what the labels must be, in plain Python."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import strategies as st

from asof.features.expression import bars
from asof.features.label_set import LabelSet, ahead, direction, forward_return, triple_barrier

RET = bars.close / bars.close.lag(1) - 1
VOL = RET.std(3)
N = 4
LABELS = LabelSet(
    "labels_v1",
    {
        "ret": forward_return(N),
        "log": forward_return(2, log=True),
        "side": direction(N, 0.01),
        "calm": direction(2, VOL),
        "vol": ahead(RET.std(3), 3),
        "fixed": triple_barrier(bars.close, N, upper=0.03, lower=0.02),
        "scaled": triple_barrier(bars.close, 3, upper=1.5, lower=1, volatility=VOL),
        "extreme": triple_barrier(bars.close, N, upper=0.03, lower=0.03, high=bars.high, low=bars.low),
    },
)
START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

Row = dict[str, float | None]
prices = st.one_of(st.sampled_from([100.0, 101.0, 103.0, 98.0, 97.0]), st.sampled_from([100.0, 104.0]), st.none())
histories = st.lists(st.lists(prices, max_size=30), min_size=1, max_size=3)


def table(closes: list[list[float | None]]) -> pa.Table:
    """Daily bars of some instruments, whose highs and lows lie 1 % around the close."""
    rows = [
        {"instrument_id": f"I{k}", "ts": START + i * DAY, "close": c, "high": c and c * 1.01, "low": c and c * 0.99}
        for k, one in enumerate(closes)
        for i, c in enumerate(one)
    ]
    schema = pa.schema(
        [("instrument_id", pa.string()), ("ts", pa.timestamp("us", "UTC")), *((n, pa.float64()) for n in ("close", "high", "low"))]
    )
    return pa.Table.from_pylist(rows, schema)


def ret(x: list[float | None], i: int, n: int) -> float | None:
    """The return from bar i to the bar n later."""
    if not 0 <= i < len(x) - n:
        return None
    before, after = x[i], x[i + n]
    return None if before is None or after is None else after / before - 1


def std(x: list[float | None], i: int) -> float | None:
    """The deviation of the three returns up to bar i, as a loop from the oldest to the newest adds it up."""
    returns = [ret(x, k - 1, 1) for k in range(i - 2, i + 1)]
    if i < 3 or any(r is None for r in returns):
        return None
    a, b, c = (r for r in returns if r is not None)
    mean = (a + b + c) / 3
    return math.sqrt(((a - mean) * (a - mean) + (b - mean) * (b - mean) + (c - mean) * (c - mean)) / 2)


def side(r: float | None, limit: float | None) -> float | None:
    if r is None or limit is None:
        return None
    return 1.0 if r > limit else -1.0 if r < -limit else 0.0


def barrier(
    x: list[float | None], i: int, n: int, upper: float, lower: float, unit: float | None, reach: float = 0.0
) -> tuple[float, float, int] | None:
    """The label, the return and the bar of the touch; `reach` is how far the extremes lie about the close."""
    if i + n >= len(x) or x[i] is None or unit is None or unit <= 0:
        return None
    base = x[i]
    assert base is not None
    for k in range(i + 1, i + n + 1):
        close = x[k]
        if close is None:
            return None
        up = close * (1 + reach) / base - 1 >= upper * unit
        down = close * (1 - reach) / base - 1 <= -lower * unit
        if up and down:
            return None
        if up or down or k == i + n:
            return float(up - down), close / base - 1, k
    raise AssertionError("the last bar ends it")


def expected(x: list[float | None]) -> list[dict[str, object]]:
    """Every column of `LABELS` but the spans, for one instrument."""
    return [_row(x, i) for i in range(len(x))]


def _row(x: list[float | None], i: int) -> dict[str, object]:
    close = lambda k: START + (k + 1) * DAY  # noqa: E731  # when bar k could be known
    ratio = ret(x, i, 2)
    simple = {
        "ret": (ret(x, i, N), N),
        "log": (None if ratio is None else math.log(1 + ratio), 2),
        "side": (side(ret(x, i, N), 0.01), N),
        "calm": (side(ret(x, i, 2), std(x, i)), 2),
        "vol": (std(x, i + 3) if i + 3 < len(x) else None, 3),
    }
    row: dict[str, object] = {}
    for name, (value, n) in simple.items():
        row |= {name: value, f"{name}_until": None if value is None else close(i + n)}
    barriers = {
        "fixed": barrier(x, i, N, 0.03, 0.02, 1.0),
        "scaled": barrier(x, i, 3, 1.5, 1, std(x, i)),
        "extreme": barrier(x, i, N, 0.03, 0.03, 1.0, 0.01),
    }
    for name, found in barriers.items():
        value, at_touch, k = found or (None, None, None)
        row |= {name: value, f"{name}_return": at_touch}
        row |= {f"{name}_touch": None if k is None else START + k * DAY, f"{name}_until": None if k is None else close(k)}
    return row
