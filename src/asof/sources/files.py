"""Files as a source: Parquet, CSV, JSON lines and Arrow, read in batches of bounded size, each row with its number."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from asof.errors import DataError, did_you_mean

BATCH_ROWS = 262_144
LINES = 20_000
LONGEST_LINE = 16 * 1024 * 1024


@dataclass(frozen=True)
class RefusedLine:
    """A line that is no record at all."""

    row: int
    reason: str
    detail: str
    record: str


@dataclass(frozen=True)
class RawBatch:
    """Some rows of a file as they came. `numbers` are their row numbers, from 1; in text files they are line numbers."""

    table: pa.Table
    numbers: np.ndarray
    refused: list[RefusedLine] = field(default_factory=list)


def read_file(path: Path) -> Iterator[RawBatch]:
    """The batches of a file, by what it is. Raises `DataError` where it is not what its name says, or cannot be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; name the files in it")
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path} does not exist{did_you_mean(path.name, siblings)}")
    named = _kind_by_name(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    found = _kind_by_content(path)
    if found and found != named:
        raise DataError(f"{path} is named as {named} but is {found}: rename it")
    if not found and named in _MAGIC:
        raise DataError(f"{path} is named as {named} but does not begin as one: it is cut short, or something else")
    try:
        yield from READERS[named](path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {named}: {str(error).splitlines()[0]}") from None


_MAGIC = {"Parquet": (b"PAR1",), "Arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
_GZIP = b"\x1f\x8b"
_ENDINGS = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".jsonl.gz": "JSON lines",
    ".arrow": "Arrow",
    ".arrows": "Arrow",
    ".feather": "Arrow",
    ".ipc": "Arrow",
}


def _kind_by_name(path: Path) -> str:
    name = path.name.lower()
    for ending in sorted(_ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return _ENDINGS[ending]
    raise DataError(f"{path} is of no known kind; the name must end in one of {', '.join(_ENDINGS)}")


def _kind_by_content(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_GZIP) and not path.name.lower().endswith(".gz"):
        return "compressed with gzip"
    return next((kind for kind, magics in _MAGIC.items() if head.startswith(magics)), None)


def _numbered(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> Iterator[RawBatch]:
    first = 1
    for batch in batches:
        if batch.num_rows:
            yield RawBatch(pa.Table.from_batches([batch]), np.arange(first, first + batch.num_rows))
        first += batch.num_rows
    if first == 1:
        yield _no_rows(schema)


def _no_rows(schema: pa.Schema, refused: Iterable[RefusedLine] = ()) -> RawBatch:
    return RawBatch(schema.empty_table(), np.zeros(0, np.int64), list(refused))


def _read_parquet(path: Path) -> Iterator[RawBatch]:
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _numbered(file.schema_arrow, file.iter_batches(BATCH_ROWS))


def _read_arrow(path: Path) -> Iterator[RawBatch]:
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            yield from _numbered(file.schema, (file.get_batch(i) for i in range(file.num_record_batches)))
        else:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            yield from _numbered(stream.schema, iter(stream))


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]  # both read bytes


def _read_csv(path: Path) -> Iterator[RawBatch]:
    """Every column as text: what a value means is decided, and refused, row by row later."""
    names = _csv_header(path)
    skipped: list[RefusedLine] = []  # the reader may be batches ahead of what has been yielded

    def skip(row: pa.csv.InvalidRow) -> str:
        detail = f"the line has {row.actual_columns} columns, the header {row.expected_columns}"
        skipped.append(RefusedLine(row.number or 0, "malformed_line", detail, row.text[:2000]))
        return "skip"

    text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, quoted_strings_can_be_null=True, null_values=[""]
    )
    reading = pa.csv.ReadOptions(use_threads=False, block_size=8 << 20)
    parsing = pa.csv.ParseOptions(invalid_row_handler=skip, ignore_empty_lines=False)
    with _open(path) as source:
        reader = pa.csv.open_csv(source, reading, parsing, text)
        line, told = 2, 0
        for batch in reader:
            gone = np.array([r.row for r in skipped if r.row >= line], np.int64)
            numbers = np.setdiff1d(np.arange(line, line + batch.num_rows + len(gone)), gone)[: batch.num_rows]
            line = int(numbers[-1]) + 1 if len(numbers) else line
            filled = np.logical_or.reduce([np.asarray(column.is_valid()) for column in batch.columns])  # a blank line is no row
            yield RawBatch(pa.Table.from_batches([batch]).filter(pa.array(filled)), numbers[filled], skipped[told:])
            told = len(skipped)
        yield _no_rows(reader.schema, skipped[told:])


def _csv_header(path: Path) -> list[str]:
    with _open(path) as source:
        header = source.readline(LONGEST_LINE)
    if not header.strip():
        raise DataError(f"{path} line 1 is blank; it must name the columns")
    if header.lstrip().startswith(b"{"):
        raise DataError(f"{path} is named as CSV but begins as JSON lines: rename it")
    first = pa.csv.read_csv(pa.BufferReader(header), pa.csv.ReadOptions(autogenerate_column_names=True)).to_pylist()[0]
    return [str(name) for name in first.values()]


def _read_lines(path: Path) -> Iterator[RawBatch]:
    records: list[dict[str, object]] = []
    numbers: list[int] = []
    refused: list[RefusedLine] = []
    names: dict[str, None] = {}
    for number, line in _lines(path):
        try:
            records.append(_record(line))
            numbers.append(number)
        except (ValueError, RecursionError) as error:
            refused.append(RefusedLine(number, "malformed_json", f"line {number}: {error}", line[:2000].decode(errors="replace")))
        if len(records) + len(refused) >= LINES:
            yield _tabled(path, names, records, numbers, refused)
            records, numbers, refused = [], [], []
    if records or refused:
        yield _tabled(path, names, records, numbers, refused)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    with _open(path) as source:
        number = 0
        while line := source.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise DataError(f"{path} line {number} is longer than {LONGEST_LINE >> 20} MB")
            if line.strip():
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _record(line: bytes) -> dict[str, object]:
    """The object of a line. Raises `ValueError` where it is none, or holds text that no encoding has."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a record is an object, not {type(record).__name__}")
    if b"\\u" in line:
        json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return _flat(record)


def _flat(record: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested objects as dotted names; a list of objects that have a symbol as the list of symbols."""
    flat: dict[str, object] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            items = [v.get("symbol") if isinstance(v, dict) else v for v in value]
            flat[prefix + key] = [v if isinstance(v, str) else None for v in items]
        else:
            flat[prefix + key] = value
    return flat


def _tabled(
    path: Path, names: dict[str, None], records: list[dict[str, object]], numbers: list[int], refused: list[RefusedLine]
) -> RawBatch:
    """Records as columns: those of this batch and, empty, those that only earlier ones had, which `names` collects.

    A column of mixed kinds becomes text, which the checks then take apart value by value.
    """
    names |= dict.fromkeys(key for record in records for key in record)
    if not names:
        raise DataError(f"{path} is named as JSON lines, but none of its first {len(refused):,} is a JSON object; {refused[0].detail}")
    columns = [_column([record.get(name) for record in records]) for name in names]
    return RawBatch(pa.table(columns, names=list(names)), np.array(numbers, np.int64), refused)


def _column(values: list[object]) -> pa.Array:
    kinds = {type(v) for v in values} - {type(None)}
    if list in kinds and kinds <= {list, str}:
        return pa.array([[v] if isinstance(v, str) else v for v in values], pa.list_(pa.string()))
    try:
        if list not in kinds:
            return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass  # mixed kinds
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


READERS: dict[str, Callable[[Path], Iterator[RawBatch]]] = {
    "Parquet": _read_parquet,
    "CSV": _read_csv,
    "JSON lines": _read_lines,
    "Arrow": _read_arrow,
}
"""What reads each kind of file."""


def rows_of(path: Path) -> int | None:
    """How many rows a file has, where its footer says so; for progress bars."""
    if path.suffix.lower() in (".parquet", ".pq") and _kind_by_content(path) == "Parquet":
        try:
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        except (pa.ArrowInvalid, OSError):
            return None
    return None
