"""`asof replay`: stored history through the live code."""

from __future__ import annotations

import re
import time
from typing import Annotated

import typer
from rich.markup import escape

from asof.cli.console import InstrumentOption, JsonOption, StoreOption, TimeframeOption, emit, out, progress
from asof.errors import DefinitionError
from asof.feature_store import connect


def replay(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    into: Annotated[str, typer.Option(help="An empty store that it goes into, such as duckdb:///replay.duckdb.")] = "duckdb://",
    start: Annotated[
        str | None, typer.Option("--from", help="What was known before goes in at once: a date, or a time with its zone.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Nothing that became known later goes in.")] = None,
    speed: Annotated[str, typer.Option(help="`max`, or how much faster than history: 1x, 60x.")] = "max",
    every_moment: Annotated[
        bool, typer.Option("--every-moment", help="A cycle for each moment, so that each vector is known from when it could be; slower.")
    ] = False,
    seed: Annotated[int, typer.Option(help="What came at one moment is in another order for another number.")] = 0,
    topic: Annotated[
        str | None,
        typer.Option(help="Publish the vectors as well, as the service would, to this topic: one without messages, and not the live one."),
    ] = None,
    instrument: InstrumentOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; all processors by default.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Feed stored bars and events through the code of the live service, in the order in which they became known, into another store.

    Corrections and late events come when they came. `asof verify --against replay` does it in memory, and compares.
    """
    pace, began = _pace(speed), time.perf_counter()
    with connect(store, create=False) as source, connect(into) as scratch, progress(f"replay {feature_set}", as_json) as step:
        done = source.replay(
            feature_set,
            timeframe,
            scratch,
            instruments=instrument,
            start=start,
            end=end,
            pace=pace,
            seed=seed,
            topic=topic,
            every_moment=every_moment,
            threads=threads,
            progress=step,
        )
        url = scratch.store.url
    seconds, changes = time.perf_counter() - began, done.changes
    facts = {"computed": done.computed, "inserted": changes.inserted, "corrected": changes.corrected, "withdrawn": done.withdrawn}
    if as_json:
        emit({**facts, "failed": dict(done.failed), "into": url, "topic": topic, "seconds": round(seconds, 3)})
        return
    where = ("in memory" if url == "duckdb://" else f"in {url}") + (f" and published to {escape(topic)}" if topic else "")
    out.print(
        f"{feature_set} {timeframe}: {changes.inserted:,} vectors came to be and {changes.corrected:,} were corrected since, {where}"
        f" ({done.computed:,} computed, {done.withdrawn:,} withdrawn) in {seconds:.1f} s"
    )
    for name, why in done.failed.items():
        out.print(f"[bold red]{name}[/] could not be computed: {why}")


def _pace(speed: str) -> float | None:
    """How many seconds of history pass in one; None for as fast as it can."""
    if speed == "max":
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)x", speed)
    if not found or not float(found[1]):
        raise DefinitionError(f"speed {speed!r} is neither max nor a number of times such as 1x or 60x")
    return float(found[1])
