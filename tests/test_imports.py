"""Who may import whom. The rules are read off the source, so that a shortcut is argued here before it is taken.

Imports under `TYPE_CHECKING` count for the layers (a type is knowledge, too), but not for cycles: they never run.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LANGUAGE = ("asof.errors", "asof.features", "asof.operators", "asof.timeframes")
"""What `import asof` loads: the standard library and these are all that they may import."""

DRIVERS = ("aiokafka", "confluent_kafka", "duckdb", "fastapi", "prometheus_client", "psycopg", "pyspark", "starlette", "uvicorn")
"""Clients of the outer world."""

HEAVY = (
    "duckdb",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "polars",
    "psycopg",
    "pyarrow",
    "pydantic",
    "pydantic_settings",
    "rich",
    "typer",
)
"""What `import asof` must not load."""

FORBIDDEN = {
    "asof.bridges": ("asof.engine", "asof.stores", "asof.sources", "asof.serving", "asof.cli", *DRIVERS),
    "asof.engine": ("asof.stores", "asof.sources", "asof.serving", "asof.jobs", "asof.cli", "asof.config", *DRIVERS),
    "asof.features": ("asof.stores", "asof.sources", "asof.serving", "asof.jobs", "asof.cli", "asof.config", "asof.engine", *DRIVERS),
    "asof.operators": ("asof.features", "asof.engine"),
    "asof.records": ("asof.engine", "asof.stores", "asof.sources", "asof.serving", "asof.jobs", "asof.cli", *DRIVERS),
    "asof.sources": ("asof.engine", "asof.stores", "asof.serving", "asof.jobs", "asof.cli"),
    "asof.stores": ("asof.engine", "asof.sources", "asof.serving", "asof.jobs", "asof.cli"),
}
"""What each layer must not import."""

HOMES = {
    "confluent_kafka": "asof.sources.kafka",
    "duckdb": "asof.stores.duckdb",
    "exchange_calendars": "asof.calendars",
    "fastapi": "asof.serving",
    "jwt": "asof.serving.oidc",
    "numba": "asof.engine",
    "opentelemetry": "asof.telemetry.opentelemetry",
    "prometheus_client": "asof.telemetry",
    "psycopg": "asof.stores.postgres",
    "rich": "asof.cli",
    "typer": "asof.cli",
    "uvicorn": "asof.serving.server",
    "zipline": "asof.bridges.zipline",
}
"""The one place where a package is imported: a file, or a folder, or the files whose names begin with it and `_`."""

INSIDE_FUNCTIONS = {
    ("asof.bridges.zipline", "zipline.pipeline.data"): "the frames of a data set are of use, and tested, without Zipline",
    ("asof.bridges.zipline", "zipline.pipeline.loaders.frame"): "likewise",
    ("asof.calendars", "exchange_calendars"): "an extra, and slow to load",
    ("asof.cli", "asof.cli.app"): "Typer and Rich load only when the command runs",
    ("asof.cli.dlq", "asof.jobs.dead_letters"): "confluent-kafka is an extra that only dead letters and the service need",
    ("asof.cli.dlq", "asof.sources.kafka"): "likewise",
    ("asof.cli.serve", "asof.serving.alone"): "its parts are extras that no other command needs",
    ("asof.cli.serve", "asof.telemetry.logs"): "likewise",
    ("asof.cli.service", "asof.service"): "its parts are extras that no other command needs",
    ("asof.cli.service", "asof.telemetry.logs"): "likewise",
    ("asof.feature_store", "asof.jobs.publish"): "confluent-kafka is an extra that of all methods only a published replay needs",
    ("asof.serving.alone", "asof.serving.flight"): "gRPC is large, and needed only where it is asked for",
    ("asof.serving.gate", "asof.serving.oidc"): "PyJWT is an extra that only tokens of an issuer need",
    ("asof.service", "asof.jobs.consume"): "events from Kafka are an extra of the service",
    ("asof.service", "asof.jobs.publish"): "likewise",
    ("asof.service", "asof.sources.kafka"): "likewise",
    ("asof.service", "asof.sources.kafka_producer"): "likewise",
    ("asof.cli.demo", "asof.cli.picture"): "matplotlib is an extra that only the demo's picture needs",
    ("asof.features.expression", "asof.features.text"): "an expression prints itself, and the text form is built on expressions",
    ("asof.operators.known", "importlib.metadata"): "slow to load, and needed only for a name that is not known",
    ("asof.serving.following", "asof.serving.topic"): "confluent-kafka is an extra that only a replica of Kafka needs",
    ("asof.serving.following", "asof.sources.kafka"): "likewise",
    ("asof.stores.urls", "asof.stores.service_flight"): "gRPC is large, and only a service that is read by Flight needs it",
    ("asof.stores.urls", "asof.stores.postgres"): "psycopg is an extra that only a PostgreSQL store needs",
    ("asof.stores.urls", "asof.stores.postgres_migrations"): "likewise",
    ("asof.telemetry.traces", "asof.telemetry.opentelemetry"): "OpenTelemetry is an extra that only traces need",
    ("asof.records", "polars"): "an optional peer that only `Frame.to_polars` needs",
}
"""The imports that stand inside a function, each with its reason."""


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether it runs when the importing module is loaded."""

    importer: str
    imported: str
    line: int
    in_function: bool
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for name, path in modules().items() for found in read(name, path))


