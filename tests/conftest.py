"""What every test shares: how long Hypothesis looks for counterexamples, and where the real market data lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.crashes import Work, make_work
from tests.servers.kafka import kafka
from tests.servers.postgres import postgres

__all__ = ["kafka", "postgres", "shared_data", "work"]

settings.register_profile("quick", max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=400)
settings.load_profile("quick")  # `pytest --hypothesis-profile thorough` looks longer


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data beside the checkout; the tests that need it are skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real market data is not beside the checkout (no folder {folder.parent.name}/{folder.name})")
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Commands that take long enough to be ended in the middle."""
    return make_work(tmp_path_factory.mktemp("work"))
