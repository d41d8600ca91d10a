"""Purged splits against their definition in plain Python: no training span meets a test span, and nothing is left out without need."""

from __future__ import annotations

import itertools
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.errors import AsofError, DataError, DefinitionError
from asof.labels import CombinatorialPurged, PurgedKFold, WalkForward
from tests.labels.markets import DAY, START

days = st.integers(0, 40)
spans = st.lists(st.tuples(days, st.one_of(st.none(), st.integers(0, 8))), min_size=25, max_size=80).filter(
    lambda rows: len({a for a, length in rows if length is not None}) >= 6
)
embargoes = st.integers(0, 5)

Rows = list[tuple[int, int | None]]


def table(rows: Rows) -> pa.Table:
    kind = pa.timestamp("us", "UTC")
    begin = pa.array([START + a * DAY for a, _ in rows], kind)
    end = pa.array([None if length is None else START + (a + length) * DAY for a, length in rows], kind)
    return pa.table({"label_from": begin, "label_until": end})


def apart(rows: Rows, train: int, test: int, embargo: int) -> bool:
    """Whether a training row tells nothing of a test row."""
    (a, length), (b, other) = rows[train], rows[test]
    assert length is not None
    assert other is not None
    return a != b and (a + length <= b or b + other + embargo <= a)


def labelled(rows: Rows) -> list[int]:
    return [k for k, (_, length) in enumerate(rows) if length is not None]


@given(rows=spans, embargo=embargoes, folds=st.integers(2, 5))
def test_each_row_is_tested_once_and_trains_wherever_it_is_apart(rows: Rows, embargo: int, folds: int):
    cv = PurgedKFold(table(rows), folds, timedelta(days=embargo))
    splits = list(cv.split(np.zeros((len(rows), 2))))
    assert len(splits) == cv.get_n_splits() == folds
    assert sorted(itertools.chain(*(test.tolist() for _, test in splits))) == labelled(rows)
    for train, test in splits:
        assert len(test)
        assert train.tolist() == [k for k in labelled(rows) if k not in test and all(apart(rows, k, t, embargo) for t in test.tolist())]
        times = {rows[t][0] for t in test.tolist()}
        assert all(rows[k][0] not in times or k in test for k in labelled(rows)), "rows of one moment stay together"


@given(rows=spans, embargo=embargoes, folds=st.integers(1, 5), window=st.one_of(st.none(), st.integers(1, 30)))
def test_a_walk_forward_trains_on_what_was_known_before_its_test(rows: Rows, embargo: int, folds: int, window: int | None):
    reach = None if window is None else timedelta(days=window)
    tested: list[int] = []
    for train, test in WalkForward(table(rows), folds, timedelta(days=embargo), reach).split():
        begin = min(rows[t][0] for t in test.tolist())
        assert train.tolist() == [
            k
            for k, (a, length) in enumerate(rows)
            if length is not None and a < begin and a + length + embargo <= begin and (window is None or a >= begin - window)
        ]
        tested += test.tolist()
    assert len(tested) == len(set(tested))


@given(rows=spans, embargo=embargoes)
def test_every_choice_of_blocks_is_tested_once(rows: Rows, embargo: int):
    cv = CombinatorialPurged(table(rows), 5, 2, timedelta(days=embargo))
    splits = list(cv.split())
    assert len(splits) == cv.get_n_splits() == 10
    counts = np.bincount(np.concatenate([test for _, test in splits]), minlength=len(rows))
    assert counts.tolist() == [cv.paths if length is not None else 0 for _, length in rows]
    for train, test in splits:
        assert train.tolist() == [k for k in labelled(rows) if k not in test and all(apart(rows, k, t, embargo) for t in test.tolist())]


def test_an_embargo_is_a_duration_as_everywhere():
    rows: Rows = [(k, 1) for k in range(10)]
    for embargo in ("3d", timedelta(days=3)):
        train, test = next(iter(PurgedKFold(table(rows), 2, embargo).split()))
        assert (train.tolist(), test.tolist()) == ([8, 9], [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda t: PurgedKFold(t, 1), "folds=1 is not a whole number from 2"),
        (lambda t: PurgedKFold(t, 5, timedelta(days=-1)), "is negative"),
        (lambda t: CombinatorialPurged(t, 3, 3), "leave nothing to train on"),
        (lambda t: list(PurgedKFold(t, 12).split()), "10 different times: too few for 12 blocks"),
        (lambda t: list(PurgedKFold(t, 2).split(np.zeros((4, 1)))), "there are 4 rows to split, and 10 labels"),
        (lambda t: PurgedKFold(t.drop_columns("label_until")), "have no times label_until with a zone"),
        (lambda t: PurgedKFold(t.rename_columns(["label_until", "label_from"])), "row 1: label_until is before label_from"),
    ],
)
def test_what_cannot_be_split_is_refused(made, said):
    with pytest.raises(AsofError, match=said) as found:
        made(table([(k, 1) for k in range(10)]))
    assert isinstance(found.value, DataError | DefinitionError)
