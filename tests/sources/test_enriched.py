"""Enriched events: the whole schema and no more, whatever a message holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.records import EVENTS
from asof.sources.enriched import Row, decode, settled
from asof.sources.messages import CLOCK_SKEW, LARGEST, Refused, table_of
from asof.stores.duckdb import DuckDBStore
from asof.stores.store import EVENTS_TABLE
from scripts import validate_schema_samples as script
from tests.stores.rows import NOON, rows_in

FOLDER = Path(__file__).parents[2] / "schemas" / "samples"
SAMPLES = sorted(FOLDER.glob("enriched_event_v1_*.json"))
VALIDATOR = script.load_schemas()["enriched_event.v1"]
WHOLE = json.loads((FOLDER / "enriched_event_v1_valid.json").read_text())
NOW = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp() * 1_000_000)


def message(**changes: object) -> bytes:
    return json.dumps(WHOLE | changes).encode()


def refusal(data: bytes | None) -> Refused | None:
    """Why a message is refused, if it is."""
    try:
        decode(data, NOW)
    except Refused as refused:
        return refused
    return None


def reason(data: bytes | None) -> str:
    refused = refusal(data)
    assert refused is not None
    assert str(refused).isprintable()
    assert len(str(refused)) < 2_000
    return refused.reason


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_are_what_their_names_say(path: Path) -> None:
    if "_invalid_" in path.stem:
        assert reason(path.read_bytes())
    else:
        rows = decode(path.read_bytes(), NOW)
        assert [row.instrument_id for row in rows] == [ticker["symbol"] for ticker in json.loads(path.read_text())["tickers"]]


ODD: tuple[object, ...] = (
    *(None, True, 0, 1, -1, 2, 0.5, 1.0, 384.0, -1.0000001, 1.0000001, 10**400, [], {}, [None], [1], ["a"], [{}], {"a": 1}, "", " ", "a"),
    *("en", "EN", "en-us", "en-US", "en\n", "AAPL", "aapl", "A A", "BRK.B", "ORG", "ner", "rss", "macro", "0" * 64, "g" * 64, "A" * 64),
    *("a05ba64c-a523-5cee-9140-f30f5745a0e0", "A05BA64C-A523-5CEE-9140-F30F5745A0E0", "a05ba64ca5235cee9140f30f5745a0e0"),
    *(
        "2014-02-28T00:00:00Z",
        "2014-02-29T00:00:00Z",
        "2016-02-29T23:59:59.123456789+14:00",
        "2014-08-12T05:41:10z",
        "2014-08-12t05:41:10Z",
    ),
    *("2014-08-12T05:41:10-00:00", "2014-08-12T24:00:00Z", "2014-08-12T05:41:10+24:00", "2014-08-12T05:41Z", "2014-8-12T05:41:10Z"),
    *("2014-08-12T05:41:10,5Z", "2014-08-12T05:41:10.Z", "20140812T054110Z", "2014-08-12T05:41:10+0100", "2014-W33-2T05:41:10Z", "2014"),
    *("\uff12014-08-12T05:41:10Z", "enriched_event.v1", "enriched_event.v2", "\u0000", "\ud83d\ude00", "é" * 300),
)


def places(node: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a message, from its properties down to its items."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(child, (*path, key))


def with_value(path: tuple[str | int, ...], value: object) -> dict[str, object]:
    changed = copy.deepcopy(WHOLE)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


@pytest.mark.parametrize("path", list(places(WHOLE)), ids=lambda path: ".".join(map(str, path)))
def test_decoding_agrees_with_the_schema_on_odd_values_everywhere(path: tuple[str | int, ...]) -> None:
    for value in ODD:
        data = json.dumps(with_value(path, value)).encode()
        wrong, refused = script.errors(VALIDATOR, data), refusal(data)
        # beyond the schema: numbers that no double holds, and times that are no usual ones
        more = refused is not None and (refused.reason == "time_out_of_range" or "out of range" in str(refused))
        assert more or bool(wrong) == bool(refused), (value, wrong, refused)


def test_decoding_agrees_with_the_schema_on_properties_that_are_missing_or_too_many() -> None:
    for path in [*places(WHOLE), *((*path, "more") for path in [(), *places(WHOLE)] if isinstance(inside(path), dict))]:
        changed = with_value(path, 1)
        if path[-1] != "more":
            parent = inside(path[:-1], changed)
            assert isinstance(parent, dict | list)
            del parent[path[-1]]  # type: ignore[arg-type]
        data = json.dumps(changed).encode()
        wrong, refused = script.errors(VALIDATOR, data), refusal(data)
        assert bool(wrong) == bool(refused), (path, wrong, refused)
        assert refused is None or refused.reason in ("missing_property", "unknown_property")


def inside(path: tuple[str | int, ...], node: object = WHOLE) -> object:
    for key in path:
        node = node[key]  # type: ignore[index]
    return node


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "empty_message"),
        (b"", "empty_message"),
        (b" " * (LARGEST + 1), "message_too_large"),
        (b"  ", "malformed_json"),
        (b"{", "malformed_json"),
        (b'"text"', "invalid_value"),
        (b"[]", "invalid_value"),
        (b"null", "invalid_value"),
        (message() + b"x", "malformed_json"),
        (b"\xef\xbb\xbf" + message(), "malformed_json"),
        (message().decode().encode("utf-16"), "malformed_json"),
        (message().replace(b"Cisco", b"\xff"), "malformed_json"),
        (message().replace(b"Cisco", b"\xed\xa0\x80"), "malformed_json"),
        (message().replace(b"Cisco", rb"\ud800"), "malformed_json"),
        (message().replace(b"Cisco", rb"\udc00"), "malformed_json"),
        (message().replace(b"Cisco", b"a\nb"), "malformed_json"),
        (message().replace(b'"score": 0.296', b'"score": NaN'), "malformed_json"),
        (message().replace(b'"score": 0.296', b'"score": -Infinity'), "malformed_json"),
        (message().replace(b'"score": 0.296', b'"score": 01'), "malformed_json"),
        (message().replace(b'"score": 0.296', b'"score": 1e999'), "invalid_value"),
        (message().replace(b'"score": 0.296', b'"score": ' + b"9" * 900_000), "invalid_value"),
        (b"[" * 1_000_000, "invalid_value"),
        (b'{"a":' * 100_000, "unknown_property"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unknown_property"),
        (message().replace(b'"entities": [', b'"entities": [' + b"[" * 100_000), "invalid_value"),
        (message(schema_version="enriched_event.v2", more=1), "unknown_schema_version"),
        (message(schema_version=2), "unknown_schema_version"),
        (message(more=1), "unknown_property"),
        (message(**{"\x1b[31m" + "x" * 5_000: 1}), "unknown_property"),
        (json.dumps({k: v for k, v in WHOLE.items() if k != "lang"}).encode(), "missing_property"),
        (message(sentiment=WHOLE["sentiment"] | {"score": 1.5}), "invalid_value"),
        (message(enriched_at_utc="1979-12-31T23:59:59Z"), "time_out_of_range"),
        (message(enriched_at_utc="0001-01-01T00:00:00+14:00"), "time_out_of_range"),
        (message(enriched_at_utc="9999-12-31T23:59:59-14:00"), "time_out_of_range"),
        (message(enriched_at_utc="2014-02-29T00:00:00Z"), "invalid_value"),
        (message(event_time_utc="9999-12-31T23:59:59.999999999-14:00"), "time_out_of_range"),
        (message(event_time_utc="1969-12-31T23:59:59Z"), "time_out_of_range"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(data: bytes | None, expected: str) -> None:
    assert reason(data) == expected


def test_a_clock_that_is_ahead_by_minutes_is_no_mistake_and_by_more_it_is() -> None:
    def enriched(ahead: int) -> bytes:
        return message(enriched_at_utc=datetime.fromtimestamp((NOW + ahead) / 1e6, UTC).isoformat())

    assert decode(enriched(CLOCK_SKEW), NOW)
    assert reason(enriched(CLOCK_SKEW + 1)) == "time_out_of_range"
    assert decode(message(event_time_utc="2099-12-31T23:59:59Z"), NOW), "a flag tells of that, later"


def test_an_event_is_a_row_for_each_ticker_and_one_named_twice_counts_once() -> None:
    tickers = [{"symbol": symbol, "confidence": 1, "method": "ner"} for symbol in ("B", "A", "B")]
    rows = decode(message(tickers=tickers, event_time_utc="2014-08-12T07:41:10.0159999+02:00"), NOW)
    at, happened = 1_407_822_070_015_000, 1_407_822_070_015_999
    about = (WHOLE["event_category"], WHOLE["source_type"], WHOLE["source_name"], WHOLE["normalized_text_hash"].lower(), None)
    assert rows == [Row(name, WHOLE["event_id"], at, happened, 0.296, 0.296, at, *about) for name in ("B", "A")]
    assert decode(message(tickers=[]), NOW) == []
    assert decode(message(event_time_utc=None), NOW)[0].event_time_utc is None


def test_rows_are_events_as_stores_take_them() -> None:
    table = table_of(decode(message(), NOW), EVENTS)
    assert table.schema == EVENTS
    assert table.to_pylist()[1]["instrument_id"] == "BRK-A"
    assert table_of([], EVENTS).schema == EVENTS


def test_a_property_that_is_given_twice_has_its_last_value() -> None:
    twice = message().replace(b'"score": 0.296', b'"score": 0.1, "score": 0.2')
    assert decode(twice, NOW)[0].score == 0.2


ROWS = st.builds(
    lambda event, enriched, score: Row("A", event, enriched, None, score, 0.5, enriched, "macro" if score else "other", "rss", "n", "h"),
    st.sampled_from("xy"),
    st.integers(1_700_000_000_000_000, 1_700_000_000_000_003),
    st.sampled_from([-1.0, 0.0, 0.25]),
)


@given(st.lists(ROWS, max_size=6))
def test_repeats_within_a_batch_end_as_if_they_had_come_one_by_one(rows: list[Row]) -> None:
    with DuckDBStore(None) as one_by_one, DuckDBStore(None) as at_once:
        for row in rows:
            one_by_one.upsert(EVENTS_TABLE, table_of([row], EVENTS), NOON)
        at_once.upsert(EVENTS_TABLE, table_of(settled(rows), EVENTS), NOON)
        assert rows_in(at_once, EVENTS_TABLE) == rows_in(one_by_one, EVENTS_TABLE)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | JSON.map(lambda value: message(tickers=value, sentiment=value)))
def test_no_message_is_too_odd_to_be_refused(data: bytes) -> None:
    assert refusal(data) or decode(data, NOW)
