"""Files for LEAN, QuantConnect's engine, to be read as custom data. Needs nothing; the reader's few lines are in the documentation.

One file for each instrument, `<folder>/<feature set>/<timeframe>/<instrument in small letters>.csv`. A line begins with the moment (UTC, as
`2024-06-10 14:30:00.000000`) from which on a vector was the newest that was known: LEAN hands a line to the algorithm at its end time, so
that is the end time to give it. Then come the open of its bar, the features in the order of the header, empty where missing, and the flags
with `;` between them. Where what was known was taken away and nothing is left, all after the moment is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from asof.backtests import CLOCK, changes, wanted
from asof.errors import DataError
from asof.feature_store import FeatureStore, Sets, Time
from asof.jobs.files import replacing

_TIME = "%Y-%m-%d %H:%M:%S"
_SAFE = re.compile(r"[A-Za-z0-9_^=-][A-Za-z0-9._^=-]{0,99}")


def write(
    store: FeatureStore,
    features: Sets | Iterable[str],
    timeframe: str,
    folder: str | Path,
    start: Time,
    end: Time,
    *,
    instruments: Iterable[str] | None = None,
    known_at: Time = CLOCK,
) -> list[Path]:
    """Write the files, each whole or not at all, and say which. A file's first line is what was known at `start`, if anything was.

    Instruments of which nothing was known get no file. Raises `DataError` for an instrument whose name can be no file's, or is another's
    but for its letters' case, and as `iter_asof` does.
    """
    chosen, names = wanted(store, features)
    inside = Path(folder) / chosen.version / timeframe
    tables = changes(store, features, timeframe, start, end, instruments=instruments, known_at=known_at)
    header = ",".join(("as_of", "ts", *names, "quality_flags")) + "\n"
    written: dict[str, tuple[str, Path, BinaryIO]] = {}
    with ExitStack() as stack:
        for table in tables:
            inside.mkdir(parents=True, exist_ok=True)
            for instrument, rows in _by_instrument(table):
                if instrument not in written:
                    path = inside / f"{_file_name(instrument, written)}.csv"
                    stream = stack.enter_context(replacing(path))
                    stream.write(header.encode())
                    written[instrument] = (instrument.lower(), path, stream)
                written[instrument][2].write(_lines(rows, names))
    return [path for _, path, _ in written.values()]


def _by_instrument(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    for name in pc.unique(table["instrument_id"]).to_pylist():
        yield name, table.filter(pc.equal(table["instrument_id"], name))


def _file_name(instrument: str, written: dict[str, tuple[str, Path, BinaryIO]]) -> str:
    if not _SAFE.fullmatch(instrument):
        raise DataError(f"instrument {instrument!r} can be no file's name: letters, digits and ._^=- are, a dot not at the front")
    for other, (lowered, _, _) in written.items():
        if lowered == instrument.lower():
            raise DataError(f"instruments {other!r} and {instrument!r} would have one file: LEAN names files in small letters")
    return instrument.lower()


def _lines(rows: pa.Table, features: tuple[str, ...]) -> bytes:
    columns = [_texts(rows["as_of"]), _texts(rows["ts"])]
    columns += [["" if value is None else repr(value) for value in rows[name].to_pylist()] for name in features]
    columns.append([";".join(flags or ()) for flags in rows["quality_flags"].to_pylist()])
    return "".join(",".join(cells) + "\n" for cells in zip(*columns, strict=True)).encode()


def _texts(times: pa.ChunkedArray) -> list[str]:
    return ["" if time is None else f"{time:{_TIME}}.{time.microsecond:06d}" for time in times.to_pylist()]


__all__ = ["write"]
