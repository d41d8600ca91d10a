"""Everything has an oracle on real data, is as near to it as the page on accuracy says, and has a row there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from asof.features.feature_set import FeatureSet
from asof.features.library import SHIPPED, microstructure, news, technical
from asof.operators import FORMS, Operator
from tests.accuracy import Row, covered, row_name, rows, section_of

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "accuracy.md"
INDICATORS = {
    name: "Indicators" if module is technical else "Functions of microstructure and news"
    for module in (technical, microstructure, news)
    for name, found in inspect.getmembers(module, inspect.isfunction)
    if found.__module__ == module.__name__ and not name.startswith("_")
}
"""Every function that makes an indicator, with the heading under which its rows are."""


def shown() -> dict[str, set[str]]:
    """The names of the rows of the page, by their headings."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        heading: set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)) for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture(scope="module")
def found(shared_data: Path) -> dict[str, list[Row]]:
    return rows(shared_data)


def test_everything_is_as_near_to_its_oracle_as_the_page_says(found: dict[str, list[Row]]):
    apart = {(heading, row.name): row for heading, of in found.items() for row in of if not row.difference <= row.bound}
    assert apart == {}
    hardly = {(heading, row.name): row.values for heading, of in found.items() for row in of if row.values <= 20}
    assert hardly == {}, "a row is about some values"


def test_the_page_has_the_rows_that_are_compared(found: dict[str, list[Row]]):
    assert shown() == {heading: {row.name for row in of} for heading, of in found.items()}, "run scripts/measure_accuracy.py"


@pytest.mark.parametrize("operator", FORMS, ids=lambda operator: operator.key)
def test_an_operator_has_a_row(operator: Operator):
    assert row_name(operator) in shown()[section_of(operator)]


@pytest.mark.parametrize("name", INDICATORS)
def test_an_indicator_has_a_row(name: str):
    assert name in {row.split()[0].rstrip(",") for row in shown()[INDICATORS[name]]}


@pytest.mark.parametrize("feature_set", SHIPPED.values(), ids=SHIPPED)
def test_a_set_has_a_row_and_each_of_its_features_is_in_it(feature_set: FeatureSet):
    version, told = feature_set.version, shown()
    assert version in told["Sets"]
    if version != "ta_v1":  # its features are indicators: `tests.accuracy.sets` finds the row of each, or fails
        mine = told.get(f"Features of {version}") or told[f"Factors of {version}"]
        assert covered(version, mine) == set(feature_set.features)
