"""Logs: one event a line on standard error, as JSON or, on a terminal, to be read; never with a secret in it.

Modules log with the standard library, fields in `extra`: `log.info("cycle", extra={"vectors": 3})`. What structlog's own loggers say
takes the same way.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping

import structlog
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "***"
SECRET_WORDS = "password|passwd|passphrase|secret|token|api_?key|private_?key|authorization|cookie|credential"  # noqa: S105  # names, and no secret
SECRET_NAME = re.compile(SECRET_WORDS, re.IGNORECASE)
"""A field whose name has one of these words in it is not shown."""
IN_URL = re.compile(r"(://[^\s:/]*:)\S*@")
BEHIND_ITS_NAME = re.compile(
    rf"""((?:{SECRET_WORDS})['"]?\s*[=:]\s*)(?:(?:basic|bearer)\s+)?('[^']*'|"[^"]*"|[^\s,;&)}}]+)""", re.IGNORECASE
)
"""Where a secret is inside of a text: `://user:...@`, `password=...`, `Authorization: Bearer ...`."""
KEY = re.compile(r"(asof_[0-9a-f]{8}_)[0-9a-f]+")
"""A key of a service, wherever it was put: its prefix stays, by which it is known."""
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
"""A token of an issuer."""

FIRST = ("time", "level", "logger", "event")
"""The fields that every line begins with."""


def configure(level: str, form: str) -> None:
    """Send the logs of this process to standard error. `form` is `json`, `text`, or `auto`: text where that is a terminal."""
    readable = sys.stderr.isatty() if form == "auto" else form == "text"
    render: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if readable:
        plain = structlog.dev.plain_traceback
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time", exception_formatter=plain)
    named: list[Processor] = [add_logger_name, add_log_level]
    steps: list[Processor] = [
        ProcessorFormatter.remove_processors_meta,
        _timed,
        structlog.processors.format_exc_info,
        hide_secrets,
        _ordered,
        render,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=[*named, ExtraAdder()], processors=steps))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *named, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


_timed = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The event without what its names or texts tell to be secret, however deep it lies."""
    return {name: HIDDEN if SECRET_NAME.search(name) else _shown(value) for name, value in event.items()}


def _shown(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(k): HIDDEN if SECRET_NAME.search(str(k)) else _shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(v) for v in value]
    known = TOKEN.sub(HIDDEN, KEY.sub(rf"\1{HIDDEN}", str(value)))
    return BEHIND_ITS_NAME.sub(rf"\1{HIDDEN}", IN_URL.sub(rf"\1{HIDDEN}@", known))


def _ordered(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: event[name] for name in FIRST if name in event} | dict(event)
