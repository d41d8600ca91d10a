"""`asof demo`: the whole main job on made-up data, with a table and a picture of what came out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet
import typer
from rich.markup import escape

from asof.cli.console import JsonOption, emit, err, out, show_table
from asof.cli.init import write_sample
from asof.config import load_settings
from asof.feature_store import FeatureStore
from asof.jobs import reading
from asof.jobs.formats import records
from asof.stores.urls import open_store

SHOWN = "ALFA"


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="Where to put the store, the data and the picture.")] = Path("asof-demo"),
    as_json: JsonOption = False,
) -> None:
    """Make sample data, ingest it, backfill fs_v1, read it back as of a moment, and plot it. Safe to run again."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_sample(folder / "data")
    settings = load_settings().model_copy(update={"features": None, "event_window_minutes": 60, "min_event_count": 3})
    with FeatureStore(open_store(str(folder / "demo.duckdb")), settings) as store:
        _say("sample data: five invented instruments, a year of daily bars, scored news (seeded, of no real company)", as_json)
        bars = store.ingest_bars(folder / "data/bars.parquet")
        events = store.ingest_events(folder / "data/events.jsonl")
        _say(f"ingested {bars.accepted:,} bars and {events.accepted:,} events; {events.unchanged:,} were there already", as_json)
        done = store.backfill("fs_v1", "1d")
        again = store.backfill("fs_v1", "1d")
        _say(f"backfilled {done.computed:,} vectors; computed again, {again.changes.inserted + again.changes.corrected} changed", as_json)
        newest = store.latest("fs_v1", "1d").table
        entities = pa.table({"instrument_id": [SHOWN] * 3, "event_timestamp": [f"2024-06-{day}T12:00:00Z" for day in (12, 13, 14)]})
        training = store.get_historical_features(entities, ["fs_v1:ret_1", "fs_v1:vol_20", "fs_v1:sentiment_mean_1h"], "1d").table
        definition, selection = store.select("fs_v1", "1d", [SHOWN])
        vectors = reading.history(store.store, definition, selection)
    pyarrow.parquet.write_table(training, folder / "training.parquet")
    picture = _plot(vectors, folder / "fs_v1.png")
    if as_json:
        changed = again.changes.inserted + again.changes.corrected
        emit({"vectors": done.computed, "changed_again": changed, "picture": str(picture) if picture else None})
        return
    out.print()
    shown = ["instrument_id", "ts", "ret_1", "vol_20", "event_count_1h", "sentiment_mean_1h", "quality_flags"]
    show_table(newest.select(shown), "the newest vectors")
    out.print()
    show_table(training.drop_columns(["quality_flags"]), "a training set: what could be known at each event_timestamp")
    out.print("\n[bold]the last vector as features.v1[/]")
    out.print_json(data=next(records(definition, vectors.slice(len(vectors) - 1))))
    if picture:
        out.print(f"\nthe picture: [bold]{escape(str(picture))}[/]", soft_wrap=True)
    out.print(f"look further: asof get fs_v1 -t 1d --store {folder / 'demo.duckdb'}", markup=False, soft_wrap=True)


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        out.print(f"[green]*[/] {text}", soft_wrap=True)


def _plot(vectors: pa.Table, path: Path) -> Path | None:
    """Draw the features of one instrument over time; None, with the command that mends it, where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        err.print('no picture without matplotlib: pip install "asof[plot]"')
        return None
    from asof.cli.picture import draw_features  # noqa: PLC0415  # matplotlib is an extra

    draw_features(vectors, path)
    return path
