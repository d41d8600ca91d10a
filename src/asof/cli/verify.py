"""`asof verify`: stored vectors against what their inputs give, bit for bit."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from asof.cli.console import FromOption, InstrumentOption, JsonOption, StoreOption, TimeframeOption, ToOption, emit, out, progress
from asof.feature_store import connect
from asof.jobs.verify import Verified


def verify(
    feature_set: Annotated[str, typer.Argument(help="Version of the feature set, such as fs_v1.")],
    timeframe: TimeframeOption,
    start: FromOption = None,
    end: ToOption = None,
    instrument: InstrumentOption = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many instruments, chosen at random.")] = None,
    seed: Annotated[int, typer.Option(help="Which ones: the same for the same number.")] = 0,
    against: Annotated[
        str, typer.Option(help="`inputs` computes what is stored again; `replay` feeds it through the live code as it became known.")
    ] = "inputs",
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Threads; all processors by default.")] = None,
    memory: Annotated[str, typer.Option(help="Memory to stay within.")] = "2GB",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute stored vectors again and compare every bit; nothing is written. Ends with 1 where one differs."""
    with connect(store, create=False) as opened, progress(f"verify {feature_set}", as_json) as step:
        found = opened.verify(
            feature_set,
            timeframe,
            instruments=instrument,
            start=start,
            end=end,
            sample=sample,
            seed=seed,
            against=against,
            threads=threads,
            memory=memory,
            progress=step,
        )
    if as_json:
        emit(_facts(found))
    else:
        _show(feature_set, timeframe, found)
    if not found.right:
        raise typer.Exit(code=1)


def _facts(found: Verified) -> dict[str, object]:
    counts = {name: getattr(found, name) for name in ("equal", "different", "missing", "extra")}
    return {"right": found.right, **counts, "examples": [vars(example) for example in found.examples]}


def _show(feature_set: str, timeframe: str, found: Verified) -> None:
    verdict = "[green]all equal[/]" if found.right else "[bold red]not equal[/]"
    out.print(
        f"{feature_set} {timeframe}: {verdict}: {found.equal:,} equal, {found.different:,} different, {found.missing:,} missing,"
        f" {found.extra:,} that should not be there"
    )
    for example in found.examples:
        where = f"{example.instrument} {example.ts.isoformat()} {example.column}".rstrip()
        out.print(escape(f"  {where}: stored {example.stored!r}, computed {example.computed!r}"), soft_wrap=True)
    if found.examples:
        first = found.examples[0]
        ts = first.ts.isoformat()
        out.print(f"look closer: asof explain {feature_set} -t {timeframe} -i {escape(first.instrument)} --ts {ts}", soft_wrap=True)
