"""The checks at the border of trades, quotes and order books: points in time, which a source orders by `ts` and `seq`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.records import Bools, Checked, Checks, blank, check_times, floats, one_chunk

SIDES = ("bid", "ask")


def check_trades(table: pa.Table) -> Checked:
    """Trades in the canonical schema: which rows can be used. A price and a size are there and above 0, a side is 1, -1 or null."""
    checks = Checks(len(table))
    table = _check_points(checks, table)
    for name in ("price", "size"):
        values = floats(table[name])
        checks.refuse(np.isnan(values), f"missing_{name}", f"{name} is missing")
        checks.refuse(np.isinf(values), "infinite_value", f"{name}={{}} is infinite", table[name])
        checks.refuse(values <= 0, f"{name}_not_positive", f"{name}={{}} is not above 0", table[name])
    side = floats(table["side"])
    checks.refuse(
        ~np.isnan(side) & (np.abs(side) != 1), "unknown_side", "side={} is neither 1 (the buyer was the aggressor) nor -1", table["side"]
    )
    return checks.finish(_without_nan(table, "side", np.isnan(side)))


def check_quotes(table: pa.Table) -> Checked:
    """Quotes in the canonical schema: which rows can be used.

    A side whose price is null, NaN, zero or below is empty, and has no size. A size may be missing, or 0, where a price is there: some
    sources have none. A bid above its ask is kept, for that is what was quoted.
    """
    checks = Checks(len(table))
    table = _check_points(checks, table)
    for name in SIDES:
        price, size = floats(table[name]), floats(table[f"{name}_size"])
        checks.refuse(np.isinf(price), "infinite_value", f"{name}={{}} is infinite", table[name])
        checks.refuse(np.isinf(size), "infinite_value", f"{name}_size={{}} is infinite", table[f"{name}_size"])
        checks.refuse(size < 0, "negative_size", f"{name}_size={{}} is negative", table[f"{name}_size"])
        empty = ~(price > 0)
        table = _without_nan(_without_nan(table, name, empty), f"{name}_size", empty | np.isnan(size))
    return checks.finish(table)


def check_books(table: pa.Table) -> Checked:
    """Books in the canonical schema: which rows can be used.

    Prices and sizes of a side are as many, none is missing, all are above 0, and the best price comes first. A side without levels is
    empty; one that is null is missing. A book whose best bid is at or above its best ask is kept. `gap` is false where it is null.
    """
    checks = Checks(len(table))
    table = _check_points(checks, table)
    for side, first in (("bid", "highest"), ("ask", "lowest")):
        prices, sizes = table[f"{side}_prices"], table[f"{side}_sizes"]
        absent = np.asarray(pc.or_(prices.is_null(), sizes.is_null()))
        checks.refuse(absent, "missing_levels", f"the {side} prices or sizes are missing; a side without levels is an empty list")
        counts = [np.asarray(pc.fill_null(pc.list_value_length(levels), 0)) for levels in (prices, sizes)]
        checks.refuse(counts[0] != counts[1], "levels_disagree", f"there are {side} prices {{}} but sizes {{}}", prices, sizes)
        for name, levels in (("prices", prices), ("sizes", sizes)):
            wrong = _any_in(levels, lambda values: ~((values > 0) & (values < np.inf)))
            checks.refuse(wrong, "level_not_positive", f"{side} {name} {{}} are not all above 0", levels)
        sign = -1.0 if side == "bid" else 1.0
        checks.refuse(_out_of_order(prices, sign), "levels_out_of_order", f"{side} prices {{}} do not begin with the {first}", prices)
    return checks.finish(_filled(table, "gap", pa.array(np.asarray(pc.fill_null(table["gap"], False)))))


def _check_points(checks: Checks, table: pa.Table) -> pa.Table:
    """What all points have in common; `available_at` is filled with `ts` where it is missing."""
    checks.refuse(blank(table["instrument_id"]), "empty_instrument", "instrument_id is empty")
    check_times(checks, table, "ts")
    check_times(checks, table, "available_at", required=False)
    checks.refuse(np.asarray(table["seq"].is_null()), "missing_seq", "seq is missing")
    if table["available_at"].null_count == len(table):
        return _filled(table, "available_at", one_chunk(table["ts"]))
    early = np.asarray(pc.fill_null(pc.less(table["available_at"], table["ts"]), False))
    why = "available_at={} is before ts={}, when it happened: two clocks that disagree; take both times from one of them"
    checks.refuse(early, "known_before_it_happened", why, table["available_at"], table["ts"])
    return _filled(table, "available_at", one_chunk(pc.coalesce(table["available_at"], table["ts"])))


def _filled(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)


def _without_nan(table: pa.Table, name: str, absent: Bools) -> pa.Table:
    """A column with nulls where it is absent."""
    if absent.sum() == table[name].null_count:
        return table
    return _filled(table, name, pa.array(floats(table[name]), mask=absent))


def _flat(levels: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The values of all lists end to end, NaN where null, and the row of each."""
    lists = one_chunk(levels)
    return floats(pc.list_flatten(lists)), np.asarray(pc.list_parent_indices(lists)).astype(np.int64)


def _any_in(levels: pa.ChunkedArray, wrong: Callable[[NDArray[np.float64]], Bools]) -> Bools:
    values, rows = _flat(levels)
    return np.bincount(rows[wrong(values)], minlength=len(levels)) > 0


def _out_of_order(levels: pa.ChunkedArray, sign: float) -> Bools:
    values, rows = _flat(levels)
    bad = (np.diff(rows) == 0) & ~(np.diff(values * sign) > 0)
    return np.bincount(rows[1:][bad], minlength=len(levels)) > 0
