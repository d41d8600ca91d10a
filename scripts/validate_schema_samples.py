"""Prove the JSON Schemas on their samples: every valid sample passes and every invalid one is refused.

1. Load `schemas/<name>.json` and hold each to the meta-schema of draft 2020-12.
2. Judge each file in `schemas/samples/` by its name: `<schema>_valid*.json` must pass, `<schema>_invalid_<why>.json` must not.
3. Print one line for each; exit with 1 when one of them is wrong or a schema lacks one of the two kinds.

With `--file F --schema NAME` it checks a file of JSON lines instead, one record a line, and names the line of each error.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import NoReturn, TypeAlias

try:
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError
    from jsonschema.validators import extend
except ModuleNotFoundError as missing:
    raise SystemExit("jsonschema is not installed; run: pip install 'jsonschema[format-nongpl]'") from missing

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
SAMPLE_NAME = re.compile(r"(?P<record>[a-z_]+)_(?P<version>v[0-9]+)_(?:(?P<valid>valid)(?:_[a-z0-9_]+)?|invalid_[a-z0-9_]+)")
FORMATS = ("date-time", "uuid")
LONGEST = 240
"""Characters of one error's reason; jsonschema quotes the whole value, which may be a whole record."""

KINDS = {True: "valid", False: "invalid"}


@dataclass(frozen=True)
class Sample:
    """One sample file: the schema that judges it, and whether it should pass."""

    path: Path
    schema: str
    valid: bool


@dataclass(frozen=True)
class Verdict:
    """One line of the report."""

    good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'FAIL'} {self.text}"


def format_checker() -> FormatChecker:
    """A checker of `date-time` and `uuid`. jsonschema skips a format whose package is missing, so that is an error here."""
    try:
        return FormatChecker(FORMATS)
    except KeyError as missing:
        raise SystemExit(f"jsonschema cannot check the format {missing}; run: pip install 'jsonschema[format-nongpl]'") from missing


def whole_pattern(_: object, pattern: str, instance: Json, __: object) -> Iterator[ValidationError]:
    r"""`pattern` as JSON Schema means it: a closing `$` is the end of the text, where Python's also stands before a last newline."""
    exact = re.sub(r"\$$", r"\\Z", pattern)
    if isinstance(instance, str) and not re.search(exact, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def validator_of(schema: dict[str, Json]) -> Draft202012Validator:
    """A validator that checks formats and whole patterns. Raises `SchemaError` for what is no schema of draft 2020-12."""
    Draft202012Validator.check_schema(schema)
    make: type[Draft202012Validator] = extend(Draft202012Validator, {"pattern": whole_pattern})  # type: ignore[no-untyped-call]
    return make(schema, format_checker=format_checker())


def load_schemas(folder: Path = SCHEMAS) -> dict[str, Draft202012Validator]:
    """A validator for each schema in the folder, by name such as `features.v1`."""
    return {path.stem: validator_of(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))}


def refuse_constant(name: str) -> NoReturn:
    """JSON has no NaN and no Infinity, though Python's reader takes them."""
    raise ValueError(f"{name} is not JSON; a missing value is null or absent")


def finite_float(text: str) -> float:
    """A number; one that no 64-bit float holds, such as 1e999, is refused rather than read as infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a 64-bit float")
    return value


def unique_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object; a name given twice is refused, since readers differ on which value counts."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the property {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return record


def read_json(data: bytes) -> Json:
    """A JSON text in UTF-8. Raises `ValueError` saying why it is not one."""
    text = data.decode("utf-8")
    record: Json = json.loads(text, parse_constant=refuse_constant, parse_float=finite_float, object_pairs_hook=unique_object)
    return record


def errors(validator: Draft202012Validator, data: bytes) -> list[str]:
    """What is wrong with one record, as `path: reason`; empty when it is valid."""
    try:
        record = read_json(data)
    except (ValueError, RecursionError) as error:
        return [f"not JSON: {error}"]
    return sorted(f"{error.json_path}: {shorten(error.message, LONGEST, placeholder=' [...]')}" for error in validator.iter_errors(record))


def sample_of(path: Path) -> Sample | None:
    """What a sample's file name says of it; None for a name that follows no rule."""
    name = SAMPLE_NAME.fullmatch(path.stem)
    return Sample(path, f"{name['record']}.{name['version']}", name["valid"] is not None) if name else None


def judge(path: Path, validators: dict[str, Draft202012Validator]) -> Verdict:
    """Whether one sample file is what its name says."""
    sample = sample_of(path)
    if sample is None:
        return Verdict(False, f"{path.name}: the name is not <schema>_valid*.json or <schema>_invalid_<why>.json")
    if sample.schema not in validators:
        return Verdict(False, f"{path.name}: there is no schema {sample.schema}; there are {', '.join(validators)}")
    found = errors(validators[sample.schema], path.read_bytes())
    if sample.valid:
        return Verdict(not found, f"{path.name}: {'; '.join(found) or 'valid'}")
    return Verdict(bool(found), f"{path.name}: {'refused, ' + '; '.join(found) if found else 'should be refused, but is valid'}")


def judge_samples(folder: Path, validators: dict[str, Draft202012Validator]) -> list[Verdict]:
    """A verdict on each sample file, and a failing one for each schema that has no valid or no invalid sample."""
    paths = sorted(folder.glob("*.json"))
    kinds = {(sample.schema, sample.valid) for sample in map(sample_of, paths) if sample}
    lacking = [(schema, valid) for schema in validators for valid in (True, False) if (schema, valid) not in kinds]
    return [judge(path, validators) for path in paths] + [
        Verdict(False, f"{schema}: there is no {KINDS[valid]} sample in {folder.name}/") for schema, valid in lacking
    ]


def check_samples(validators: dict[str, Draft202012Validator], schemas: Path = SCHEMAS) -> int:
    """Print a line for each sample; 1 when one is not what its name says, or there is no schema at all."""
    verdicts = judge_samples(schemas / "samples", validators)
    for verdict in verdicts:
        print(verdict)
    failures = sum(not verdict.good for verdict in verdicts)
    print(f"{len(verdicts) - failures} ok, {failures} failed")
    return 1 if failures or not verdicts else 0


def check_lines(path: Path, validator: Draft202012Validator) -> int:
    """Print `file:line: path: reason` for each error in a file of JSON lines; 1 when there is one. Blank lines are passed over."""
    records = refused = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            found = errors(validator, line)
            records, refused = records + 1, refused + bool(found)
            for error in found:
                print(f"{path}:{number}: {error}")
    print(f"{path}: {records - refused} valid, {refused} refused")
    return 1 if refused else 0


def arguments(argv: list[str] | None, names: list[str]) -> argparse.Namespace:
    """The command line, with `--file` and `--schema` both or neither."""
    parser = argparse.ArgumentParser(description="Check that the schemas' valid samples pass and the invalid ones are refused.")
    parser.add_argument("--file", type=Path, metavar="F", help="check this file of JSON lines instead of the samples")
    parser.add_argument("--schema", choices=names, metavar="NAME", help=f"the schema for --file: {', '.join(names)}")
    parsed = parser.parse_args(argv)
    if (parsed.file is None) != (parsed.schema is None):
        parser.error("--file and --schema go together")
    return parsed


def main(argv: list[str] | None = None) -> int:
    """Run the check that the command line asks for; the exit code."""
    validators = load_schemas()
    parsed = arguments(argv, list(validators))
    if parsed.file is None:
        return check_samples(validators)
    try:
        return check_lines(parsed.file, validators[parsed.schema])
    except OSError as error:
        print(f"cannot read {parsed.file}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
