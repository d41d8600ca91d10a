"""Bars from the broker: the schema, and what files are refused for as well."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.records import BARS, check_bars
from asof.sources.messages import Refused, table_of
from asof.sources.ohlcv import Row, decode, settled

FOLDER = Path(__file__).parents[2] / "schemas" / "samples"
SAMPLES = sorted(FOLDER.glob("ohlcv_v1_*.json"))
WHOLE = json.loads((FOLDER / "ohlcv_v1_valid.json").read_text())
NOW = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1_000_000)


def message(**changes: object) -> bytes:
    return json.dumps(WHOLE | changes).encode()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_are_what_their_names_say(path: Path) -> None:
    if "invalid" in path.name:
        with pytest.raises(Refused):
            decode(path.read_bytes(), NOW)
    else:
        (row,) = decode(path.read_bytes(), NOW)
        assert row.instrument_id == json.loads(path.read_bytes())["instrument_id"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"timeframe": "0m"}, "unknown_timeframe"),
        ({"high": 1.0, "low": 2.0}, "high_below_low"),
        ({"ts": "2027-01-01T00:00:00Z"}, "time_out_of_range"),
        ({"ts": "1969-12-31T00:00:00Z"}, "time_out_of_range"),
        ({"ts": "2024-02-30T00:00:00Z"}, "invalid_value"),
        ({"ts": "2024-02-01T00:00:00Z", "available_at": "2024-01-31T00:00:00Z"}, "known_before_open"),
        ({"volume": -1}, "invalid_value"),
        ({"close": "12"}, "invalid_value"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused) as refused:
        decode(message(**changes), NOW)
    assert refused.value.reason == reason


def test_a_price_that_is_none_leaves_the_bar() -> None:
    (row,) = decode(message(close=0, open=-1.5, volume=None), NOW)
    assert (row.open, row.close, row.volume) == (None, None, None)


def test_the_last_of_a_bar_in_a_batch_counts() -> None:
    (one,), (other,) = decode(message(close=1), NOW), decode(message(close=2), NOW)
    assert settled([one, other]) == [other]


def test_rows_are_bars_as_stores_take_them() -> None:
    table = table_of(decode(message(), NOW), BARS)
    assert table.schema == BARS
    assert not check_bars(table).refusals.rows


ODD = st.none() | st.floats() | st.text()


@given(st.binary(max_size=60) | st.builds(lambda n, v: message(**{n: v}), st.sampled_from(sorted(WHOLE)), ODD))
def test_no_message_is_too_odd_to_be_refused(data: bytes) -> None:
    with suppress(Refused):
        assert all(isinstance(row, Row) for row in decode(data, NOW))
