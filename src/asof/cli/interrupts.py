"""Ctrl-C: noted as well as raised, because a library may swallow what is raised inside it, as an import inside of Arrow does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_noticed = threading.Event()


@contextmanager
def watching() -> Iterator[None]:
    """Within the block, note every Ctrl-C. Only the main thread can."""
    _noticed.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _note(number: int, frame: FrameType | None) -> None:
    _noticed.set()
    raise KeyboardInterrupt


def noticed() -> bool:
    """Whether there was a Ctrl-C."""
    return _noticed.is_set()


def check() -> None:
    """Raise again a Ctrl-C that was swallowed; long work calls this now and then."""
    if noticed():
        raise KeyboardInterrupt
