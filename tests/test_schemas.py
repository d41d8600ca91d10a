"""The JSON Schemas, their samples, and the script that proves the one on the other."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "validate_schema_samples.py"
SCHEMAS = ROOT / "schemas"
SAMPLES = sorted((SCHEMAS / "samples").glob("*.json"))
VALID = [path for path in SAMPLES if "_valid" in path.stem]
INVALID = [path for path in SAMPLES if "_invalid_" in path.stem]
NAMES = ["enriched_event.v1", "features.v1", "ohlcv.v1"]
FLAGS = [
    "MISSING_OHLCV",
    "INSUFFICIENT_OHLCV",
    "NO_EVENTS",
    "LOW_EVENT_COUNT",
    "LOW_SENTIMENT_CONFIDENCE",
    "TIMESTAMP_MISMATCH",
    "COMPUTATION_ERROR",
]

RULES = {
    "$ref",
    "type",
    "const",
    "enum",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "minProperties",
    "uniqueItems",
    "additionalProperties",
}
"""The keywords that refuse something. `required` is taken apart by property; the others only lead to these."""

Place = tuple[str | int, ...]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("validate_schema_samples", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


script = load_script()
VALIDATORS = script.load_schemas()


def schema_of(path: Path) -> str:
    return re.sub(r"_(v[0-9]+)_(valid|invalid).*", r".\1", path.stem)


def stem(path: Path) -> str:
    return path.stem


def schema_text(name: str) -> dict[str, object]:
    schema: dict[str, object] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return schema


def record_of(name: str) -> dict[str, object]:
    record: dict[str, object] = json.loads((SCHEMAS / "samples" / f"{name.replace('.', '_')}_valid.json").read_text())
    return record


def line(record: object) -> bytes:
    return json.dumps(record).encode()


def required_of(name: str) -> list[str]:
    required = schema_text(name)["required"]
    assert isinstance(required, list)
    return required


def rules(node: object, place: Place = (), names: bool = False) -> Iterator[Place]:
    """The place of every rule in a schema; `names` says that the keys here are a user's words, not keywords."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        here = (*place, key)
        if not names and key == "required":
            yield from ((*here, index) for index in range(len(child)))
        elif not names and key in RULES:
            yield here
        if isinstance(child, dict):
            yield from rules(child, here, names=not names and key in ("properties", "$defs"))


def without(schema: dict[str, object], place: Place) -> dict[str, object]:
    changed = copy.deepcopy(schema)
    at: object = changed
    for key in place[:-1]:
        at = at[key]  # type: ignore[index]  # a place leads through objects and lists of this very schema
    del at[place[-1]]  # type: ignore[attr-defined]  # as above
    return changed


EVERY_REQUIRED = [(name, field) for name in NAMES for field in required_of(name)]
EVERY_RULE = [(name, place) for name in NAMES for place in rules(schema_text(name))]


