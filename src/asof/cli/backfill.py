"""`asof backfill`: compute and store vectors."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.markup import escape

from asof.cli.console import FromOption, InstrumentOption, JsonOption, StoreOption, TimeframeOption, ToOption, emit, err, out, progress
from asof.feature_store import connect
from asof.jobs.backfill import memory_bytes


def backfill(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    start: FromOption = None,
    end: ToOption = None,
    instrument: InstrumentOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; all processors by default.")] = None,
    memory: Annotated[str, typer.Option(help="Memory to stay within.")] = "2GB",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the vectors of stored bars and events, and store them. Killed half-way, the same command finishes it."""
    budget = memory_bytes(memory)
    with (
        connect(store, memory=f"{budget // 2 >> 20}MiB", threads=threads) as opened,
        progress(f"backfill {feature_set}", as_json) as step,
    ):
        began = time.perf_counter()
        report = opened.backfill(
            feature_set,
            timeframe,
            instruments=instrument,
            start=start,
            end=end,
            threads=threads,
            memory=memory,
            progress=step,
        )
        seconds = time.perf_counter() - began
    changes = report.changes
    if as_json:
        emit(
            {
                "computed": report.computed,
                "inserted": changes.inserted,
                "corrected": changes.corrected,
                "unchanged": changes.unchanged,
                "without_bars": list(report.without_bars),
                "seconds": round(seconds, 3),
            }
        )
        return
    out.print(
        f"{feature_set} {timeframe}: {report.computed:,} vectors in {seconds:.1f} s ({report.computed / seconds:,.0f}/s):"
        f" [green]{changes.inserted:,} new[/], {changes.unchanged:,} unchanged, {changes.corrected:,} corrected"
    )
    if report.without_bars:
        err.print(f"no {timeframe} bars of {escape(', '.join(report.without_bars))}: no vectors; noted in feature_quality_log")
