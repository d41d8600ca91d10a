"""Features of events against plain Python: chosen events, texts, fading, repeats and surprise, in memory and out of both stores."""

from __future__ import annotations

import json
import math
import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asof
from asof import FeatureSet, bars, events, fs_v1
from asof.errors import DataError, DefinitionError, UnknownName
from asof.features.expression import Expr
from asof.features.library import SHIPPED, news
from asof.operators import EVENT_SHAPES, Operator, Shape
from asof.operators.operator import of_chosen
from asof.records import EVENT_DETAILS
from asof.sources.enriched import decode
from tests.operator_cases import CASES, ERROR, RUN, Answer, called, parameters
from tests.test_operators import ask, assert_answer, cells, evaluate

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
ON_EVENTS = [o for o in RUN if o.shape in EVENT_SHAPES]


@pytest.mark.parametrize("operator", ON_EVENTS, ids=lambda o: o.key)
@given(data=st.data())
@settings(max_examples=15)
def test_over_chosen_events_an_operator_answers_as_if_there_were_no_others(operator: Operator, data: st.DataObject):
    case, params = CASES[operator.key], data.draw(st.sampled_from(parameters(operator)))
    weights = st.floats(0, 1).map(lambda w: round(w, 3))
    choices = st.sampled_from([0.0, 0.0, 1.0, -2.0, None, ERROR])
    rows = sorted(data.draw(st.lists(st.tuples(st.integers(5, 65), cells, weights, choices), max_size=12)), key=lambda row: row[0])
    window = events.window("10m")
    expression = called(of_chosen(operator), (window.sentiment, window.confidence), params, window.is_repost)
    names = ("sentiment", "confidence", "is_repost")
    minutes = [20, 30, 31, 45, 60]
    found = evaluate(expression, {}, minutes, [row[0] for row in rows], {n: [row[k + 1] for row in rows] for k, n in enumerate(names)})
    for minute, answer in zip(minutes, found, strict=True):
        inside = [row for row in rows if minute - 10 <= row[0] <= minute and row[3] not in (None, 0.0)]
        columns: list[list[Answer]] = [[ERROR if row[3] == ERROR else row[k] for row in inside] for k in (1, 2)][: len(operator.inputs)]
        flat = [v for column in columns for v in column]
        if operator.shape is Shape.COUNT:
            wanted = ask(case, *columns, *params)
        elif len(inside) < operator.minimum or None in flat:
            wanted = None
        else:
            wanted = ERROR if ERROR in flat else ask(case, *columns, *params)
        assert_answer(case, answer, wanted, (*columns, *params))


DETAILS = ("earnings", "macro", None)
a_row = st.fixed_dictionaries(
    {
        "minutes": st.integers(-200, 60 * 30),
        "score": st.floats(-1, 1).map(lambda v: round(v, 2)),
        "confidence": st.sampled_from([0.0, 0.5, 1.0]),
        "category": st.sampled_from(DETAILS),
        "source": st.sampled_from(["twitter", "rss", None]),
        "source_name": st.sampled_from(["Ü", None]),
        "text_hash": st.sampled_from(["aa", "bb", "cc", "dd"]),
        "is_repost": st.sampled_from([True, False, None]),
    }
)
Row = dict[str, object]


def table(rows: list[Row]) -> pa.Table:
    """Events of one instrument in the order they came."""
    made = [
        {**row, "event_id": f"e{k:03d}", "instrument_id": "A", "enriched_at_utc": START + row["minutes"] * timedelta(minutes=1)}  # type: ignore[operator]
        for k, row in enumerate(sorted(rows, key=lambda row: row["minutes"]))  # type: ignore[arg-type, return-value]
    ]
    kinds = {"score": pa.float64(), "confidence": pa.float64(), "enriched_at_utc": pa.timestamp("us", "UTC"), "is_repost": pa.bool_()}
    names = ("event_id", "instrument_id", "enriched_at_utc", "score", "confidence", *EVENT_DETAILS)
    return pa.Table.from_pylist(made, pa.schema([(name, kinds.get(name, pa.string())) for name in names]))


