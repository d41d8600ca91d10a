"""`asof run`: the service."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from asof.cli.console import StoreOption
from asof.config import load_settings
from asof.errors import MissingExtra

ENDING = (signal.SIGTERM, signal.SIGINT)
"""The first of these has the service finish what it has begun; a second one ends it at once."""


def run(
    mode: Annotated[
        str | None,
        typer.Option(
            help="`periodic`: compute every so often. `stream`: bars come from Kafka, vectors are computed as they close and published."
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Run the service: read events from Kafka, keep vectors up to date, answer `/health` and `/metrics`.

    What it does is set in the environment or asof.toml: FEATURE_TICKERS, FEATURE_TIMEFRAMES, FEATURE_SET_VERSION, FEATURE_REFRESH_SECONDS
    and others. It logs to standard error, and ends by Ctrl-C or SIGTERM when the batch that it is in is finished.
    """
    try:
        from asof.service import Service  # noqa: PLC0415  # its parts are extras
        from asof.telemetry import logs  # noqa: PLC0415  # likewise
    except ImportError as error:
        raise MissingExtra(f'the service needs more: pip install "asof[service,postgres,kafka]" ({error})') from None
    settings = load_settings(**({} if mode is None else {"mode": mode}))
    logs.configure(settings.log_level, settings.log_format)
    service = Service(store or settings.store_url, settings)

    def end(number: int, frame: FrameType | None) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_DFL)
        service.end()

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        service.run(lambda port: typer.echo(f"/health and /metrics at http://{settings.health_host}:{port}"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
