"""The stores that every test of this folder runs over: a new kind of store is one more row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from asof.stores.store import Store
from asof.stores.urls import open_store

Opener = Callable[[], AbstractContextManager[Store]]

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "duckdb file": lambda request, folder: f"duckdb:///{folder / 'store.duckdb'}",
    "duckdb in memory": lambda request, folder: "duckdb://",
    "postgresql": lambda request, folder: request.getfixturevalue("postgres").database(),
}
"""The URL of a new, empty store of each kind."""


@pytest.fixture(scope="session", params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """Opens a new, empty store each time; for tests that need many."""
    return lambda: closing(open_store(STORES[request.param](request, tmp_path_factory.mktemp("store"))))


@pytest.fixture
def store(new_store: Opener) -> Iterator[Store]:
    """A new, empty store."""
    with new_store() as opened:
        yield opened
