"""`asof init`: a folder in which the next commands just work."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import pyarrow.parquet
import typer

from asof.cli.console import JsonOption, emit, out
from asof.config import FILE
from asof.errors import AsofError
from asof.sources.sample import make_sample

TEMPLATES = {FILE: "asof.toml", "features.py": "features.py.txt"}
NEXT = (
    "asof plan",
    "asof apply",
    "asof ingest bars data/bars.parquet",
    "asof ingest events data/events.jsonl",
    "asof backfill my_v1 --timeframe 1d",
    "asof get my_v1 --timeframe 1d --latest",
    "asof join my_v1 --timeframe 1d data/entities.csv --out training.parquet",
)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder; made if it is not there.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write asof.toml, features.py and sample data into a folder."""
    taken = [name for name in TEMPLATES if (folder / name).exists()]
    if taken:
        raise AsofError(f"{folder / taken[0]} is already there; choose an empty folder (asof init DIR), or remove it")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, template in TEMPLATES.items():
        (folder / name).write_text(files("asof.cli").joinpath("templates", template).read_text())
    write_sample(folder / "data")
    if as_json:
        emit({"folder": str(folder), "next": list(NEXT)})
        return
    files_there = ", ".join(TEMPLATES)
    out.print(
        f"Wrote {files_there} and data/ (a sample made up from a seed, of no real company) to {folder}.\n\nNext:",
        markup=False,
        soft_wrap=True,
    )
    for line in (*([] if folder == Path() else [f"cd {shlex.quote(str(folder))}"]), *NEXT):
        out.print(f"  {line}", markup=False, soft_wrap=True)


def write_sample(folder: Path) -> None:
    """`bars.parquet`, `events.jsonl` and `entities.csv` of the sample."""
    sample = make_sample()
    pyarrow.parquet.write_table(sample.bars, folder / "bars.parquet")
    with (folder / "events.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in sample.events)
    rows = ["instrument_id,event_timestamp,label"]
    rows += [
        f"{name},2024-{month:02d}-15T12:00:00Z,{(month + k) % 2}"
        for k, name in enumerate(("ALFA", "BRAVO", "ECHO"))
        for month in range(2, 12)
    ]
    (folder / "entities.csv").write_text("\n".join(rows) + "\n")
