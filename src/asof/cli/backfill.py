"""`asof backfill`: compute and store vectors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

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
    progress,
)
from asof.feature_store import connect
from asof.jobs.files import replacing
from asof.jobs.formats import TABLES
from asof.jobs.parts import memory_bytes
from asof.jobs.work import Report


def backfill(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    start: FromOption = None,
    end: ToOption = None,
    instrument: InstrumentOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; all processors by default.")] = None,
    memory: Annotated[str, typer.Option(help="Memory to stay within.")] = "2GB",
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what bars and events reach that have changed since the last time with --changed.")
    ] = False,
    known_at: KnownAtOption = None,
    file: Annotated[Path | None, typer.Option("--out", "-o", help="With --known-at: the file that the vectors go to.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the vectors of stored bars and events, and store them. Killed half-way, the same command finishes it.

    With --known-at they are computed from what was known then, and go to a file, for the store keeps what is true now.
    """
    if changed and (start or end or instrument or known_at):
        raise typer.BadParameter("what has changed is computed for all instruments and times, as of now", param_hint="--changed")
    if known_at or file:
        _as_known(feature_set, timeframe, known_at, file, (instrument, start, end), threads, store, as_json)
        return
    budget = memory_bytes(memory)
    with (
        connect(store, memory=f"{budget // 2 >> 20}MiB", threads=threads) as opened,
        progress(f"backfill {feature_set}", as_json) as step,
    ):
        began = time.perf_counter()
        report = (
            opened.catch_up(feature_set, timeframe, threads=threads, memory=memory, progress=step)
            if changed
            else opened.backfill(
                feature_set, timeframe, instruments=instrument, start=start, end=end, threads=threads, memory=memory, progress=step
            )
        )
        seconds = time.perf_counter() - began
    if as_json:
        emit(_facts(report) | {"seconds": round(seconds, 3)})
    else:
        out.print(f"{feature_set} {timeframe}: {_told(report, seconds)}")
        _warn(report, timeframe)


def _as_known(
    feature_set: str,
    timeframe: str,
    known_at: str | None,
    file: Path | None,
    wanted: tuple[list[str] | None, str | None, str | None],
    threads: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    form = file.suffix.lstrip(".") if file else ""
    if known_at is None or file is None or form not in TABLES:
        raise typer.BadParameter(f"--known-at and --out go together; the file is one of {', '.join('.' + t for t in TABLES)}")
    instruments, start, end = wanted
    with connect(store, create=False) as opened:
        vectors = opened.compute(
            feature_set, timeframe, instruments=instruments, start=start, end=end, known_at=known_at, threads=threads
        ).to_arrow()
    with replacing(file) as stream:
        TABLES[form](vectors, stream)
    if as_json:
        emit({"computed": len(vectors), "out": str(file)})
    else:
        out.print(f"{len(vectors):,} vectors in {file}, as known at {known_at}", markup=False, soft_wrap=True)


def _facts(report: Report) -> dict[str, object]:
    changes = report.changes
    return {
        "computed": report.computed,
        "inserted": changes.inserted,
        "corrected": changes.corrected,
        "unchanged": changes.unchanged,
        "withdrawn": report.withdrawn,
        "without_bars": list(report.without_bars),
        "failed": dict(report.failed),
    }


def _told(report: Report, seconds: float) -> str:
    changes, withdrawn = report.changes, f", {report.withdrawn:,} withdrawn" if report.withdrawn else ""
    return (
        f"{report.computed:,} vectors in {seconds:.1f} s ({report.computed / seconds:,.0f}/s):"
        f" [green]{changes.inserted:,} new[/], {changes.unchanged:,} unchanged, {changes.corrected:,} corrected{withdrawn}"
    )


def _warn(report: Report, timeframe: str) -> None:
    noted = "noted in feature_quality_log"
    if report.without_bars:
        err.print(f"no {timeframe} bars of {escape(', '.join(report.without_bars))}: no vectors; {noted}")
    for name, why in report.failed.items():
        err.print(f"{escape(name)} could not be computed: {escape(why)}; {noted}")
