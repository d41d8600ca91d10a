"""Features of what a request brings."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from asof import FeatureSet, bars, compute, fs_v1
from asof.errors import AsofError, DataError, NotFound
from asof.jobs.formats import lines, recorded
from asof.serving import computing
from asof.serving.computing import answer
from tests.stores.rows import minute

EVENT = json.loads((Path(__file__).parents[2] / "schemas/samples/enriched_event_v1_valid.json").read_text())
SETS = {s.version: s for s in (fs_v1, FeatureSet("gain", {"gain": bars.close - bars.close.lag(1)}))}


def find(version: str) -> FeatureSet:
    if version not in SETS:
        raise NotFound(f"no feature set {version!r}")
    return SETS[version]


def rows(count: int = 30) -> list[dict[str, object]]:
    return [
        {"instrument_id": name, "timeframe": "1m", "ts": minute(n).isoformat(), "close": 100.0 + n * n % 7}
        for name in ("AAPL", "MSFT")
        for n in range(count)
    ]


def events() -> list[dict[str, object]]:
    """Events as the topic has them."""
    return [
        EVENT
        | {"event_id": f"{n:08d}-0000-4000-8000-000000000000", "enriched_at_utc": minute(n).isoformat(), "event_time_utc": None}
        | {"sentiment": {"score": n / 40, "confidence": 0.7, "model": "m"}}
        | {"tickers": [{"symbol": "AAPL", "confidence": 1, "method": "ner"}, {"symbol": "MSFT", "confidence": 1, "method": "ner"}]}
        for n in range(10, 25)
    ]


def asked(**changes: object) -> bytes:
    return json.dumps({"feature_set": "fs_v1", "bars": rows(), "events": events()} | changes).encode()


def without_times(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [record | {"computed_at_utc": None} for record in found]


def test_the_answer_has_the_bits_of_compute() -> None:
    found = json.loads(answer(asked(), find))
    vectors = pa.table(compute(fs_v1, pa.Table.from_pylist(rows()), pa.Table.from_pylist(events())))
    made = [json.loads(line) for _, line in lines(fs_v1, recorded(fs_v1, vectors))]
    assert found["feature_set"] == "fs_v1"
    assert without_times(found["vectors"]) == without_times(made)
    assert len(made) == 60
    assert made[-1]["features"]["event_count_1h"] == 15.0


def test_the_last_vector_of_each_instrument_and_those_without_features() -> None:
    found = json.loads(answer(asked(last=True), find))
    assert [(v["instrument_id"], v["ts_utc"]) for v in found["vectors"]] == [(n, "2024-01-01T00:29:00Z") for n in ("AAPL", "MSFT")]
    found = json.loads(answer(asked(feature_set="gain", events=None), find))
    assert (found["without_features"], len(found["vectors"])) == (2, 58)
    found = json.loads(answer(asked(events=[]), find))
    assert found["vectors"][-1]["quality_flags"] == ["NO_EVENTS"]


def changed(**change: object) -> list[dict[str, object]]:
    return [rows(1)[0] | change]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"[]", "list"),
        (asked(bar=[]), "did you mean 'bars'"),
        (asked(bars=None), "no bars"),
        (asked(bars=[]), "no bars"),
        (asked(feature_set=None), "no feature_set"),
        (asked(feature_set=7), "feature_set is 7"),
        (asked(feature_set="none"), "no feature set"),
        (asked(bars={"close": 1}), "list of objects"),
        (asked(bars=[1]), "list of objects"),
        (asked(higher=[]), "an object"),
        (asked(higher={"1h": 1}), "higher 1h"),
        (asked(last="yes"), "true or false"),
        (asked(calendars={"*": 1}), "calendars"),
        (asked(timezone="Mars"), "timezone 'Mars'"),
        (asked(bars=changed(ts="2024-01-01T00:00:00")), "row 1"),
        (asked(bars=changed(ts="never")), "row 1"),
        (asked(bars=changed(close="high")), "row 1"),
        (asked(bars=[*changed(close="1"), *changed(close=2)]), "several kinds"),
        (asked(bars=changed(close=10**400)), "."),
        (asked(bars=changed(close={})), "close"),
        (asked(bars=[{"close": 1}]), "no row has the field instrument_id"),
        (asked(bars=rows(2) + rows(2)), "."),
        (asked(timeframe="5m"), "5m"),
        (asked(events=[{}]), "."),
        (asked(events=[{"event_id": 7}]), "."),
    ],
)
def test_what_cannot_be_computed_is_refused_with_what_is_wrong(given: bytes, said: str) -> None:
    with pytest.raises(AsofError, match=said):
        answer(given, find)


def test_there_is_an_end_to_what_a_request_may_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "MOST_ROWS", 74)
    with pytest.raises(DataError, match="75 rows, and 74 are the most"):
        answer(asked(), find)
    monkeypatch.setattr(computing, "MOST_ROWS", 75)
    monkeypatch.setattr(computing, "MOST_VALUES", 479)
    with pytest.raises(DataError, match="479"):
        answer(asked(), find)
