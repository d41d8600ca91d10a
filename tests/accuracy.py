"""Every row of the page on accuracy: each operator, indicator and set, who else computes it, and how far apart the two are on real data.

`scripts/measure_accuracy.py` writes the rows into the page, and the tests hold them to their bounds and the page to being complete.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from asof.features.library import SHIPPED
from asof.features.library.alpha import BAR_FACTORS, DAYS, PRICES, WINDOWS
from asof.operators import EVENT_SHAPES, Operator, Shape
from tests.market_data import real_differences
from tests.oracles import (
    FINITE,
    INDICATORS,
    OPERATORS,
    Oracle,
    Table,
    across_differences,
    alpha158_differences,
    golden_differences,
    series,
)
from tests.oracles_points import ON_POINTS, point_differences
from tests.oracles_sessions import session_differences
from tests.oracles_sets import SETS, Found
from tests.oracles_within import WITHIN, WITHIN_SHAPES, higher_differences


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    name: str
    source: str
    difference: float
    bound: float
    values: int


MADE_OF = {
    "total": "signed_volume_1m",
    "average": "spread_mean_1m",
    "trade_sign": "signed_volume_1m",
    "signed_volume": "signed_volume_1m",
    "vwap": "vwap_1m",
    "order_flow_imbalance": "order_flow_imbalance_1m",
    "vpin": "vpin_1m",
    "kyle_lambda": "kyle_lambda_1m",
    "amihud": "amihud_20",
    "roll_spread": "roll_spread_1m",
    "effective_spread": "effective_spread_1m",
    "realised_volatility": "realised_volatility_1m",
    "fading_sentiment": "sentiment_fading_1d",
    "sentiment_pressure": "sentiment_pressure_1d",
    "hours_since": "hours_since_earnings",
    "repeats": "repeat_count_1d",
    "novelty": "novelty_1d",
    "reposts": "repost_count_1d",
    "surprise": "sentiment_surprise_20",
}
"""The functions of `asof.features.library.microstructure` and `.news`, with the feature of `book_v1` or `fs_v2` that each makes."""


def row_name(operator: Operator) -> str:
    """How the page calls an operator, with what tells it from others of its name."""
    more: Iterable[str] = ()
    if operator.shape in EVENT_SHAPES:
        more = (name for name in operator.inputs[1:] if name != "time")
    elif operator.shape is Shape.PRESENT:
        more = ("min_count",)
    elif operator.key == "ewm/2":
        more = ("gain",)
    return ", ".join([operator.name, *more])


def section_of(operator: Operator) -> str:
    """Under which heading the page has an operator."""
    if operator.shape in WITHIN_SHAPES:
        return "Operators within a bar"
    if operator in ON_POINTS:
        return "Operators over points"
    if operator.shape is Shape.STAGED:
        return "Operators over higher timeframes"
    return "Operators across instruments" if operator.kind == "across" else "Operators over bars"


def of_tables(oracles: Mapping[str, Oracle], tables: list[Table]) -> Iterator[Row]:
    for name, oracle in oracles.items():
        found = [oracle.difference(table) for table in tables]
        yield Row(name, oracle.source, max(d for d, _ in found), oracle.bound, sum(n for _, n in found))


def rows(folder: Path) -> dict[str, list[Row]]:
    """The rows of the page by their headings."""
    tables = [table for _, table in series(folder)]
    within = {name.partition("/")[0]: oracle for name, oracle in WITHIN.items()}
    points = {row_name(o): found for o, (_, *found) in zip(ON_POINTS, point_differences(folder), strict=True)}
    with tempfile.TemporaryDirectory() as work:
        market = [Row(name, "plain Python", apart, FINITE, n) for name, apart, n in real_differences(folder, Path(work))]
    found = {
        "Operators within a bar": [*of_tables(within, tables)],
        "Operators over bars": [*of_tables(OPERATORS, tables)],
        "Operators over points": [Row(name, "plain Python", *one) for name, one in points.items()],
        "Operators over higher timeframes": [Row(name.partition("/")[0], "pandas", *one) for name, *one in higher_differences(folder)],
        "Operators across instruments": [Row(name, "pandas", *one) for name, *one in across_differences(folder)],
        "Indicators": [*of_tables(INDICATORS, tables), *(Row(name, "pandas", *one) for name, *one in session_differences(folder))],
        "Goldens of Stock.Indicators": [Row(f"{i} {f}", "Stock.Indicators", *one) for i, f, *one in golden_differences(folder)],
        "Features of book_v1": market,
        "Factors of alpha158": [Row(name, "pandas", apart, FINITE, n) for name, apart, n in alpha158_differences(folder)],
    }
    of_sets = {version: oracle.found(folder) for version, oracle in SETS.items()}
    for version in ("fs_v1", "fs_v2", "cross_v1"):
        found[f"Features of {version}"] = [*of_set(version, of_sets[version])]
    grouped = {p: [f"{p}{k}" for k in range(DAYS)] for p in (*PRICES, "VOLUME")}
    by_price = {price: reduce(Found.__or__, (of_sets["alpha360"][name] for name in names)) for price, names in grouped.items()}
    found["Factors of alpha360"] = [*of_set("alpha360", by_price)]
    features = {row.name: row for name in ("book_v1", "fs_v2") for row in found[f"Features of {name}"]}
    found["Functions of microstructure and news"] = [of_function(name, features[feature]) for name, feature in MADE_OF.items()]
    return {"Sets": [*sets(found)], **found}


def of_set(version: str, found: Mapping[str, Found]) -> Iterator[Row]:
    for name, one in found.items():
        yield Row(name, SETS[version].source, one.difference, SETS[version].bound, one.values)


def of_function(name: str, feature: Row) -> Row:
    return Row(name, f"{feature.source}, as `{feature.name}`", feature.difference, feature.bound, feature.values)


def sets(found: Mapping[str, list[Row]]) -> Iterator[Row]:
    """A row for each set: the largest difference of all of its features."""
    indicators = {INDICATORS[row.name].expression: row for row in found["Indicators"] if row.name in INDICATORS}
    of_ta = [indicators[expression] for expression in SHIPPED["ta_v1"].features.values()]
    parts = {f"{kind} of {version}": version for version in SHIPPED for kind in ("Features", "Factors")}
    by_set = {"ta_v1": of_ta} | {version: found[heading] for heading, version in parts.items() if heading in found}
    for version in SHIPPED:
        sources = " and ".join(dict.fromkeys(row.source.split()[0].rstrip(",") for row in by_set[version]))
        source = SETS[version].source if version in SETS else {"book_v1": "plain Python", "alpha158": "pandas"}.get(version, sources)
        mine = by_set[version]
        yield Row(version, source, max(r.difference for r in mine), max(r.bound for r in mine), sum(r.values for r in mine))


def covered(version: str, names: set[str]) -> set[str]:
    """The features of a set that rows of these names are about."""
    features = set(SHIPPED[version].features)
    if version == "alpha360":
        return {name for name in features if name.rstrip("0123456789") in names}
    if version == "alpha158":
        rolling = {f"{name}{length}" for name in names - set(BAR_FACTORS) for length in WINDOWS}
        return features & (rolling | names & set(BAR_FACTORS))
    return features & names


__all__ = ["MADE_OF", "Row", "covered", "row_name", "rows", "section_of"]