def rule_name(value: object) -> str:
    return ".".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_there_is_one_schema_for_each_record() -> None:
    assert sorted(VALIDATORS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_draft_2020_12_and_every_property_is_described(name: str) -> None:
    schema = schema_text(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert schema["description"]
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert [field for field, rule in properties.items() if not (rule.get("title") and rule.get("description"))] == []


def test_features_knows_the_seven_quality_flags_and_no_other() -> None:
    definitions = schema_text("features.v1")["$defs"]
    assert isinstance(definitions, dict)
    assert definitions["quality_flag"]["enum"] == FLAGS


@pytest.mark.parametrize("path", VALID, ids=stem)
def test_a_valid_sample_is_accepted(path: Path) -> None:
    assert script.errors(VALIDATORS[schema_of(path)], path.read_bytes()) == []


@pytest.mark.parametrize("path", INVALID, ids=stem)
def test_an_invalid_sample_is_refused_in_one_place_only(path: Path) -> None:
    found = script.errors(VALIDATORS[schema_of(path)], path.read_bytes())
    assert len({error.partition(": ")[0] for error in found}) == 1, found
    assert not found[0].startswith("not JSON"), "a sample is JSON; what is no JSON has its own test"


@pytest.mark.parametrize(("name", "field"), EVERY_REQUIRED)
def test_a_record_without_a_required_property_is_refused_and_the_property_named(name: str, field: str) -> None:
    record = record_of(name)
    del record[field]
    assert script.errors(VALIDATORS[name], line(record)) == [f"$: '{field}' is a required property"]


@pytest.mark.parametrize(("name", "field"), [pair for pair in EVERY_REQUIRED if pair[0] != "ohlcv.v1"])
def test_a_required_property_of_an_event_or_a_vector_is_never_null(name: str, field: str) -> None:
    found = script.errors(VALIDATORS[name], line(record_of(name) | {field: None}))
    assert {error.partition(": ")[0] for error in found} == {f"$.{field}"}


@pytest.mark.parametrize(("name", "place"), EVERY_RULE, ids=rule_name)
def test_taking_a_rule_away_lets_an_invalid_sample_through(name: str, place: Place) -> None:
    weaker = script.validator_of(without(schema_text(name), place))
    assert any(script.errors(weaker, path.read_bytes()) == [] for path in INVALID if schema_of(path) == name)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(("name", "field"), [("features.v1", "ret_1"), ("ohlcv.v1", "close"), ("enriched_event.v1", "score")])
def test_a_bare_number_that_is_not_finite_is_refused(name: str, field: str, value: str) -> None:
    text = re.sub(rf'"{field}": [-0-9.]+', f'"{field}": {value}', json.dumps(record_of(name)))
    assert value in text
    found = script.errors(VALIDATORS[name], text.encode())
    assert len(found) == 1
    assert found[0].startswith("not JSON: ")
    assert value in found[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"ts": ', "Expecting value"),
        (b'{"ts": "\xff"}', "utf-8"),
        (b'{"ts": 1, "ts": 2}', "'ts' is given twice"),
        (b'\xef\xbb\xbf{"ts": 1}', "BOM"),
    ],
    ids=["cut short", "not UTF-8", "a name twice", "a byte order mark"],
)
def test_a_text_that_is_not_json_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    found = script.errors(VALIDATORS["ohlcv.v1"], data)
    assert len(found) == 1
    assert reason in found[0]


def test_a_long_value_is_cut_in_the_message() -> None:
    found = script.errors(VALIDATORS["ohlcv.v1"], line(record_of("ohlcv.v1") | {"timeframe": "x " * 10_000}))
    assert len(found) == 1
    assert len(found[0]) < script.LONGEST + len("$.timeframe: ") + 1


def test_the_samples_pass_with_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main([]) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert [text.split()[1].rstrip(":") for text in lines] == [path.name for path in SAMPLES]
    assert summary == f"{len(SAMPLES)} ok, 0 failed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the schemas with two samples of each kind of one of them."""
    schemas = tmp_path / "schemas"
    (schemas / "samples").mkdir(parents=True)
    shutil.copy(SCHEMAS / "ohlcv.v1.json", schemas)
    for name in ("ohlcv_v1_valid", "ohlcv_v1_invalid_timeframe"):
        shutil.copy(SCHEMAS / "samples" / f"{name}.json", schemas / "samples")
    return schemas


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ohlcv_v1_valid", "ohlcv_v1_invalid_close", "should be refused, but is valid"),
        ("ohlcv_v1_invalid_timeframe", "ohlcv_v1_valid_timeframe", "$.timeframe: '1w' does not match"),
        ("ohlcv_v1_valid", "ohlcv_v1_fine", "the name is not"),
        ("ohlcv_v1_valid", "bars_v1_valid", "there is no schema bars.v1"),
    ],
)
def test_a_sample_that_is_not_what_its_name_says_fails(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, reason: str
) -> None:
    shutil.copy(folder / "samples" / f"{old}.json", folder / "samples" / f"{new}.json")
    assert script.check_samples(script.load_schemas(folder), folder) == 1
    failures = [text for text in capsys.readouterr().out.splitlines() if text.startswith("FAIL")]
    assert len(failures) == 1
    assert f"{new}.json: " in failures[0]
    assert reason in failures[0]


@pytest.mark.parametrize(("name", "kind"), [("ohlcv_v1_valid", "valid"), ("ohlcv_v1_invalid_timeframe", "invalid")])
def test_a_schema_without_samples_of_one_kind_fails(folder: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str) -> None:
    (folder / "samples" / f"{name}.json").unlink()
    assert script.check_samples(script.load_schemas(folder), folder) == 1
    assert f"FAIL ohlcv.v1: there is no {kind} sample in samples/" in capsys.readouterr().out


def test_an_empty_folder_of_schemas_fails(tmp_path: Path) -> None:
    assert script.check_samples(script.load_schemas(tmp_path), tmp_path) == 1


def test_a_missing_format_package_is_an_error_and_not_a_skipped_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "FORMATS", ("date-time", "no-such-format"))
    with pytest.raises(SystemExit, match=r"pip install 'jsonschema\[format-nongpl\]'"):
        script.format_checker()


def test_a_file_of_json_lines_passes_when_every_line_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bars.jsonl"
    path.write_bytes(line(record_of("ohlcv.v1")) + b"\r\n\n" + line(record_of("ohlcv.v1")))
    assert script.main(["--file", str(path), "--schema", "ohlcv.v1"]) == 0
    assert capsys.readouterr().out == f"{path}: 2 valid, 0 refused\n"


def test_errors_in_a_file_of_json_lines_name_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = record_of("ohlcv.v1")
    bad = good | {"volume": -1, "timeframe": "5x"}
    path = tmp_path / "bars.jsonl"
    path.write_bytes(b"\n".join([line(good), b"", line(bad), b"{", line(good)]))
    assert script.main(["--file", str(path), "--schema", "ohlcv.v1"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{path}:3: $.timeframe: '5x' does not match '^[0-9]+[smhd]$'"
    assert out[1] == f"{path}:3: $.volume: -1 is less than the minimum of 0"
    assert out[2].startswith(f"{path}:4: not JSON: ")
    assert out[3:] == [f"{path}: 2 valid, 2 refused"]


def test_a_file_that_is_not_there_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--file", str(tmp_path / "none.jsonl"), "--schema", "ohlcv.v1"]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--file", "bars.jsonl"], ["--schema", "ohlcv.v1"], ["--file", "bars.jsonl", "--schema", "bars.v1"]])
def test_a_mistaken_command_line_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        script.main(argv)
    assert refusal.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_the_script_runs_by_itself_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
