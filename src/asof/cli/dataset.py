"""`asof dataset`: training sets that are frozen, and proved later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from asof.cli.console import JsonOption, KnownAtOption, MaxAgeOption, StoreOption, TimeframeOption, emit, err, out
from asof.cli.join import entity_rows
from asof.errors import DataError
from asof.feature_store import connect
from asof.jobs.dataset import DATA, FOLDER, Dataset, Proof, load, names
from asof.jobs.manifest import Manifest

app = typer.Typer(no_args_is_help=True, help="Data sets: training sets that are frozen with all they were made of, and proved later.")

NameArgument = Annotated[str, typer.Argument(help="Name of the data set.")]
FolderOption = Annotated[Path, typer.Option("--out", "--dir", "-o", help="Folder of the data sets.")]


@app.command("create")
def create_dataset(
    name: NameArgument,
    entities: Annotated[Path, typer.Argument(help="File of rows with instrument_id and event_timestamp; other columns are kept.")],
    features: Annotated[
        list[str], typer.Option("--features", "-f", help="A feature set, or one feature such as fs_v1:ret_1; again for more.")
    ],
    timeframe: TimeframeOption,
    max_age: MaxAgeOption = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of event_timestamps that name none.")] = None,
    known_at: KnownAtOption = None,
    folder: FolderOption = Path(FOLDER),
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Freeze a training set: Parquet, a manifest and checksums in a folder of its own. One that is there is never written over."""
    rows = entity_rows(entities)
    with connect(store, create=False) as opened:
        made = opened.create_dataset(name, rows, features, timeframe, max_age=max_age, timezone=timezone, known_at=known_at, folder=folder)
    if as_json:
        emit({"folder": str(made.folder), **made.manifest.record()})
    else:
        known = f"{made.manifest.known_at:%Y-%m-%d %H:%M:%S.%f}"
        out.print(f"{made.manifest.rows:,} rows in {made.folder / DATA}, as known at {known} UTC", markup=False, soft_wrap=True)


@app.command("verify")
def verify_dataset(name: NameArgument, folder: FolderOption = Path(FOLDER), store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check a data set's files, join it again from what the store knew then, and compare every bit. Ends with 1 where one differs."""
    with connect(store, create=False) as opened:
        found = opened.verify_dataset(name, folder=folder)
    if as_json:
        emit(_facts(found))
    else:
        _show(name, found)
    if not found.right:
        raise typer.Exit(code=1)


@app.command("list")
def list_datasets(folder: FolderOption = Path(FOLDER), as_json: JsonOption = False) -> None:
    """List the data sets of a folder."""
    there: list[Dataset] = []
    for name in names(folder):
        try:
            there.append(load(folder, name))
        except DataError as error:
            err.print(f"[yellow]{escape(str(error))}[/]", soft_wrap=True)
    if as_json:
        emit({"datasets": [dataset.manifest.record() for dataset in there]})
        return
    table = Table("name", "rows", "columns", "feature sets", "timeframe", "known at", box=None, header_style="bold", pad_edge=False)
    for dataset in there:
        table.add_row(*map(escape, _cells(dataset.manifest)))
    out.print(table if there else f"no data sets in {escape(str(folder))}")


@app.command("show")
def show_dataset(name: NameArgument, folder: FolderOption = Path(FOLDER), as_json: JsonOption = False) -> None:
    """Show what a data set was made of."""
    manifest = load(folder, name).manifest
    if as_json:
        emit(manifest.record())
        return
    for label, value in _about(manifest).items():
        out.print(f"[bold]{label}[/]: {escape(value)}", soft_wrap=True)
    for frozen in manifest.feature_sets:
        out.print(f"\n[bold]{escape(frozen.version)}[/] {frozen.fingerprint}: {escape(', '.join(frozen.features))}", soft_wrap=True)
        out.print(frozen.text, style="dim", markup=False, soft_wrap=True)


def _about(manifest: Manifest) -> dict[str, str]:
    return {
        "name": manifest.name,
        "rows": f"{manifest.rows:,}",
        "columns": ", ".join(f"{name} ({kind})" for name, kind in manifest.columns.items()),
        "entities": ", ".join(manifest.entities),
        "timeframe": manifest.timeframe,
        "max age": (manifest.max_age or "any")
        + (f" ({', '.join(map('='.join, manifest.calendars.items()))})" if manifest.calendars else ""),
        "known at": manifest.known_at.isoformat(),
        "created at": manifest.created_at.isoformat(),
        "made by": f"asof {manifest.asof_version}, pipeline {manifest.pipeline_version}",
    }


def _cells(manifest: Manifest) -> tuple[str, ...]:
    sets = ", ".join(frozen.version for frozen in manifest.feature_sets)
    return (
        manifest.name,
        f"{manifest.rows:,}",
        str(len(manifest.columns)),
        sets,
        manifest.timeframe,
        f"{manifest.known_at:%Y-%m-%d %H:%M:%S}",
    )


def _facts(found: Proof) -> dict[str, object]:
    counts = {name: getattr(found.rows, name) for name in ("equal", "different", "missing", "extra")}
    files = [vars(file) for file in found.files]
    return {"right": found.right, "files": files, **counts, "examples": [vars(example) for example in found.rows.examples]}


def _show(name: str, found: Proof) -> None:
    for file in found.files:
        what = "is gone" if file.found is None else f"has SHA-256 {file.found}"
        out.print(f"{escape(name)}: [bold red]{file.file} {what}[/], and {file.written} was written", soft_wrap=True)
    if found.files:
        out.print("the rows were not compared: the files are not those that were written")
        return
    rows, verdict = found.rows, "[green]all equal[/]" if found.right else "[bold red]not equal[/]"
    out.print(
        f"{escape(name)}: {verdict}: {rows.equal:,} rows equal, {rows.different:,} different, {rows.missing:,} without their vector,"
        f" {rows.extra:,} with one that was not there",
        soft_wrap=True,
    )
    for example in rows.examples:
        where = f"{example.instrument} {example.ts} {example.column}"
        out.print(escape(f"  {where}: in the data set {example.stored!r}, from the store {example.computed!r}"), soft_wrap=True)
