"""`asof dlq list` and `asof dlq replay`: messages that could not be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from asof.cli.console import JsonOption, emit, err, out
from asof.config import Settings, load_settings
from asof.errors import MissingExtra, NotFound
from asof.sources.dead_letters import DeadLetter, printable

if TYPE_CHECKING:
    from asof.sources.kafka import Brokers

app = typer.Typer(no_args_is_help=True, help="Dead letters: messages from the broker that could not be used.")

SHOWN_BYTES = 60

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only letters of this reason.")]


@app.command("list")
def list_letters(
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the newest last: where each message was, why it could not be used, and how it begins."""
    settings = load_settings()
    letters = _letters(settings, reason)
    if as_json:
        emit({"total": len(letters), "letters": [_record(letter) for letter in letters[-limit:]]})
        return
    table = Table("topic", "partition:offset", "reason", "refused at", "bytes", "begins with", "replayed", box=None, header_style="bold")
    for letter in letters[-limit:]:
        table.add_row(*map(escape, _cells(letter)))
    out.print(table if letters else "no dead letters")
    if len(letters) > limit:
        err.print(f"the newest {limit} of {len(letters):,}; --limit shows more")


@app.command("replay")
def replay_letters(
    places: Annotated[list[str] | None, typer.Argument(help="Messages to send back, by partition:offset, such as 3:1742.")] = None,
    reason: ReasonOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All letters that were not sent back yet.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that were sent back before.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send messages back to their topic, as they came. One that was sent back before is left alone unless --again is given."""
    if not (places or reason or everything):
        raise typer.BadParameter("say which: messages by partition:offset, --reason or --all", param_hint="PLACES")
    settings = load_settings()
    letters = [letter for letter in _letters(settings, reason) if letter.place.topic == settings.enriched_topic]
    chosen = _named(letters, places) if places else letters
    fresh = [letter for letter in chosen if (again or letter.replayed is None) and not letter.cut]
    if fresh and not yes:
        _ask(f"send {len(fresh):,} messages back to {settings.enriched_topic}?", as_json)
    with _kafka():
        from asof.jobs.dead_letters import replay  # noqa: PLC0415  # confluent-kafka is an extra
    too_large = replay(_brokers(settings), fresh)
    left = {
        "replayed_before": sum(not again and letter.replayed is not None for letter in chosen),
        "cut": sum(letter.cut for letter in chosen),
        "too_large": len(too_large),
    }
    _tell(len(fresh) - len(too_large), left, as_json)


def _named(letters: list[DeadLetter], places: list[str]) -> list[DeadLetter]:
    """The letters of messages that are named by partition and offset. Raises `NotFound` for one that has none."""
    there = {f"{letter.place.partition}:{letter.place.offset}": letter for letter in letters}
    if missing := [place for place in places if place not in there]:
        raise NotFound(f"there is no dead letter of {', '.join(missing)}; asof dlq list shows what there is")
    return [there[place] for place in dict.fromkeys(places)]


def _ask(question: str, as_json: bool) -> None:
    if as_json:
        raise typer.BadParameter(f"{question} say --yes", param_hint="--yes")
    typer.confirm(question, abort=True)


def _tell(sent: int, left: dict[str, int], as_json: bool) -> None:
    if as_json:
        emit({"replayed": sent, **left})
        return
    out.print(f"[green]{sent:,} replayed[/]")
    says = {
        "replayed_before": "were sent back before; --again sends them once more",
        "cut": "hold but the beginning of their message; the message itself is in its topic, while that keeps it",
        "too_large": "are too large for their topic: raise its max.message.bytes",
    }
    for name, count in left.items():
        if count:
            err.print(f"{count:,} {says[name]}")


def _letters(settings: Settings, reason: str | None) -> list[DeadLetter]:
    with _kafka():
        from asof.jobs.dead_letters import dead_letters  # noqa: PLC0415  # confluent-kafka is an extra
    found = dead_letters(_brokers(settings), settings.dead_letter_topic)
    return [letter for letter in found if reason in (None, letter.reason)]


def _brokers(settings: Settings) -> Brokers:
    with _kafka():
        from asof.sources.kafka import Brokers, Silent  # noqa: PLC0415  # confluent-kafka is an extra
    return Brokers(settings, Silent())


@contextmanager
def _kafka() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f'dead letters need confluent-kafka: pip install "asof[kafka]" ({error})') from None


def _cells(letter: DeadLetter) -> list[str]:
    begins = printable(letter.beginning[:SHOWN_BYTES])
    return [
        printable(letter.place.topic),
        f"{letter.place.partition}:{letter.place.offset}",
        printable(letter.reason),
        f"{letter.at:%Y-%m-%d %H:%M:%S}",
        f"{letter.size:,}",
        begins + ("..." if letter.size > SHOWN_BYTES else ""),
        f"{letter.replayed:%Y-%m-%d %H:%M:%S}" if letter.replayed else "",
    ]


def _record(letter: DeadLetter) -> dict[str, object]:
    return {
        "topic": letter.place.topic,
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "refused_at": letter.at.isoformat(),
        "bytes": letter.size,
        "cut": letter.cut,
        "begins_with": printable(letter.beginning),
        "replayed_at": letter.replayed.isoformat() if letter.replayed else None,
    }
