"""PostgreSQL's binary COPY format, whole columns at a time: Arrow tables to bytes, and rows of bytes to Arrow tables.

A row is the number of its fields and then each field: its length (-1 where it is null) and so many bytes, all numbers big-endian. A list
is a field that holds a header and then its items, each laid out as a field again. Rows differ in length, so nothing lies at a fixed
place: `at` says where the next field of every row begins, and moves on from column to column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asof.errors import RowsRefused, StoreError
from asof.records import UTC

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
CHUNK_ROWS = 4_096
"""Rows that are laid out at a time: their bytes stay in the processor's cache, and on their way in the socket's buffer."""

BATCH_ROWS = 500_000
"""Rows of a table that a read yields."""
EPOCH = 946_684_800_000_000
"""2000-01-01, where PostgreSQL's times begin, in microseconds since 1970."""
LAST = np.iinfo(np.int64).max
"""How PostgreSQL writes the time `infinity`; `-infinity` is one below its negative."""
TEXT, FLOAT8 = 25, 701
"""The numbers of the types that lists are of."""

Row = bytes | bytearray | memoryview
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def encoded(tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """What a `COPY ... FROM STDIN (FORMAT binary)` takes for these rows, piece by piece."""
    yield HEADER
    for table in tables:
        yield from map(_encoded, table.to_batches(max_chunksize=CHUNK_ROWS))
    yield END


def decoded(rows: Iterable[Row], schema: pa.Schema, batch_rows: int) -> Iterator[pa.Table]:
    """The rows of a `COPY ... TO STDOUT (FORMAT binary)`, each as the server sent it, in tables of at most so many rows."""
    coming, batches = iter(rows), []
    while chunk := list(islice(coming, min(CHUNK_ROWS, batch_rows))):
        batch = _decoded(chunk, schema)
        if len(batch):  # the last one may have held nothing but the end
            batches.append(batch)
        if (len(batches) + 1) * CHUNK_ROWS > batch_rows and batches:
            yield pa.Table.from_batches(batches)
            batches = []
    if batches:
        yield pa.Table.from_batches(batches)


@dataclass(frozen=True)
class _Fields:
    """A column laid out: the bytes that each of its fields takes, length included, and what puts them where they belong."""

    sizes: Ints
    write: Callable[[Bytes, Ints], None]


def _encoded(batch: pa.RecordBatch) -> bytes:
    fields = [_fields(column) for column in batch.columns]
    offsets = _offsets(sum((field.sizes for field in fields), np.full(len(batch), 2)))
    out = np.empty(offsets[-1], np.uint8)
    _put(out, offsets[:-1], np.full(len(batch), len(fields), ">i2"))
    at = offsets[:-1] + 2
    for field in fields:
        field.write(out, at)
        at = at + field.sizes
    return out.tobytes()


def _fields(column: pa.Array) -> _Fields:
    there = np.asarray(column.is_valid())
    if pa.types.is_string(column.type):
        return _text_fields(column, there)
    if pa.types.is_list(column.type):
        return _list_fields(column, there)
    if pa.types.is_boolean(column.type):
        return _boolean_fields(column, there)
    return _number_fields(column, there)


def _number_fields(column: pa.Array, there: Bools) -> _Fields:
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False).astype(">f8")
    else:
        whole = np.asarray(column.cast(pa.int64()).fill_null(0))
        values = (whole - EPOCH if pa.types.is_timestamp(column.type) else whole).astype(">i8")

    def write(out: Bytes, at: Ints) -> None:
        _put(out, at, np.where(there, 8, -1).astype(">i4"))
        _put(out, at[there] + 4, values[there])

    return _Fields(np.where(there, 12, 4), write)


def _boolean_fields(column: pa.Array, there: Bools) -> _Fields:
    values = np.asarray(column.fill_null(False)).astype("u1")

    def write(out: Bytes, at: Ints) -> None:
        _put(out, at, np.where(there, 1, -1).astype(">i4"))
        _put(out, at[there] + 4, values[there])

    return _Fields(np.where(there, 5, 4), write)


def _text_fields(column: pa.Array, there: Bools) -> _Fields:
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets or bytes(4), np.int32)[column.offset :][: len(column) + 1].astype(np.int64)
    starts, lengths = ends[:-1], np.where(there, np.diff(ends), 0)
    text = np.frombuffer(data or b"", np.uint8)
    if not text[ends[0] : ends[-1]].all():
        raise RowsRefused("a text holds the character NUL, which no text in PostgreSQL can")

    def write(out: Bytes, at: Ints) -> None:
        _put(out, at, np.where(there, lengths, -1).astype(">i4"))
        _move(text, starts, out, at + 4, lengths)

    return _Fields(lengths + 4, write)


