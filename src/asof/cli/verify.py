"""`asof verify`: stored vectors against what their inputs give, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.markup import escape

from asof.cli.console import FromOption, InstrumentOption, JsonOption, StoreOption, TimeframeOption, ToOption, emit, out, progress
from asof.cli.explain import facts, show
from asof.feature_store import connect
from asof.jobs.causes import Cause, ChangedInput
from asof.jobs.verify import EXAMPLES, Verified

SHOWN = 10
"""Changed inputs that are shown."""


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
    explained: Annotated[
        int, typer.Option("--explain", min=0, max=EXAMPLES, help="So many of the first differences are taken apart, with their cause.")
    ] = 1,
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
        causes = [opened.cause(feature_set, timeframe, example) for example in found.examples[:explained]]
    if as_json:
        emit(_facts(found) | {"causes": [_cause(one) for one in causes]})
    else:
        _show(feature_set, timeframe, found, causes)
    if not found.right:
        raise typer.Exit(code=1)


def _facts(found: Verified) -> dict[str, object]:
    counts = {name: getattr(found, name) for name in ("equal", "different", "missing", "extra")}
    return {"right": found.right, **counts, "examples": [vars(example) for example in found.examples]}


def _cause(found: Cause) -> dict[str, object]:
    about = {"instrument": found.difference.instrument, "ts": found.difference.ts, "column": found.difference.column}
    changed = [vars(one) for one in found.changed]
    explained = found.explained and facts(found.explained)
    return {**about, "computed_at": found.computed_at, "accounted": found.accounted, "changed": changed, "explained": explained}


def _show(feature_set: str, timeframe: str, found: Verified, causes: list[Cause]) -> None:
    verdict = "[green]all equal[/]" if found.right else "[bold red]not equal[/]"
    out.print(
        f"{feature_set} {timeframe}: {verdict}: {found.equal:,} equal, {found.different:,} different, {found.missing:,} missing,"
        f" {found.extra:,} that should not be there"
    )
    for example in found.examples:
        where = f"{example.instrument} {example.ts.isoformat()} {example.column}".rstrip()
        out.print(escape(f"  {where}: stored {example.stored!r}, computed {example.computed!r}"), soft_wrap=True)
    for one in causes:
        out.print()
        if one.explained is not None:
            show(feature_set, timeframe, one.explained, one.difference.column)
        for line in _told(one):
            out.print(escape(line), soft_wrap=True)
    if len(found.examples) > len(causes):
        further = found.examples[len(causes)]
        ts = further.ts.isoformat()
        out.print(f"look closer: asof explain {feature_set} -t {timeframe} -i {escape(further.instrument)} --ts {ts}", soft_wrap=True)


def _told(found: Cause) -> Iterator[str]:
    """What is known of the cause, and what has changed."""
    if found.computed_at is None:
        yield "cause: no backfill has followed the bar, or its vector was taken away; a backfill brings it"
        return
    changed = len(found.changed)
    since = f"the vector was computed at {found.computed_at.isoformat()}"
    if found.accounted:
        yield f"cause: {since} from inputs that were others then ({changed} changed since); a backfill mends it"
    elif changed:
        yield f"{since}; {changed} inputs have changed since, but what they were then does not give what is stored either"
    else:
        yield (
            f"cause: {since}, and no change of an input is known since: the vector or an input was changed behind the store's back, or"
            " another program computed it"
        )
    for one in found.changed[:SHOWN]:
        yield _line(one)
    if changed > SHOWN:
        yield f"  ... and {changed - SHOWN:,} more; --json has them all"


def _line(one: ChangedInput) -> str:
    where = " ".join(str(value) for name, value in one.key.items() if name not in ("instrument_id", "timeframe"))
    if one.before is None:
        what = "was not there"
    elif one.now is None:
        what = "is not there any more"
    else:
        what = ", ".join(f"{name} {one.before[name]} -> {one.now[name]}" for name in one.now)
    return f"  {one.kind} {where}: {what}, since {one.since.isoformat()}"