def read(name: str, path: Path) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(name, alias.name, node.lineno, in_function, for_types)
            case ast.ImportFrom(names=names):
                origin = resolve_name("." * node.level + (node.module or ""), package)
                for alias in names:
                    submodule = f"{origin}.{alias.name}"
                    yield Import(name, submodule if submodule in modules() else origin, node.lineno, in_function, for_types)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for child in node.body:
                    yield from visit(child, in_function, True)
                for child in node.orelse:
                    yield from visit(child, in_function, for_types)
            case _:
                inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                for child in ast.iter_child_nodes(node):
                    yield from visit(child, inside, for_types)

    return visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), False, False)


def within(module: str, *trees: str) -> bool:
    """Whether a module is one of `trees` or inside one of them."""
    return any(module == tree or module.startswith(f"{tree}.") for tree in trees)


def shown(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, the first one repeated at the end; empty where there is none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph.get(module, ())):
            if found := walk(imported, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def test_the_source_is_found_and_its_imports_are_read():
    read_off = {(found.importer, found.imported) for found in imports()}
    assert ("asof.features.text", "asof.features.expression") in read_off
    assert ("asof.operators", "asof.operators.rolling") in read_off, "`from package import module` is an import of the module"
    assert ("asof.engine.native", "numba") in read_off


def test_the_language_imports_only_the_standard_library_and_itself():
    strangers = [
        found
        for found in imports()
        if within(found.importer, *LANGUAGE)
        and not within(found.imported, *LANGUAGE)
        and found.imported.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not strangers, shown(strangers)


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_imports_nothing_that_stands_above_or_beside_it(layer):
    wrong = [found for found in imports() if within(found.importer, layer) and within(found.imported, *FORBIDDEN[layer])]
    assert not wrong, shown(wrong)


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_in_its_one_home(package):
    home = HOMES[package]
    users = [found for found in imports() if within(found.imported, package)]
    wrong = [found for found in users if not within(found.importer, home) and not found.importer.startswith(f"{home}_")]
    assert not wrong, shown(wrong)


def test_only_the_command_line_imports_the_command_line():
    wrong = [found for found in imports() if within(found.imported, "asof.cli") and not within(found.importer, "asof.cli")]
    assert not wrong, shown(wrong)


def test_no_modules_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for found in imports():
        if not found.in_function and not found.for_types and found.imported in modules():
            graph[found.importer].add(found.imported)
    assert not cycle_in(graph), " -> ".join(cycle_in(graph))


def test_a_circle_would_be_seen():
    assert cycle_in({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert cycle_in({"a": {"a"}}) == ["a", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_imports_stand_at_the_top_but_for_the_argued_exceptions():
    hidden = [found for found in imports() if found.in_function and (found.importer, found.imported) not in INSIDE_FUNCTIONS]
    assert not hidden, f"{shown(hidden)}\nmove them to the top, or argue for them in INSIDE_FUNCTIONS"


def test_every_argued_exception_is_still_needed():
    used = {(found.importer, found.imported) for found in imports() if found.in_function}
    assert set(INSIDE_FUNCTIONS) <= used, f"no longer used: {set(INSIDE_FUNCTIONS) - used}"


def test_only_the_public_names_are_resolved_lazily():
    lazy = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        if name != "asof"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
    ]
    assert not lazy, f"an import in disguise: {lazy}"


def test_importing_asof_stays_light():
    program = f"import sys, json, asof; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(result.stdout) == [], "loaded by `import asof`"
