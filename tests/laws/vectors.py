"""What the laws compare: every bit of the vectors that the engine makes of a market."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from asof.engine.panel import Panel
from asof.engine.plan import Plan, plan
from asof.engine.run import run
from asof.features.expression import Expr, bars
from asof.features.feature_set import FeatureSet
from asof.features.library import SHIPPED, technical
from asof.operators import Operator
from tests.laws.markets import Market
from tests.operator_cases import RUN, expressions

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Vectors:
    """Vectors as whole numbers: the bits of each feature, then for each whether it is there, then flags and counts."""

    instrument: Ints
    ts: Ints
    bits: Ints

    def where(self, rows: Mask) -> Vectors:
        """The vectors where `rows` is true."""
        return Vectors(self.instrument[rows], self.ts[rows], self.bits[rows])


def vectors(feature_set: FeatureSet, market: Market, threads: int = 1, rows: int | None = None) -> Vectors:
    """The vectors of a market, sorted by instrument and time."""
    the_plan = planned(feature_set)
    return vectors_of_panel(the_plan, market.panel(the_plan), market.instruments, threads, rows)


def vectors_of_panel(the_plan: Plan, panel: Panel, instruments: list[int], threads: int = 1, rows: int | None = None) -> Vectors:
    """The vectors of a panel whose instruments are numbered so."""
    features = range(len(the_plan.feature_set.features))
    parts = [np.zeros((0, 2 * len(features) + 3), np.int64)]
    for block in run(the_plan, panel, threads, rows):
        count = block.stop - block.start
        columns = [block.features[k][0].view(np.int64) for k in features]
        for k in features:
            bitmap = block.features[k][1]
            there = np.ones(count, np.uint8) if bitmap is None else np.unpackbits(bitmap, count=count, bitorder="little")
            assert int(count - there.sum()) == block.features[k][2], "the number of missing values is told wrongly"
            columns.append(there.astype(np.int64))
        parts.append(np.column_stack([*columns, block.flags, block.event_count, block.ohlcv_count]))
    return Vectors(np.repeat(np.array(instruments, np.int64), np.diff(panel.offsets)), panel.ts, np.concatenate(parts))


def assert_same(feature_set: FeatureSet, found: Vectors, expected: Vectors) -> None:
    """Fail with the first vector that differs, and in what."""
    assert found.ts.tolist() == expected.ts.tolist()
    assert found.instrument.tolist() == expected.instrument.tolist()
    if np.array_equal(found.bits, expected.bits):
        return
    row, column = map(int, np.argwhere(found.bits != expected.bits)[0])
    values = found.bits[row : row + 1, column], expected.bits[row : row + 1, column]
    names = list(feature_set.features)
    if column < len(names):
        shown = " not ".join(repr(float(v.view(np.float64)[0])) for v in values)
        what = f"{names[column]} = {feature_set.features[names[column]]!r}: {shown}"
    else:
        rest = [*(f"presence of {n}" for n in names), "flags", "event_count", "ohlcv_count"]
        what = f"{rest[column - len(names)]}: {values[0][0]} not {values[1][0]}"
    raise AssertionError(f"instrument {found.instrument[row]}, ts {found.ts[row]}, {what}")


def expressions_of_columns(feature_set: FeatureSet) -> list[tuple[Expr, ...]]:
    """The expressions that each column of `Vectors.bits` follows from."""
    features = [(e,) for e in feature_set.features.values()]
    return [*features, *features, *[feature_set.roots] * 3]


@cache
def planned(feature_set: FeatureSet) -> Plan:
    """The plan of a feature set, made once."""
    return plan(feature_set)


def _set_of(operator: Operator) -> FeatureSet:
    made = expressions(operator)
    return FeatureSet("under_law", made, {f"flag_{name}": e > 0 for name, e in list(made.items())[:3]})


SESSIONS = FeatureSet(
    "sessions",
    {"vwap": technical.vwap_session(40), "since_open": technical.bars_since_open(15), "hidden": bars.close.cumulative(n=300).lag(2)},
)
ALONE = {name: shipped for name, shipped in SHIPPED.items() if not shipped.crosses}
SUBJECTS = {operator.key: _set_of(operator) for operator in RUN} | {"sessions": SESSIONS} | ALONE
"""What the laws are held against: a feature set around each operator, and every shipped one that looks at one instrument alone."""
