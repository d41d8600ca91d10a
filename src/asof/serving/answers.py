"""How tables of vectors leave over HTTP: in the format that `Accept` asks for, a piece at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from functools import lru_cache

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
from fastapi.responses import StreamingResponse

from asof.errors import DataError
from asof.jobs.formats import rfc3339
from asof.serving.problems import NotAcceptable, Unsupported

JSON = "application/json"
LINES = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
ROWS = 1 << 16
"""Rows of a batch."""
MOST_BYTES = 1 << 30
"""Of a table that is brought, once it is unpacked."""


@lru_cache(256)
def accepted(accept: str, offered: tuple[str, ...]) -> str:
    """Which of the formats a client likes best. Raises `NotAcceptable` where it is none of them."""
    wanted = []
    for place, part in enumerate(accept.split(",")):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = _number(next((word[2:] for word in parameters if word.startswith("q=")), "1"))
        if quality:
            wanted.append((-quality, place, kind))
    for _, _, kind in sorted(wanted):
        for name in offered:
            if kind in (name, "", "*/*") or (kind.endswith("/*") and name.startswith(kind[:-1])):
                return name
    raise NotAcceptable(f"Accept asks for {accept[:80]!r}, and the answer can be {', '.join(offered)}")


def _number(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


class _Pieces(io.RawIOBase):
    """A file that is only written to, and given away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: object) -> int:
        part = bytes(memoryview(data))  # type: ignore[arg-type]  # whatever has bytes
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def as_arrow(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """An Arrow stream."""
    out = _Pieces()
    with pa.ipc.new_stream(out, schema) as writer:
        for table in tables:
            for batch in table.to_batches(max_chunksize=ROWS):
                writer.write_batch(batch)
                yield out.taken()
    yield out.taken()


def as_parquet(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """A Parquet file, a group of rows for each table."""
    out = _Pieces()
    with pa.parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            yield out.taken()
    yield out.taken()


TABULAR = {ARROW: as_arrow, PARQUET: as_parquet}


def streamed(kind: str, pieces: Iterator[bytes]) -> StreamingResponse:
    """An answer that is made as it is taken. Its first piece is made here, so that what is wrong gets a status of its own."""
    first = next(pieces, b"")

    def whole() -> Iterator[bytes]:
        yield first
        yield from pieces

    return StreamingResponse(whole(), media_type=kind, headers={"cache-control": "no-store"})


def table_of(kind: str, body: bytes) -> pa.Table:
    """The table that a request brings. Raises `Unsupported`, and `DataError` for one that is broken or cut off."""
    kind = kind.partition(";")[0].strip().lower()
    try:
        if kind == ARROW:
            found = pa.ipc.open_stream(body).read_all()
        elif kind == PARQUET:
            found = _parquet(body)
        elif kind == JSON:
            found = _rows(json.loads(body))
        else:
            raise Unsupported(f"Content-Type is {kind[:80]!r}, and a table can be {JSON}, {ARROW}, {PARQUET}")
        found.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(
            f"the body is no whole table in {kind}: {str(error).splitlines()[0] if str(error) else 'it cannot be read'}"
        ) from None
    return found


def _parquet(body: bytes) -> pa.Table:
    """A Parquet file, unless its pages are far larger than it is."""
    file = pa.parquet.ParquetFile(pa.BufferReader(body))
    size = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
    if size > MOST_BYTES:
        raise DataError(f"the table takes {size:,} bytes once it is unpacked, and {MOST_BYTES:,} are the most: send it in parts")
    return file.read()


def _rows(given: object) -> pa.Table:
    rows = given.get("entities") if isinstance(given, dict) else given
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError('the body has to be {"entities": [{"instrument_id": "AAPL", "event_timestamp": "2024-06-03T14:30:00Z"}, ...]}')
    return pa.table({name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)})


def as_rows(table: pa.Table) -> bytes:
    """Rows as a JSON list of objects; what is missing is null, times are RFC 3339."""
    try:
        return json.dumps(table.to_pylist(), default=_plain, allow_nan=False).encode()
    except ValueError:
        raise DataError(f"a column holds a number that is not finite, which JSON cannot: ask for {ARROW} or {PARQUET}") from None


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, date):
        return value.isoformat()
    raise DataError(f"a column holds {type(value).__name__}, which JSON cannot: ask for {ARROW} or {PARQUET}")