HOURS = pa.table({"instrument_id": ["A"] * 30, "ts": [START + k * HOUR for k in range(30)], "close": [100.0 + k for k in range(30)]})
SIX = events.window("6h")
NEWS_V1 = FeatureSet(
    "news_v1",
    {
        "earnings": SIX.count(where=SIX.category == "earnings"),
        "others": SIX.sentiment.sum(where=SIX.category != "earnings"),
        "talk": SIX.sentiment.mean(where=SIX.source.is_in("twitter", "reddit")),
        "named": SIX.count(where=SIX.source_name == "Ü"),
        "sure": SIX.sentiment.std(weight=SIX.confidence, where=SIX.is_repost),
        "fading": news.fading_sentiment(SIX, "90m"),
        "pressure": news.sentiment_pressure(SIX, "90m"),
        "since": news.hours_since(SIX),
        "since_earnings": news.hours_since(SIX, SIX.category == "earnings"),
        "repeats": news.repeats(SIX),
        "novelty": news.novelty(SIX),
        "reposts": news.reposts(SIX),
        "surprise": news.surprise(SIX.count(), 4, least=1),
    },
)


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def expected(rows: list[Row], at: datetime) -> dict[str, float | None]:
    """The features but the surprise, by loops over the events of the window."""
    seen = [r for r in table(rows).to_pylist() if at - 6 * HOUR <= r["enriched_at_utc"] <= at]
    weights = [2 ** ((r["enriched_at_utc"] - at) / timedelta(minutes=90)) for r in seen]
    sure = [w * r["confidence"] for w, r in zip(weights, seen, strict=True)] if any(r["confidence"] for r in seen) else weights
    fading = math.fsum(w * r["score"] for w, r in zip(sure, seen, strict=True)) / math.fsum(sure) if seen else None
    reposts = [r for r in seen if r["is_repost"]]
    total = math.fsum(r["confidence"] for r in reposts)
    shares = [r["confidence"] / total if total else 1 / len(reposts) for r in reposts]
    centre = math.fsum(s * r["score"] for s, r in zip(shares, reposts, strict=True))
    earnings = [r for r in seen if r["category"] == "earnings"]
    last, last_earnings = ((at - rs[-1]["enriched_at_utc"]) / HOUR if rs else None for rs in (seen, earnings))
    return {
        "earnings": float(len(earnings)),
        "others": math.fsum(r["score"] for r in seen if r["category"] == "macro"),
        "talk": mean([r["score"] for r in seen if r["source"] == "twitter"]),
        "named": float(sum(r["source_name"] == "Ü" for r in seen)),
        "sure": math.sqrt(math.fsum(s * (r["score"] - centre) ** 2 for s, r in zip(shares, reposts, strict=True)))
        if len(reposts) > 1
        else None,
        "fading": fading,
        "pressure": math.fsum(w * r["score"] for w, r in zip(weights, seen, strict=True)) if seen else None,
        "since": last,
        "since_earnings": last_earnings,
        "repeats": float(len(seen) - len({r["text_hash"] for r in seen})),
        "novelty": len({r["text_hash"] for r in seen}) / len(seen) if seen else 1.0,
        "reposts": float(len(reposts)),
    }


@given(rows=st.lists(a_row, max_size=25))
@settings(max_examples=30)
def test_features_of_events_are_what_loops_over_the_windows_give(rows: list[Row]):
    made = asof.compute(NEWS_V1, HOURS, table(rows), timeframe="1h").to_pylist()
    counts = [float(v["event_count"]) for v in made]
    for k, found in enumerate(made):
        for name, want in expected(rows, found["ts"]).items():
            assert (found[name] is None) == (want is None), name
            assert want is None or math.isclose(found[name], want, rel_tol=1e-9, abs_tol=1e-9), (name, found[name], want)
        before = counts[k - 4 : k]
        if k >= 4:
            wanted = (counts[k] - statistics.mean(before)) / max(statistics.stdev(before), 1.0)
            assert math.isclose(found["surprise"], wanted, abs_tol=1e-9)
        else:
            assert found["surprise"] is None


def test_the_texts_of_these_features_read_back():
    for feature_set in (NEWS_V1, SHIPPED["fs_v2"]):
        assert FeatureSet.parse(feature_set.text) == feature_set
    assert 'where=events.window("6h").category == "earnings")' in NEWS_V1.text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: SIX.category == 3, "category is compared with a text .* not 3"),
        (lambda: SIX.category == 'a"b', "without quotes or backslashes"),
        (lambda: SIX.source == "", "a text of 1 to 200 letters"),
        (SIX.category.is_in, "is given no texts"),
        (lambda: SIX.category.mean, "category is a text and has no 'mean': compare it, such as category == \"earnings\""),
        (lambda: SIX.categori, "did you mean 'category'"),
        (lambda: bars.close.mean(3, where=bars.close > 1), "chooses points of a window; of bars write where"),
        (lambda: SIX.sentiment.mean(where=events.window("1h").is_repost), "cannot mix rows of events of 6h and events of 1h"),
        (lambda: bars.close.fading_mean("6h"), "fading_mean works on the points of a window"),
        (lambda: SIX.sentiment.fading_mean("0m"), "0m"),
    ],
)
def test_what_cannot_be_asked_of_events_is_refused_and_told_why(made, said):
    with pytest.raises((DefinitionError, UnknownName), match=said):
        made()


def test_a_text_that_nobody_has_and_a_column_of_another_kind():
    rows: list[Row] = [{"minutes": 5, "score": 0.5, "confidence": 1.0, "category": "macro"}]
    none = FeatureSet("none_v1", {"x": SIX.count(where=SIX.category == "nobody's"), "y": SIX.text.distinct(), "z": SIX.is_repost.max()})
    made = asof.compute(none, HOURS, table(rows), timeframe="1h").to_pylist()[1]
    assert (made["x"], made["y"], made["z"]) == (0.0, None, None)
    given = table(rows)
    wrong = given.set_column(given.schema.get_field_index("is_repost"), "is_repost", pa.array(["perhaps"]))
    with pytest.raises(DataError, match="column is_repost does not hold true and false"):
        asof.compute(none, HOURS, wrong, timeframe="1h")


