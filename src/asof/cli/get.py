"""`asof get`: stored vectors, to look at or into a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.markup import escape

from asof.cli.console import (
    FromOption,
    InstrumentOption,
    JsonOption,
    KnownAtOption,
    StoreOption,
    TimeframeOption,
    ToOption,
    emit,
    err,
    out,
    show_table,
)
from asof.errors import did_you_mean
from asof.feature_store import connect
from asof.features.feature_set import FeatureSet
from asof.jobs import reading
from asof.jobs.files import replacing
from asof.jobs.formats import FORMATS, records, write

SHOWN = 20


def get(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    instrument: InstrumentOption = None,
    start: FromOption = None,
    end: ToOption = None,
    known_at: KnownAtOption = None,
    latest: Annotated[bool, typer.Option("--latest", help="Only the newest vector of each instrument.")] = False,
    form: Annotated[str | None, typer.Option("--format", "-f", help="table, csv, jsonl (features.v1), parquet or arrow.")] = None,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; the format follows from its name.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read stored vectors: a table to look at, or the rows in a format for programs."""
    chosen = _format(form, file, as_json)
    with connect(store, create=False) as opened:
        definition, selection = opened.select(feature_set, timeframe, instrument, start, end, known_at)
        read = reading.latest if latest else reading.history
        vectors = read(opened.store, definition, selection)
    tabular = reading.tabular(definition, vectors)
    if not len(vectors):
        err.print(
            f"no vectors of {feature_set} {timeframe} are stored for this selection;"
            f" run asof backfill {feature_set} -t {timeframe}, or widen it",
            markup=False,
            soft_wrap=True,
        )
    if as_json and file is None:
        emit({"vectors": list(records(definition, vectors))})
    elif chosen == "table":
        _show(definition, tabular)
    elif file is None:
        write(chosen, definition, vectors, tabular, sys.stdout.buffer)
    else:
        with replacing(file) as stream:
            write(chosen, definition, vectors, tabular, stream)
        if as_json:
            emit({"rows": len(vectors), "out": str(file)})
        else:
            out.print(f"{len(vectors):,} vectors in {escape(str(file))}", soft_wrap=True)


def _format(form: str | None, file: Path | None, as_json: bool) -> str:
    known = ("table", *FORMATS)
    if form is None:
        form = file.suffix.lstrip(".") if file else "table"
    if form not in known:
        raise typer.BadParameter(f"{form!r} is not one of {', '.join(known)}{did_you_mean(form, known)}", param_hint="--format")
    if form in ("parquet", "arrow") and file is None and sys.stdout.isatty() and not as_json:
        raise typer.BadParameter(f"{form} is not for a terminal: name a file with --out", param_hint="--format")
    if form == "table" and file is not None:
        raise typer.BadParameter("a table is for looking at: choose csv, jsonl, parquet or arrow for a file", param_hint="--format")
    return form


def _show(definition: FeatureSet, tabular: pa.Table) -> None:
    """The last rows, as wide as the terminal allows."""
    show_table(tabular.select(["instrument_id", "ts", *definition.features, "quality_flags"]).slice(max(0, len(tabular) - SHOWN)))
    if len(tabular) > SHOWN:
        err.print(f"the last {SHOWN} of {len(tabular):,}; --out FILE.parquet or --format csv gives them all")
