"""Splits into training and test rows by the spans of labels, so that no training label tells of a test row (Lopez de Prado, chapter 7).

A row's span goes from `label_from`, when its vector could be known, to `label_until`, when its label could. A training row whose span
overlaps that of a test row is left out (*purged*), and so is one that begins less than an *embargo* after a test row's label is known. Rows
of one moment are never on both sides, and rows without a label are on neither.

Each has `split(X, y, groups)` and `get_n_splits()`, so scikit-learn takes it wherever it takes `cv`; the positions are those of the rows of
the labels that it was made with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.errors import DataError, DefinitionError
from asof.records import ArrowStream, micros
from asof.timeframes import duration

Ints = NDArray[np.int64]
Split = tuple[Ints, Ints]


@dataclass(frozen=True)
class Spans:
    """When each row's vector and label could be known, in microseconds, and the rows that have a label by the time of their vector."""

    starts: Ints
    ends: Ints
    rows: Ints

    @classmethod
    def of(cls, labels: ArrowStream) -> Spans:
        """The spans of a table with `label_from` and `label_until`. Raises `DataError` where one is not there, or ends too early."""
        table = pa.table(labels)
        for name in ("label_from", "label_until"):
            if name not in table.column_names or not pa.types.is_timestamp(table[name].type) or table[name].type.tz is None:
                raise DataError(f"the labels have no times {name} with a zone: take those of asof.labels.compute or FeatureStore.labels")
        known = np.asarray(pc.and_(table["label_from"].is_valid(), table["label_until"].is_valid()))
        starts, ends = (
            micros(pc.fill_null(table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()), 0)) for name in ("label_from", "label_until")
        )
        if (wrong := np.flatnonzero(known & (ends < starts))).size:
            raise DataError(f"row {int(wrong[0]) + 1}: label_until is before label_from")
        rows = np.flatnonzero(known)
        return cls(starts, ends, rows[np.argsort(starts[rows], kind="stable")])

    def blocks(self, count: int) -> list[Ints]:
        """The rows in so many blocks of time with about as many rows each; those of one moment are in one."""
        times, firsts = np.unique(self.starts[self.rows], return_index=True)
        if len(times) < count:
            raise DataError(f"the labels begin at {len(times)} different times: too few for {count} blocks")
        cuts = np.searchsorted(firsts, np.arange(1, count) * len(self.rows) / count)
        for k in range(len(cuts)):  # a moment with very many rows may take the place of several blocks
            cuts[k] = min(max(cuts[k], cuts[k - 1] + 1 if k else 1), len(times) - (len(cuts) - k))
        return np.split(self.rows, firsts[cuts])

    def purged(self, test: Ints, embargo: int) -> Ints:
        """The rows that are not of the test, nor overlap one of its, nor begin within the embargo behind one of its."""
        order = test[np.argsort(self.starts[test], kind="stable")]
        latest = np.concatenate(([np.iinfo(np.int64).min], np.maximum.accumulate(self.ends[order] + embargo)))
        before = np.searchsorted(self.starts[order], self.ends[self.rows], "left")  # the test rows that begin before this row ends
        apart = latest[before] <= self.starts[self.rows]
        same = np.isin(self.starts[self.rows], self.starts[order])  # a label that is known at once has a span without length
        return self.rows[apart & ~same]


@dataclass(frozen=True)
class PurgedKFold:
    """Each of `folds` blocks of time is the test once, all other rows that are apart from it the training.

    `embargo` is a duration such as `"5d"`, or a timedelta.
    """

    labels: InitVar[ArrowStream]
    folds: int = 5
    embargo: str | timedelta = timedelta(0)
    spans: Spans = field(init=False, repr=False)

    def __post_init__(self, labels: ArrowStream) -> None:
        _prepare(self, labels, folds=(self.folds, 2))

    def split(self, X: object = None, y: object = None, groups: object = None) -> Iterator[Split]:  # noqa: N803, ARG002  # scikit-learn's names
        """Positions of the training rows and of the test rows, both in the order of the labels, for each fold."""
        _check_rows(self.spans, X)
        for test in self.spans.blocks(self.folds):
            yield np.sort(self.spans.purged(test, _micros(self.embargo))), np.sort(test)

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:  # noqa: N803, ARG002  # as above
        """How many splits there are."""
        return self.folds


