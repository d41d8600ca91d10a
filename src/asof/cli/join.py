"""`asof join`: a training set, each row with the features that could be known at its time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from asof.cli.console import JsonOption, KnownAtOption, MaxAgeOption, StoreOption, TimeframeOption, emit, out
from asof.errors import DataError
from asof.feature_store import connect
from asof.jobs import reading
from asof.jobs.ages import Age
from asof.jobs.files import replacing
from asof.jobs.formats import TABLES
from asof.sources.files import read_file


def join(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    entities: Annotated[Path, typer.Argument(help="File of rows with instrument_id and event_timestamp; other columns are kept.")],
    timeframe: TimeframeOption,
    file: Annotated[Path, typer.Option("--out", "-o", help="File to write: .parquet, .csv or .arrow.")],
    feature: Annotated[list[str] | None, typer.Option("--feature", "-f", help="Only this feature; may be given again.")] = None,
    max_age: MaxAgeOption = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of event_timestamps that name none.")] = None,
    known_at: KnownAtOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join features to entity rows as of each row's event_timestamp. Every row is kept, in its order."""
    form = file.suffix.lstrip(".")
    if form not in TABLES:
        raise typer.BadParameter(f"{file}: the name must end in one of {', '.join('.' + t for t in TABLES)}", param_hint="--out")
    rows = entity_rows(entities)
    age = None if max_age is None else Age.of(max_age)
    with connect(store, create=False) as opened:
        definition, selection = opened.select(feature_set, timeframe, known_at=known_at)
        chosen = tuple(feature or ()) or None
        joined = reading.join(opened.store, definition, timeframe, rows, chosen, age, timezone, selection.known_at, opened.calendars)
    with replacing(file) as stream:
        TABLES[form](joined, stream)
    found = len(joined) - joined["ts"].null_count
    if as_json:
        emit({"rows": len(joined), "found": found, "out": str(file)})
    else:
        out.print(f"{len(joined):,} rows in {file}, {found:,} of them with a vector", markup=False, soft_wrap=True)


def entity_rows(path: Path) -> pa.Table:
    """All rows of a file. Raises `DataError` where one is no row: a training set that lacks rows is worse than none."""
    tables = []
    for raw in read_file(path):
        if raw.refused:
            raise DataError(f"{path} line {raw.refused[0].row}: {raw.refused[0].detail}")
        tables.append(raw.table)
    try:
        return pa.concat_tables([t for t in tables if len(t)] or tables[:1], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: its columns change their kind half way: {error}") from None