def _list_fields(column: pa.Array, there: Bools) -> _Fields:
    counts = np.asarray(column.value_lengths().fill_null(0)).astype(np.int64)
    items, firsts = _fields(column.flatten()), _offsets(counts)
    kind = FLOAT8 if pa.types.is_floating(column.type.value_type) else TEXT
    before = _offsets(items.sizes)
    sizes = np.where(counts > 0, 20, np.where(there, 12, 0)) + np.diff(before[firsts])

    def write(out: Bytes, at: Ints) -> None:
        _put(out, at, np.where(there, sizes, -1).astype(">i4"))
        full, empty = counts > 0, there & (counts == 0)
        _put(out, at[empty] + 4, np.tile(np.array([0, 0, kind], ">i4"), (int(empty.sum()), 1)))
        head = np.tile(np.array([1, 1, kind, 0, 1], ">i4"), (int(full.sum()), 1))
        head[:, 3] = counts[full]
        _put(out, at[full] + 4, head)
        items.write(out, np.repeat(at + 24 - before[firsts[:-1]], counts) + before[:-1])

    return _Fields(sizes + 4, write)


def _decoded(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    if bytes(rows[0][: len(HEADER)]) == HEADER:
        rows[0] = rows[0][len(HEADER) :]
    if bytes(rows[-1]) == END:
        rows.pop()
    data = np.frombuffer(b"".join(rows), np.uint8)
    at = _offsets(np.fromiter(map(len, rows), np.int64, len(rows)))[:-1] + 2
    columns = []
    for field in schema:
        lengths = _get(data, at, ">i4").astype(np.int64)
        columns.append(_values(data, at + 4, lengths, field.type))
        at = at + 4 + np.maximum(lengths, 0)
    return pa.record_batch(columns, schema=schema)


def _values(data: Bytes, at: Ints, lengths: Ints, kind: pa.DataType) -> pa.Array:
    """Fields of these lengths, -1 where there is no value; `at` says where their bytes begin."""
    there = lengths >= 0
    if pa.types.is_string(kind):
        return _text_values(data, at, np.maximum(lengths, 0), there)
    if pa.types.is_list(kind):
        return _list_values(data, at, there, kind)
    missing = None if there.all() else ~there
    if pa.types.is_boolean(kind):
        said = np.zeros(len(at), np.bool_)
        said[there] = data[at[there]] != 0
        return pa.array(said, mask=missing)
    values = np.zeros(len(at), np.int64)
    values[there] = _get(data, at[there], ">i8")
    if pa.types.is_floating(kind):
        return pa.array(values.view(np.float64), mask=missing)
    if pa.types.is_timestamp(kind):
        if len(values) and (values.max() == LAST or values.min() == -LAST - 1):
            raise StoreError("a time is infinite, and no time in asof is: correct it, or leave it null")
        return pa.array(values + EPOCH, mask=missing).cast(UTC)
    return pa.array(values, mask=missing)


def _text_values(data: Bytes, at: Ints, lengths: Ints, there: Bools) -> pa.Array:
    offsets = _offsets(lengths)
    text = np.empty(offsets[-1], np.uint8)
    _move(data, at, text, offsets[:-1], lengths)
    bitmap = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(pa.string(), len(at), [bitmap, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(text)])


def _list_values(data: Bytes, at: Ints, there: Bools, kind: pa.DataType) -> pa.Array:
    counts = np.zeros(len(at), np.int64)
    rows = np.flatnonzero(there)
    rows = rows[_get(data, at[rows], ">i4") > 0]  # a list of no dimension is empty, and has no count
    counts[rows] = _get(data, at[rows] + 12, ">i4")
    firsts, at = _offsets(counts), at + 24
    places, lengths = np.empty((2, firsts[-1]), np.int64)
    for n in range(int(counts.max(initial=0))):
        rows = rows[counts[rows] > n]
        item = firsts[rows] + n
        places[item], lengths[item] = at[rows], _get(data, at[rows] - 4, ">i4")
        at[rows] += 4 + np.maximum(lengths[item], 0)
    items = _values(data, places, lengths, kind.value_type)
    return pa.ListArray.from_arrays(pa.array(firsts.astype(np.int32)), items, mask=None if there.all() else pa.array(~there))


def _offsets(sizes: Ints) -> Ints:
    """Where each of some things laid end to end begins, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(sizes)))


def _windows(data: Bytes, width: int) -> NDArray[np.void]:
    """The `width` bytes that begin at every byte, without copying any."""
    return np.ndarray(max(0, len(data) - width + 1), f"V{width}", data, strides=(1,))


def _get(data: Bytes, at: Ints, kind: str) -> NDArray[np.int64]:
    """The numbers at these places."""
    return _windows(data, np.dtype(kind).itemsize)[at].view(kind)


def _put(out: Bytes, at: Ints, values: NDArray[np.generic]) -> None:
    """Numbers to these places: one to each, or a row of them."""
    width = values.itemsize * (values.shape[1] if values.ndim > 1 else 1)
    _windows(out, width)[at] = values.view(f"V{width}").reshape(len(values))


def _move(data: Bytes, starts: Ints, out: Bytes, at: Ints, lengths: Ints) -> None:
    """Texts from their starts in `data` to their places in `out`, all those of one length at a time."""
    for length in np.flatnonzero(np.bincount(lengths)):
        if length:
            chosen = lengths == length
            _windows(out, int(length))[at[chosen]] = _windows(data, int(length))[starts[chosen]]
