"""What every command shares: its output (for people or, with `--json`, for scripts), its options, its progress bar."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from asof.cli.interrupts import check

WIDE = 400
"""Columns of what goes to a file or a pipe: a line there is a line, and no table is squeezed."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDE)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Store to use: duckdb:///path, a plain path, postgresql://user:password@host:port/database, or to read from a service http://host:port.",
        envvar="ASOF_STORE",
        show_envvar=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
TimeframeOption = Annotated[str, typer.Option("--timeframe", "-t", help="Timeframe of the bars: <n>s, <n>m, <n>h or <n>d.")]
InstrumentOption = Annotated[list[str] | None, typer.Option("--instrument", "-i", help="Only this instrument; may be given again.")]
FromOption = Annotated[str | None, typer.Option("--from", help="First bar: a date, or a time with its zone.")]
KnownAtOption = Annotated[
    str | None, typer.Option("--known-at", help="As the store held it to be true then: a date, or a time with its zone.")
]
MaxAgeOption = Annotated[
    str | None,
    typer.Option(
        help="Oldest vector to use, from available_at on: `3d` by the clock, `2h trading` of open hours, `3d trading` of sessions."
    ),
]
ToOption = Annotated[str | None, typer.Option("--to", help="Last bar, included: a date, or a time with its zone.")]


def emit(value: dict[str, object]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} rows/s")


Step = Callable[[int, int | None], None]
"""Told how many more rows are done, and of how many in all where that is known."""


@contextmanager
def progress(title: str, quiet: bool) -> Iterator[Step]:
    """A progress bar on standard error with rate and time left; none where nobody looks. Each step also looks for a Ctrl-C."""
    columns = (SpinnerColumn(), TextColumn(title), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def step(done: int, total: int | None) -> None:
            check()
            bar.update(task, advance=done, total=total)

        yield step


def show_table(rows: pa.Table, title: str | None = None) -> None:
    """Rows as a table to look at; numbers to the right, missing values as `-`."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for field in rows.schema:
        table.add_column(field.name, justify="right" if pa.types.is_floating(field.type) else "left", overflow="fold")
    for row in rows.to_pylist():
        table.add_row(*map(_cell, row.values()))
    out.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "[dim]-[/]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return escape(", ".join(map(str, value))) or "[dim]-[/]"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else escape(str(value))
