"""Feast's shape."""

from __future__ import annotations

import json

import pytest

from asof.errors import AccessError, AsofError, NotFound
from asof.serving import feast
from asof.serving.feast import answer
from asof.serving.newest import Entry, Newest

FEATURES = {"fs": ("x", "y"), "other": ("x", "z")}
NOWHERE = "1970-01-01T00:00:00Z"


def names(version: str) -> tuple[str, ...]:
    if version not in FEATURES:
        raise NotFound(f"no feature set {version!r}")
    return FEATURES[version]


def line(**features: float) -> bytes:
    return json.dumps({"features": features}).encode()


@pytest.fixture
def newest() -> Newest:
    found = Newest()
    found.fill("fs", "1m", [("A", Entry(0, 60_000_000, line(x=1.5, y=2.0))), ("B", Entry(0, 60_000_001, line(x=3.0)))])
    found.fill("other", "1m", [("A", Entry(0, 60_000_000, line(x=-1.0, z=9.0)))])
    found.fill("other", "1d", [("A", Entry(0, 86_400_000_000, line(x=-2.0)))])
    return found


def asked(*features: str, instruments: tuple[object, ...] = ("A", "B", "C"), **more: object) -> bytes:
    return json.dumps({"features": features or None, "entities": {"instrument_id": instruments}} | more).encode()


def test_the_answer_has_a_result_for_each_entity_and_feature_with_a_row_for_each_instrument(newest: Newest) -> None:
    assert json.loads(answer(asked("fs:y", "fs:x"), newest, names)) == {
        "metadata": {"feature_names": ["instrument_id", "y", "x"]},
        "results": [
            {"values": ["A", "B", "C"], "statuses": ["PRESENT"] * 3, "event_timestamps": [NOWHERE] * 3},
            {
                "values": [2.0, None, None],
                "statuses": ["PRESENT", "NULL_VALUE", "NOT_FOUND"],
                "event_timestamps": ["1970-01-01T00:01:00Z", "1970-01-01T00:01:00.000001Z", NOWHERE],
            },
            {
                "values": [1.5, 3.0, None],
                "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"],
                "event_timestamps": ["1970-01-01T00:01:00Z", "1970-01-01T00:01:00.000001Z", NOWHERE],
            },
        ],
    }


def test_full_names_have_the_set_before_them_and_a_service_is_a_whole_set(newest: Newest) -> None:
    full = json.loads(answer(asked("fs:x", full_feature_names=True), newest, names))
    assert full["metadata"]["feature_names"] == ["instrument_id", "fs__x"]
    service = json.loads(answer(asked(feature_service="fs"), newest, names))
    assert service["metadata"]["feature_names"] == ["instrument_id", "x", "y"]


def test_a_second_entity_says_which_timeframe_and_may_differ_by_row(newest: Newest) -> None:
    entities = {"timeframe": ["1d", "1m", "1h"], "instrument_id": ["A", "A", "A"]}
    found = json.loads(answer(asked("other:x", entities=entities), newest, names))
    assert found["metadata"]["feature_names"] == ["instrument_id", "timeframe", "x"]
    assert found["results"][2]["values"] == [-2.0, -1.0, None]


def test_a_replica_that_knows_no_definitions_answers_by_what_its_vectors_have(newest: Newest) -> None:
    found = json.loads(answer(asked("fs:nonsense", instruments=("A",)), newest))
    assert found["results"][1]["statuses"] == ["NULL_VALUE"]
    with pytest.raises(NotFound, match="name them in features"):
        answer(asked(feature_service="fs"), newest)


def test_a_set_that_may_not_be_read_is_refused_and_named_to_nobody(newest: Newest) -> None:
    with pytest.raises(AccessError, match="read:other"):
        answer(asked("fs:x", "other:z"), newest, names, lambda version: version == "fs")
    with pytest.raises(NotFound) as told:
        answer(asked("no:x"), newest, may_read=lambda version: version != "other")
    assert "other" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "none such as"),
        (b"{}", "entities"),
        (b'{"entities": [[[[', "none such as"),
        (asked(), "say which features"),
        (asked("fs:x", feature_service="fs"), "say which features"),
        (asked("x"), "fs_v1:ret_1"),
        (asked(":x"), "fs_v1:ret_1"),
        (asked("fs:"), "fs_v1:ret_1"),
        (asked("fs:w"), "no feature 'w'"),
        (asked("f:x"), "no feature set"),
        (asked("fs:x", "fs:x"), "named twice"),
        (asked("fs:x", "other:x", instruments=()), "full_feature_names|timeframe"),
        (asked("other:x"), "1d, 1m"),
        (asked("fs:x", instruments=(1,)), "list of texts"),
        (asked("fs:x", entities={"instrument": ["A"]}), "did you mean 'instrument_id'"),
        (asked("fs:x", entities={"timeframe": ["1m"]}), "no instrument_id"),
        (asked("fs:x", entities={"timeframe": ["1m"], "instrument_id": []}), "1 of timeframe"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_is_wrong(newest: Newest, given: bytes, said: str) -> None:
    with pytest.raises(AsofError, match=said):
        answer(given, newest, names)


def test_there_is_an_end_to_what_can_be_asked(newest: Newest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feast, "MOST_VALUES", 5)
    with pytest.raises(AsofError, match="6 values, and 5 are the most"):
        answer(asked("fs:x", "fs:y"), newest, names)
