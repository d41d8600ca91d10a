"""`asof migrate`: bring a store to the layout of this asof."""

from __future__ import annotations

from typing import Annotated

import typer

from asof.cli.console import JsonOption, StoreOption, emit, out
from asof.config import load_settings
from asof.stores.urls import migrate_store


def migrate(
    print_sql: Annotated[bool, typer.Option("--print", help="Print the SQL that would run, and run nothing.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make or upgrade the tables of a PostgreSQL store, and set what TimescaleDB does with old chunks. Safe to run again.

    A DuckDB store needs no such command.
    """
    settings = load_settings()
    ages = (None if age == "off" else age for age in (settings.columnstore_after, settings.retention))
    scripts = migrate_store(store or settings.store, *ages, run=not print_sql)
    if as_json:
        emit({"pending": scripts} if print_sql else {"migrated": list(scripts)})
    elif print_sql:
        for name, sql in scripts.items():
            out.print(f"-- {name}\n{sql}", markup=False, soft_wrap=True)
    elif not scripts:
        out.print("[dim]= nothing to do[/]")
    for name in () if as_json or print_sql else scripts:
        out.print(f"[green]+[/] {name}")
