"""Across instruments: the language, every operator against plain Python, the laws over all of them, and pandas on real prices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asof
from asof import FeatureSet, across, bars, events
from asof.engine.sections import Sections, compiled, driver
from asof.engine.trial import tried_across
from asof.errors import DataError, DefinitionError
from asof.features.across import SECTION
from asof.features.expression import Expr
from asof.features.library import SHIPPED
from asof.operators import Operator
from asof.operators.sums import exact_sum
from asof.sources.sample import make_sample

gain = bars.close / bars.close.lag(2) - 1
index, within = across("index"), across("index", by="sector")
DAY = timedelta(days=1)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a name that is none": (lambda: across("S&P 500"), "across: 'S&P 500' must be a letter"),
    "a grouping that is none": (lambda: across(by=""), "across: '' must be a letter"),
    "an operator that is none": (lambda: index.ranks(gain), "across has no operator 'ranks'; did you mean 'rank'?"),
    "a constant": (lambda: index.rank(1), "rank looks at an expression over bars, not at 1"),
    "events": (lambda: index.rank(events.window("1h").sentiment), "not at events (reduce them first, such as .mean())"),
    "higher bars": (lambda: index.rank(bars.every("1h").close), "not at those of 1h (take .latest() of them first)"),
    "no number of buckets": (lambda: index.quantile(gain), "quantile takes across(...).quantile(x, n): n is not given"),
    "one bucket": (lambda: index.quantile(gain, 1), "quantile: n=1 must be at least 2"),
    "quantiles the wrong way round": (lambda: index.winsorize(gain, 0.9, 0.1), "winsorize: lower=0.9 is above upper=0.1"),
    "too many values": (lambda: index.rank(gain, 3), "rank takes across(...).rank(x), not 2 values"),
    "an unknown parameter": (lambda: index.zscore(gain, n=3), "zscore takes across(...).zscore(x, ddof=1), not n="),
    "a method of one instrument": (lambda: gain.zscore(1), "zscore looks across instruments: across(...).zscore(x)"),
    "a grouping said twice": (lambda: within.neutralise(gain, by="size"), "by='size', but the section is by 'sector': say it once"),
    "membership in all": (lambda: across().member, "member is of a universe alone: across('sp500').member"),
    "a window over adjusted prices": (lambda: index.demean(bars.adjusted.close).mean(3), "mean looks at earlier values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_at_across_is_refused_with_the_mend(name: str):
    wrong, told = REFUSED[name]
    with pytest.raises(DefinitionError) as error:
        wrong()
    assert told in str(error.value)


WRITTEN = {
    "across().rank(bars.close)": across().rank(bars.close),
    'across("index").winsorize(bars.close, 0.01, 0.99)': index.winsorize(bars.close, lower=0.01, upper=0.99),
    'across("index", by="sector").zscore(bars.close, ddof=0)': within.zscore(bars.close, ddof=0),
    'across(by="sector").demean(bars.close)': across(by="sector").neutralise(bars.close),
    'across("index", by="sector").demean(bars.close)': index.neutralise(bars.close, by="sector"),
    'across("index").neutralise(bars.close, bars.volume.log())': index.neutralise(bars.close, bars.volume.log()),
    'across("index").quantile(bars.close, 10).mean(5) - across().mean(bars.close)': index.quantile(bars.close, 10).mean(5)
    - across().mean(bars.close),
    'across("index").member.is_missing()': index.member.is_missing(),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_the_text_reads_back_to_the_same_expression(text: str):
    assert repr(WRITTEN[text]) == text
    assert FeatureSet.parse(f"feature set one\nfeature x = {text}\n").features["x"] is WRITTEN[text]


@pytest.mark.parametrize(
    "text", ["across(3).rank(bars.close)", 'across("a", "b").rank(bars.close)', "across().lag(bars.close, 1)", "across()"]
)
def test_a_text_that_is_no_such_expression_is_refused(text: str):
    with pytest.raises(DefinitionError):
        FeatureSet.parse(f"feature set one\nfeature x = {text}\n")


def test_a_set_tells_whom_it_looks_at():
    crossed = FeatureSet("crossed", {"x": within.rank(gain).mean(3)})
    assert (crossed.crosses, crossed.schemes, crossed.lookback) == (True, ("index", "sector"), 5)
    assert not FeatureSet("alone", {"x": gain}).crosses


Numbers = list[float]


def ranks(x: Numbers) -> Numbers:
    return [(sum(v < w for v in x) + (sum(v == w for v in x) + 1) / 2) / len(x) for w in x]


def buckets(x: Numbers, n: int) -> Numbers:
    return [1.0 + sum(v < w for v in x) * n // len(x) for w in x]


def winsorized(x: Numbers, lower: float, upper: float) -> Numbers:
    low, high = (float(np.quantile(x, q)) for q in (lower, upper))
    return [min(max(v, low), high) for v in x]


def deviations(x: Numbers) -> Numbers:
    return [float(Fraction(v) - sum(map(Fraction, x)) / len(x)) for v in x]


def zscores(x: Numbers, ddof: int) -> Numbers | None:
    if len(set(x)) == 1:
        return None
    spread = statistics.stdev(x) if ddof else statistics.pstdev(x)
    return [d / spread for d in deviations(x)]


def scaled(x: Numbers) -> Numbers | None:
    whole = math.fsum(map(abs, x))
    return [v / whole for v in x] if whole else None


def residuals(x: Numbers, y: Numbers) -> Numbers | None:
    if len(set(y)) == 1:
        return None
    dx, dy = ([Fraction(v) - sum(map(Fraction, z)) / len(z) for v in z] for z in (x, y))
    slope = sum(a * b for a, b in zip(dx, dy, strict=True)) / sum(b * b for b in dy)
    return [float(a - slope * b) for a, b in zip(dx, dy, strict=True)]


ORACLES: dict[str, tuple[Callable[..., Expr], Callable[..., Numbers | None], int]] = {
    "rank": (across().rank, ranks, 1),
    "quantile": (lambda x: across().quantile(x, 3), lambda x: buckets(x, 3), 1),
    "winsorize": (lambda x: across().winsorize(x, 0.1, 0.75), lambda x: winsorized(x, 0.1, 0.75), 1),
    "demean": (across().demean, deviations, 1),
    "zscore": (across().zscore, lambda x: zscores(x, 1), 2),
    "scale": (across().scale, scaled, 1),
    "mean": (across().mean, lambda x: [float(sum(map(Fraction, x)) / len(x))], 1),
    "std": (across().std, lambda x: [statistics.stdev(x)], 2),
    "count": (across().count, lambda x: [float(len(x))], 0),
}
"""For each operator an expression, what plain Python makes of the values (None: an error), and how few are too few."""
FOR_ALL = ("mean", "std", "count")
values = st.lists(
    st.one_of(
        st.none(), st.sampled_from([0.0, 1.0, math.inf]), st.integers(-9, 9).map(float), st.integers(-(10**9), 10**9).map(lambda n: n / 7)
    ),
    max_size=9,
)


def expected(name: str, x: list[float | None], others: list[float | None] | None = None) -> list[float | None]:
    """What an operator should answer: missing and errors stay what they are and take no part."""
    answer, fewest = (residuals, 2) if name == "neutralise" else ORACLES[name][1:]
    rows = [[v] if others is None else [v, others[k]] for k, v in enumerate(x)]
    own = [None if None in row else math.inf if math.inf in row else 0.0 for row in rows]
    there = [k for k, v in enumerate(own) if v == 0.0]
    columns = ([rows[i][k] for i in there] for k in range(1 if others is None else 2))
    found = answer(*columns) if there and len(there) >= fewest else []
    if name == "count":
        found = [float(len(there))]
    if name in FOR_ALL:
        one = None if len(there) < fewest else found[0] if found else None
        return [math.inf if v == math.inf else one for v in own]
    of = dict(zip(there, found or [], strict=False))
    return [v if v != 0.0 else None if len(there) < fewest else math.inf if found is None else of[k] for k, v in enumerate(own)]


def same(answers: list[float | None], wanted: list[float | None]) -> bool:
    """Whether answers agree, but for rounding."""
    if len(answers) != len(wanted) or [a is None for a in answers] != [b is None for b in wanted]:
        return False
    pairs = ((a, b) for a, b in zip(answers, wanted, strict=True) if a is not None and b is not None)
    return all(a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-11) for a, b in pairs)


@pytest.mark.parametrize("name", ORACLES)
@given(x=values)
@settings(max_examples=30)
def test_an_operator_answers_what_plain_python_answers(name: str, x: list[float | None]):
    answers = tried_across(ORACLES[name][0](bars.close + 0), close=x)
    assert same(answers, expected(name, x)), (answers, expected(name, x))


@given(data=st.data())
@settings(max_examples=30)
def test_what_is_left_of_a_regression_is_what_plain_python_leaves(data: st.DataObject):
    grid = st.one_of(st.none(), st.just(math.inf), st.integers(-9, 9).map(float))
    x = data.draw(st.lists(grid, max_size=9))
    y = data.draw(st.lists(grid, min_size=len(x), max_size=len(x)))
    answers = tried_across(across().neutralise(bars.close + 0, bars.open + 0), close=x, open=y)
    assert same(answers, expected("neutralise", x, y)), (answers, expected("neutralise", x, y))


@given(x=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), max_size=20), seed=st.integers(0, 99))
def test_a_sum_is_exact_whatever_the_order(x: list[float], seed: int):
    try:
        wanted = math.fsum(x)
    except OverflowError:
        return
    assert exact_sum(np.array(x)) == wanted == exact_sum(np.random.default_rng(seed).permutation(np.array(x)))


PARAMS: dict[str, tuple[float, ...]] = {"quantile": (3,), "winsorize": (0.1, 0.8), "zscore": (1,), "std": (0,)}


@pytest.mark.parametrize("operator", SECTION.values(), ids=lambda o: o.key)
@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_driver_gives_the_bits_of_the_interpreted_one(operator: Operator, seed: int):
    rng = np.random.default_rng(seed)
    rows, scale = 60, (1.0, 1e-3, 1e160, 1e306)[seed]
    spoiled = [rng.choice([np.nan, np.inf, 1.0], rows, p=[0.1, 0.1, 0.8]) for _ in operator.inputs[:-2]]
    inputs = tuple(np.where(of == 1.0, rng.integers(-20, 20, rows) * scale, of) for of in spoiled)
    params = tuple(p.kind(v) for p, v in zip(operator.params, PARAMS.get(operator.name, ()), strict=True))
    outs = [np.full(rows, np.nan) for _ in range(2)]
    order, starts = np.arange(rows)[::-1].copy(), np.array([0, 1, 9, 60])
    for drive, out in zip((compiled(operator), driver(operator)), outs, strict=True):
        with np.errstate(all="ignore"):
            drive(out, inputs, params, order, starts, operator.minimum)
    bits = [np.where(np.isnan(out), np.nan, out).view(np.int64).tolist() for out in outs]
    assert bits[0] == bits[1]


def every_operator(universe: asof.features.across.Across = within) -> dict[str, Expr]:
    """Each operator over a universe, and some inside of windows and of one another."""
    made = {}
    for (name, count), operator in SECTION.items():
        given_values = (gain,) if count == 1 else (gain, bars.close.std(3))
        made[name] = Expr(operator, (*given_values, *universe.rank(gain).inputs[-2:]), PARAMS.get(name, ()), "", "bars")
    made |= {"windowed": made["rank"].mean(3), "nested": across().rank(made["demean"].lag(1) + made["zscore"])}
    return made


LAWFUL = FeatureSet("lawful", every_operator(), {"FEW": within.count(gain) < 2})


def market(seed: int, names: int = 7, days: int = 40) -> tuple[pa.Table, pa.Table]:
    """Bars of instruments that come late, go early and have gaps, prices and whole days missing; and who is where and when."""
    rng = np.random.default_rng(seed)
    rows, members = [], []
    for k in range(names):
        begins, ends = (0, days) if k % 3 else sorted(rng.choice(days, 2, replace=False).tolist())
        for n in range(begins, ends):
            if rng.random() < 0.9:
                price = None if rng.random() < 0.05 else float(rng.integers(1, 6) if k < 3 else np.exp(rng.normal(3, 0.1)))
                rows.append({"instrument_id": f"I{k}", "ts": FIRST + n * DAY, "close": price})
        for scheme, kinds in (("index", ["in", "in", None]), ("sector", ["x", "y", None])):
            for n in np.unique(np.append(0, rng.integers(0, days, 3))).tolist():
                known = FIRST + (n + int(rng.integers(0, 4))) * DAY if rng.random() < 0.3 else None
                members.append(
                    {
                        "scheme": scheme,
                        "instrument_id": f"I{k}",
                        "ts": FIRST + n * DAY,
                        "value": kinds[rng.integers(0, 3)],
                        "available_at": known,
                    }
                )
    schema = asof.records.MEMBERSHIPS
    return pa.Table.from_pylist(rows), pa.Table.from_pylist(members, schema=schema)


def bits_of(
    feature_set: FeatureSet, table: pa.Table, members: pa.Table, threads: int = 1
) -> dict[tuple[str, datetime], tuple[object, ...]]:
    """Every vector by its key, its numbers as text that keeps their bits."""
    made = asof.compute(feature_set, table, memberships=members, timeframe="1d", threads=threads).to_pylist()
    names = [*feature_set.features, "quality_flags", "available_at", "ohlcv_count"]
    return {(row["instrument_id"], row["ts"]): tuple(repr(row[name]) for name in names) for row in made}


@pytest.mark.parametrize("feature_set", [LAWFUL, SHIPPED["cross_v1"]], ids=lambda s: s.version)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_comes_later_changes_a_bit(feature_set: FeatureSet, seed: int):
    table, members = market(seed)
    if feature_set.version == "cross_v1":
        table = with_all_prices(table)
    whole = bits_of(feature_set, table, members)
    for n in (9, 23, 31):
        at = FIRST + n * DAY
        early = table.filter(pa.compute.less_equal(table["ts"], pa.scalar(at)))
        told = pa.Table.from_pylist(
            [row for row in members.to_pylist() if max(row["ts"], row["available_at"] or row["ts"]) <= at], schema=members.schema
        )
        cut = bits_of(feature_set, early, told)
        assert cut == {key: row for key, row in whole.items() if key[1] <= at}


def with_all_prices(table: pa.Table) -> pa.Table:
    close = table["close"]
    for k, name in enumerate(("open", "high", "low", "volume")):
        table = table.append_column(name, pa.compute.multiply(close, 1 + (k - 2) * 0.01 if name != "low" else 0.9))
    return table.set_column(table.schema.get_field_index("high"), "high", pa.compute.multiply(close, 1.1))


@pytest.mark.parametrize("seed", range(3))
def test_neither_the_order_of_rows_nor_names_nor_threads_change_a_bit(seed: int, monkeypatch: pytest.MonkeyPatch):
    table, members = market(seed)
    whole = bits_of(LAWFUL, table, members)
    rng = np.random.default_rng(seed)
    other = {f"I{k}": f"J{n}" for k, n in enumerate(rng.permutation(7).tolist())}

    def renamed(rows: pa.Table) -> pa.Table:
        names = pa.array([other[name] for name in rows["instrument_id"].to_pylist()])
        shuffled = rows.set_column(rows.schema.get_field_index("instrument_id"), "instrument_id", names)
        return shuffled.take(pa.array(rng.permutation(len(rows))))

    found = bits_of(LAWFUL, renamed(table), renamed(members))
    assert {(other[name], ts): row for (name, ts), row in whole.items()} == found
    monkeypatch.setattr("asof.engine.sections.FEW_ROWS", 0)
    assert bits_of(LAWFUL, table, members, threads=3) == whole


def test_a_changed_bar_changes_the_vectors_of_its_sections_and_no_other():
    table, members = market(4)
    only = FeatureSet("only", {"x": within.rank(gain).mean(2)})
    rows = table.to_pylist()
    place = next(k for k, row in enumerate(rows) if row["instrument_id"] == "I4" and row["ts"] == FIRST + 20 * DAY)
    whole = bits_of(only, table, members)
    other = bits_of(only, pa.Table.from_pylist([row | {"close": 77.0} if k == place else row for k, row in enumerate(rows)]), members)
    times = sorted({ts for _, ts in whole})
    mine = [ts for name, ts in sorted(whole) if name == "I4" and ts >= FIRST + 20 * DAY]
    differ = {key for key in whole if whole[key][0] != other[key][0]}
    last = {name: [ts for n, ts in whole if n == name] for name, _ in whole}
    reached = {(name, ts) for name, all_ts in last.items() for at in mine[:3] for ts in [t for t in sorted(all_ts) if t >= at][:2]}
    assert differ <= reached
    assert times


def test_who_is_in_a_universe_is_what_was_known_when_the_bar_opened():
    table = pa.Table.from_pylist(
        [{"instrument_id": name, "ts": FIRST + n * DAY, "close": float(ord(name))} for n in range(8) for name in "AB"]
    )
    rows = [
        ("A", 0, "in", None),
        ("B", 2, "in", 4),  # in force since day 2, known on day 4
        ("B", 5, None, 7),  # left on day 5, known on day 7
        ("A", 6, None, 3),  # known in advance: counts from its day on
        ("C", 0, "in", None),  # has no bars
    ]
    names = ("scheme", "instrument_id", "ts", "value", "available_at")
    members = pa.Table.from_pylist(
        [dict(zip(names, ("index", n, FIRST + a * DAY, v, None if k is None else FIRST + k * DAY), strict=True)) for n, a, v, k in rows],
        schema=asof.records.MEMBERSHIPS,
    )
    made = asof.compute(
        FeatureSet("one", {"n": index.count(bars.close), "r": index.rank(bars.close)}), table, memberships=members, timeframe="1d"
    ).to_pandas()
    seen = made[made.instrument_id == "A"], made[made.instrument_id == "B"]
    assert [None if math.isnan(v) else v for v in seen[0].n] == [1, 1, 1, 1, 2, 2, None, None]
    assert [None if math.isnan(v) else v for v in seen[1].r] == [None, None, None, None, 1.0, 1.0, 1.0, None]


def test_memberships_that_are_missing_or_disagree_are_told():
    table, members = market(0)
    with pytest.raises(DataError, match="looks across index, sector: give the memberships"):
        asof.compute(LAWFUL, table, timeframe="1d")
    twice = pa.concat_tables([members, members.set_column(3, members.schema.field("value"), pa.array(["other"] * len(members)))])
    with pytest.raises(DataError, match=r"two memberships of I0 .* disagree"):
        asof.compute(LAWFUL, table, memberships=twice, timeframe="1d")


def sample_members() -> tuple[asof.sources.sample.Sample, pa.Table]:
    sample = make_sample(days=100)
    names, first = sorted(set(sample.bars["instrument_id"].to_pylist())), sample.bars["ts"][0].as_py()
    rows = [{"scheme": "index", "instrument_id": name, "ts": first + 5 * k * DAY, "value": "in"} for k, name in enumerate(names)]
    rows += [{"scheme": "index", "instrument_id": names[0], "ts": first + 60 * DAY, "value": None}]
    rows += [{"scheme": "sector", "instrument_id": name, "ts": first, "value": "xy"[k % 2]} for k, name in enumerate(names)]
    return sample, pa.Table.from_pylist(rows)


def test_the_check_for_leaks_finds_every_operator_clean():
    sample, members = sample_members()
    found = asof.leakcheck(LAWFUL, sample.bars, memberships=members, cuts=3)
    assert (found.findings, found.unseen) == ((), ())


def test_the_check_for_leaks_catches_a_section_that_is_told_too_early(monkeypatch: pytest.MonkeyPatch):
    sample, members = sample_members()
    monkeypatch.setattr(Sections, "latest", lambda self, known: known)
    found = asof.leakcheck(
        FeatureSet("early", {"x": index.rank(gain)}), sample.bars, memberships=members, cuts=6, skip=["start", "stretch"]
    )
    assert {finding.check for finding in found.findings} == {"late"}


def hindsight(bars: pd.DataFrame) -> pd.DataFrame:
    return bars[["instrument_id", "ts"]].assign(x=bars.close.rank(pct=True))


def test_the_check_for_leaks_catches_ranks_over_all_days():
    found = asof.leakcheck(hindsight, make_sample(days=60).bars, cuts=3, skip=["instrument"])
    assert "looks ahead" in {finding.means for finding in found.findings}