def test_messages_and_files_bring_what_events_are_about():
    sample = json.loads(Path("schemas/samples/enriched_event_v1_valid.json").read_text())
    row, *_ = decode(json.dumps(sample).encode(), 1 << 60)
    said = (sample["event_category"], sample["source_type"], sample["source_name"], sample["normalized_text_hash"].lower(), None)
    assert row[7:] == said
    none = decode(json.dumps(sample | {"source_name": "a\0b"}).encode(), 1 << 60)
    assert none[0].source_name == "ab"
    about = FeatureSet("about_v1", {"n": SIX.count(where=(SIX.category == "company") & (SIX.source == "rss"))})
    named = table([{"minutes": 5, "score": 0.5, "confidence": 1.0, "category": "company", "source": "rss"}])
    names = [{"category": "event_category", "source": "source_type"}.get(name, name) for name in named.column_names]
    assert asof.compute(about, HOURS, named.rename_columns(names), timeframe="1h").to_pylist()[1]["n"] == 1.0


ROWS: list[Row] = [
    {
        "minutes": 37 * k % 1700,
        "score": ((k * 7) % 11 - 5) / 5,
        "confidence": (k % 3) / 2,
        "category": DETAILS[k % 3],
        "source": ["twitter", "rss"][k % 2],
        "text_hash": "abcd"[k % 4],
        "is_repost": [True, False, None][k % 3],
    }
    for k in range(60)
]


@pytest.mark.parametrize("kind", ["duckdb", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_stores_keep_what_events_are_about_with_its_revisions(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    url = f"duckdb:///{tmp_path / 'store.duckdb'}" if kind == "duckdb" else request.getfixturevalue("postgres").database()
    pq.write_table(HOURS, tmp_path / "bars.parquet")
    pq.write_table(table(ROWS), tmp_path / "events.parquet")
    with asof.connect(url) as store:
        store.ingest_bars(tmp_path / "bars.parquet", timeframe="1h")
        store.ingest_events(tmp_path / "events.parquet")
        store.backfill(NEWS_V1, "1h")
        columns = list(NEWS_V1.features)
        before = store.history(NEWS_V1, "1h").table.select(columns)
        assert before.equals(asof.compute(NEWS_V1, HOURS, table(ROWS), timeframe="1h").table.select(columns))
        moment = datetime.now(UTC)
        changed = table(ROWS).slice(20, 1)
        at = changed.schema.get_field_index("category")
        assert changed["category"][0].as_py() != "earnings"
        later = changed.set_column(at, "category", pa.array(["earnings"], pa.string()))
        pq.write_table(later, tmp_path / "later.parquet")
        store.store.follow("somebody")
        store.ingest_events(tmp_path / "later.parquet")
        told, _ = store.store.changes("somebody")
        assert [(row["kind"], row["time"]) for row in told.to_pylist()] == [("events", later["enriched_at_utc"][0].as_py())]
        store.backfill(NEWS_V1, "1h")
        after = store.history(NEWS_V1, "1h").table.select(columns)
        assert not after["earnings"].equals(before["earnings"])
        assert store.history(NEWS_V1, "1h", known_at=moment).table.select(columns).equals(before)


def test_another_future_of_what_events_are_about_changes_nothing_before_it():
    assert asof.leakcheck(NEWS_V1, HOURS, table(ROWS), timeframe="1h", cuts=4).clean

    def with_all_categories(bars, events):
        """Whether an event is of the last category that there is: a look ahead at what events are about."""
        last = events["category"].dropna().iloc[-1] if events["category"].notna().any() else ""
        return bars.assign(x=float(len(last)))[["instrument_id", "ts", "x"]]

    assert not asof.leakcheck(with_all_categories, HOURS, table(ROWS), timeframe="1h", cuts=4).clean


def test_fs_v2_has_the_features_of_fs_v1_to_the_bit():
    v2 = SHIPPED["fs_v2"]
    assert fs_v1.fingerprint == "bdf77f0994de89e3781fa89ce6478188ac142102d46eb3beb19265a6bef338c3"
    assert list(v2.features)[:8] == list(fs_v1.features)
    assert all(v2.features[name] is expression for name, expression in fs_v1.features.items())
    old, new = (asof.compute(x, _whole(HOURS), table(ROWS), timeframe="1h").table for x in (fs_v1, v2))
    assert old.select(list(fs_v1.features)).equals(new.select(list(fs_v1.features)))


def _whole(hours: pa.Table) -> pa.Table:
    for name in ("open", "high", "low", "volume"):
        hours = hours.append_column(name, hours["close"])
    return hours


def test_an_expression_over_events_alone_is_no_feature():
    with pytest.raises(DefinitionError, match="is not an expression over bars"):
        FeatureSet("no_v1", {"x": SIX.category == "macro"})
    assert isinstance(SIX.category == "macro", Expr)
