"""Ctrl-C: noted as well as raised, because what is raised may be lost: a library swallows it, or it comes while an object is deleted."""

from __future__ import annotations

import signal
import sys
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
    before, shown = signal.signal(signal.SIGINT, _note), sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else shown(lost)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = shown


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
