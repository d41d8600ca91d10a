"""`asof leakcheck`: features that depend on what could not be known, on where the data begins, or on how the work is split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.markup import escape
from rich.table import Table

from asof import definitions
from asof.cli.console import InstrumentOption, JsonOption, StoreOption, emit, err, out, progress
from asof.config import load_settings
from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.feature_store import connect
from asof.features.feature_set import FeatureSet
from asof.jobs.around import tried_on
from asof.jobs.leakcheck import (
    CUTS,
    MOST_BARS,
    ROUNDING,
    Checkable,
    Finding,
    Leakcheck,
    bits,
    higher_of,
    stored,
    stored_higher,
    stored_market,
    stored_memberships,
)
from asof.jobs.leakcheck import leakcheck as check
from asof.jobs.variations import CHECKS
from asof.operators import Operator


def leakcheck(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="VERSION, such as fs_v1. FILE.py: the feature sets in it. FILE.py:NAME: one, or a function. Without: all that are defined."
        ),
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", "-t", help="Timeframe of the store's bars to take; without it, made-up daily ones.")
    ] = None,
    instrument: InstrumentOption = None,
    bars: Annotated[int, typer.Option(min=2, max=100_000, help="The last so many bars of each instrument, from the store.")] = MOST_BARS,
    operators: Annotated[
        bool, typer.Option("--operators", help="Also every operator of the language, those over points with where= as well.")
    ] = False,
    frame: Annotated[str, typer.Option(help="The data frames that functions take: pandas, polars or arrow.")] = "pandas",
    lookback: Annotated[int | None, typer.Option(min=1, help="How many bars a row of a function depends on.")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Relative rounding that a function may have where its data begins elsewhere.")
    ] = ROUNDING,
    cuts: Annotated[int, typer.Option(min=1, max=100_000, help="Moments at which the future is varied.")] = CUTS,
    seed: Annotated[int, typer.Option(min=0, help="How the data is varied: the same for the same number.")] = 0,
    skip: Annotated[list[str] | None, typer.Option(help="A check to leave out; may be given again.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for leaks in feature sets, and in functions over data frames. Ends with 1 where one is found; nothing is written.

    The future is cut off, changed and shuffled, arrivals are delayed, the data begins elsewhere, the work is split.
    """
    if timeframe is None and instrument:
        raise typer.BadParameter("say which of the store's bars to take, such as --timeframe 1d", param_hint="--timeframe")
    chosen = [*_chosen(what or []), *(tried_on(timeframe) if operators else ())]
    given, others, calendars = _given(timeframe, instrument, bars, seed, store, higher_of(chosen, timeframe))
    with progress("leakcheck", as_json) as step:
        found = check(
            chosen,
            *given,
            **others,
            timeframe=timeframe,
            calendars=calendars,
            frame=frame,
            lookback=lookback,
            tolerance=tolerance,
            cuts=cuts,
            seed=seed,
            skip=skip or (),
            progress=step,
        )
    if as_json:
        emit(_facts(found))
    else:
        _show(found)
    if not found.clean:
        raise typer.Exit(code=1)


def _chosen(what: list[str]) -> list[Checkable]:
    """What the arguments name; every feature set that is defined here, if there are none."""
    if not what:
        return list(definitions.defined(load_settings()).values())
    chosen: list[Checkable] = []
    versions = definitions.available(load_settings())
    for text in what:
        if text in versions:
            chosen.append(versions[text])
            continue
        if ":" not in text and not text.endswith(".py"):
            raise NotFound(f"no feature set {text!r}; there are {', '.join(sorted(versions))}{did_you_mean(text, list(versions))}")
        path, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
        chosen += [_checkable(definitions.held(Path(path), name), text)] if name else definitions.from_file(Path(path))
    return chosen


def _checkable(found: object, text: str) -> Checkable:
    if isinstance(found, FeatureSet | Operator) or callable(found):
        return found
    raise DefinitionError(f"{text} is {type(found).__name__}, no feature set, operator or function")


def _given(
    timeframe: str | None, instruments: list[str] | None, bars: int, seed: int, store: str | None, frames: list[str]
) -> tuple[tuple[pa.Table, ...], dict[str, Any], dict[str, str]]:
    """Bars, events and actions of the store, what else it has by name, and this project's calendars; nothing for made-up ones."""
    if timeframe is None:
        return (), {}, {}
    with connect(store, create=False) as opened:
        found = stored(opened.store, timeframe, tuple(instruments or ()) or None, bars, seed)
        market, higher = stored_market(opened.store, found[0], timeframe), stored_higher(opened.store, found[0], frames)
        others = {**market, "higher": higher, "memberships": stored_memberships(opened.store)}
        return found, others, opened.settings.calendars


def _facts(found: Leakcheck) -> dict[str, object]:
    findings = [{"means": f.means, **vars(f), "whole_bits": bits(f.whole), "part_bits": bits(f.part)} for f in found.findings]
    about = {"clean": found.clean, "subjects": list(found.subjects), "compared": found.compared}
    return {**about, "findings": findings, "unseen": list(found.unseen)}


def _show(found: Leakcheck) -> None:
    if found.findings:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for head in ("feature", "finding", "check", "first row", "rows", "with all of the data", "without"):
            table.add_column(head, overflow="fold")
        for finding in found.findings:
            table.add_row(*_cells(finding))
        out.print(table)
        for name in dict.fromkeys(finding.check for finding in found.findings):
            out.print(f"[dim]{name}: {CHECKS[name].done}[/]")
    what = f"{len(found.subjects)} checked ({', '.join(found.subjects)})" if len(found.subjects) < 9 else f"{len(found.subjects)} checked"
    if found.unseen:
        names = ", ".join(found.unseen)
        err.print(f"[yellow]missing on every row, so that nothing is known of them: {escape(names)}[/]", soft_wrap=True)
    verdict = "[green]clean[/]" if found.clean else f"[bold red]{len(found.findings)} findings[/]"
    out.print(f"{verdict}: {escape(what)}, {found.compared:,} values compared", soft_wrap=True)


def _cells(finding: Finding) -> tuple[str, ...]:
    moment = f" at {finding.moment:%Y-%m-%d %H:%M}" if finding.moment else ""
    texts = (
        f"{finding.subject}: {finding.feature}",
        finding.means,
        f"{finding.check}{moment}",
        f"{finding.instrument} {finding.ts:%Y-%m-%d %H:%M}",
        f"{finding.rows:,}",
    )
    return (*map(escape, texts), *(_number(value) for value in (finding.whole, finding.part)))


def _number(value: float | str | None) -> str:
    """A value with its bits."""
    if value is None:
        return "[dim]missing[/]"
    return f"{value!r} [dim]{bits(value)}[/]" if isinstance(value, float) else escape(value)
