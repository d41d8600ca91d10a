"""`asof apply`: register the definitions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from asof.cli.console import JsonOption, StoreOption, emit, out
from asof.definitions import available, check, defined, register
from asof.errors import NotFound, did_you_mean
from asof.feature_store import connect


def apply(
    versions: Annotated[
        list[str] | None, typer.Argument(help="Feature sets to register; fs_v1 and those of the project, if none is named.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register feature sets. A registered version with another definition is refused, and then nothing is registered."""
    with connect(store) as opened:
        sets = available(opened.settings)
        for version in versions or ():
            if version not in sets:
                known = ", ".join(sorted(sets))
                raise NotFound(f"no feature set {version!r} is defined; there are {known}{did_you_mean(version, list(sets))}")
        chosen = [sets[v] for v in versions or defined(opened.settings)]
        registry = opened.registered()
        for feature_set in chosen:
            check(feature_set, registry)
        done = {s.version: register(opened.store, s, datetime.now(UTC)) for s in chosen}
    if as_json:
        emit({"registered": [v for v, new in done.items() if new], "unchanged": [v for v, new in done.items() if not new]})
        return
    for version, new in done.items():
        out.print(f"[green]+[/] {version}  registered" if new else f"[dim]= {version}  unchanged[/]")
