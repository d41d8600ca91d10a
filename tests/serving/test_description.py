"""The description of the API holds for any request that it allows, and for those that it does not: nothing breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

import asof
from asof.serving.app import TABLE, described_api
from tests.servers.api import Api, api

pytestmark = pytest.mark.slow

LASTING = [one.route.path for one in TABLE if one.route.lasting]  # a stream has no end to wait for
DESCRIBED = schemathesis.openapi.from_dict(described_api().openapi()).exclude(path=LASTING)
OPERATIONS = [found.ok() for found in DESCRIBED.get_all_operations()]


@pytest.fixture(scope="module")
def served(filled: asof.FeatureStore) -> Iterator[Api]:
    with api(filled) as made:
        yield made


def can_be_wrong(raw: dict[str, Any]) -> bool:
    """Whether there is anything to an operation but a path, which may hold any text."""
    return "requestBody" in raw or any(one["in"] != "path" for one in raw.get("parameters", ()))


TRIED = [(one, GenerationMode.POSITIVE) for one in OPERATIONS]
TRIED += [(one, GenerationMode.NEGATIVE) for one in OPERATIONS if can_be_wrong(one.definition.raw)]


@pytest.mark.parametrize(("operation", "mode"), TRIED, ids=[f"{one.label} {mode.value}" for one, mode in TRIED])
def test_whatever_is_asked_is_answered_as_described(operation, mode: GenerationMode, served: Api) -> None:
    raw = operation.definition.raw
    described = {int(status) for status in raw["responses"]}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True)
    def check(case: schemathesis.Case) -> None:
        answer = case.call(base_url=served.url, timeout=30)
        assert answer.status_code in described, (answer.status_code, answer.text)
        assert answer.status_code != 503, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == ["application/problem+json"]
            assert "Traceback" not in answer.text

    check()