@dataclass(frozen=True)
class WalkForward:
    """Of `folds + 1` blocks of time each but the first is the test once; the training is what was known before it.

    A training row's label is known, and the embargo is over, when the first vector of the test is. `window` is how far back the training
    reaches from there; without it all of it is taken.
    """

    labels: InitVar[ArrowStream]
    folds: int = 5
    embargo: str | timedelta = timedelta(0)
    window: str | timedelta | None = None
    spans: Spans = field(init=False, repr=False)

    def __post_init__(self, labels: ArrowStream) -> None:
        _prepare(self, labels, folds=(self.folds, 1))

    def split(self, X: object = None, y: object = None, groups: object = None) -> Iterator[Split]:  # noqa: N803, ARG002  # as above
        """Positions of the training rows and of the test rows, both in the order of the labels, for each fold."""
        _check_rows(self.spans, X)
        rows, starts, ends = self.spans.rows, self.spans.starts, self.spans.ends
        for test in self.spans.blocks(self.folds + 1)[1:]:
            begin = starts[test].min()
            known = (ends[rows] + _micros(self.embargo) <= begin) & (starts[rows] < begin)
            if self.window is not None:
                known &= starts[rows] >= begin - _micros(self.window)
            yield np.sort(rows[known]), np.sort(test)

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:  # noqa: N803, ARG002  # as above
        """How many splits there are."""
        return self.folds


@dataclass(frozen=True)
class CombinatorialPurged:
    """Every choice of `tests` of `blocks` blocks of time is the test once (Lopez de Prado, chapter 12).

    Each block is tested in `paths` of the splits, so that many paths through history can be put together.
    """

    labels: InitVar[ArrowStream]
    blocks: int = 6
    tests: int = 2
    embargo: str | timedelta = timedelta(0)
    spans: Spans = field(init=False, repr=False)

    def __post_init__(self, labels: ArrowStream) -> None:
        _prepare(self, labels, blocks=(self.blocks, 2), tests=(self.tests, 1))
        if self.tests >= self.blocks:
            raise DefinitionError(f"tests={self.tests} of blocks={self.blocks} leave nothing to train on")

    @property
    def paths(self) -> int:
        """How many times each block is tested."""
        return math.comb(self.blocks - 1, self.tests - 1)

    def split(self, X: object = None, y: object = None, groups: object = None) -> Iterator[Split]:  # noqa: N803, ARG002  # as above
        """Positions of the training rows and of the test rows, both in the order of the labels, for each choice."""
        _check_rows(self.spans, X)
        for chosen in itertools.combinations(self.spans.blocks(self.blocks), self.tests):
            test = np.concatenate(chosen)
            yield np.sort(self.spans.purged(test, _micros(self.embargo))), np.sort(test)

    def get_n_splits(self, X: object = None, y: object = None, groups: object = None) -> int:  # noqa: N803, ARG002  # as above
        """How many splits there are."""
        return math.comb(self.blocks, self.tests)


def _prepare(splits: PurgedKFold | WalkForward | CombinatorialPurged, labels: ArrowStream, **counts: tuple[int, int]) -> None:
    """Read the spans, and check what was given."""
    for name, (count, least) in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise DefinitionError(f"{name}={count!r} is not a whole number from {least} on")
    _micros(splits.embargo)
    object.__setattr__(splits, "spans", Spans.of(labels))


def _micros(span: str | timedelta) -> int:
    length = duration(span) if isinstance(span, str) else span // timedelta(microseconds=1)
    if length < 0:
        raise DefinitionError(f"a duration of {span} is negative")
    return length


def _check_rows(spans: Spans, given: object) -> None:
    """Refuse other rows than those of the labels."""
    rows = getattr(given, "shape", (None,))[0]
    if rows is not None and rows != len(spans.starts):
        raise DataError(f"there are {rows} rows to split, and {len(spans.starts)} labels: give the rows of the labels, in their order")
