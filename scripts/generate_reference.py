"""Write the reference pages that follow from the source: operators, feature sets, commands, settings and metrics.

`python scripts/generate_reference.py` writes `docs/reference/*.md`; with `--check` it writes nothing and exits with 1 where a page
is not what the source says. To add a page: a function that returns its text, and a line in `PAGES`.
"""

from __future__ import annotations

import argparse
import difflib
import html
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, get_args, get_type_hints

import typer.main
from prometheus_client import Info
from prometheus_client.metrics import MetricWrapperBase
from pydantic import SecretStr

from asof.cli.app import app
from asof.config import Settings
from asof.features.expression import Expr, bars
from asof.features.library import SHIPPED, technical
from asof.operators import BAR_SHAPES, EVENT_SHAPES, FAMILIES, POINT_SHAPES, SECTION_SHAPES, Operator, Param, Scaling, Shape
from asof.serving.app import ROUTES, described_api
from asof.telemetry.metrics import SECONDS, Metrics
from asof.timeframes import duration_text

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTICE = "<!-- Written by scripts/generate_reference.py from the source: change it there, then run the script. -->"

INTRO = {
    "operators": (
        "All there is to build expressions from; anything else is a composition of these. The shape says what missing values and errors "
        "do, see [the law](../law.md#operator-shapes). *Earlier bars* is what the operator adds to the lookback of its input. *Of "
        "adjusted values* is what [splits and dividends](../adjusted.md) make of the result: it scales with its inputs, stays as it is, "
        "or can be in no window. *Version* counts changes of meaning and is part of every fingerprint. [What is meant "
        "exactly](../semantics.md), and where others differ, has a page of its own. `x.diff(n)`, `x.between(low, high)`, "
        "`x.crossed_above(y)`, `x.crossed_below(y)` and `x.ewm(span=)` are short for expressions of these."
    ),
    "indicators": (
        "Functions in `asof.features.library.technical` that make expressions: `from asof.features.library import technical as ta`, then "
        "`ta.rsi(bars.close)`. Prices and volumes are those of `bars`; `x` is any expression over bars. *Bars* is how many an indicator "
        "looks at with its default lengths (20 where it has none), the current one included: before so many exist it is missing. "
        "[Accuracy](accuracy.md) holds them to other libraries."
    ),
    "feature sets": (
        "In their default form. The canonical text below is what the registry keeps; `FeatureSet.parse` reads it back. "
        "[The language](../language.md) tells how to read it."
    ),
    "commands": (
        "Every command ends with 0 when it did what was asked, and otherwise with one of the [exit codes](../errors.md). `--json` prints "
        "one object on standard output; progress and remarks go to standard error. `-h` or `--help` explains each command where you are."
    ),
    "settings": (
        "A setting comes from, in this order: the option of a command, the environment, `asof.toml` in the current folder, the default. "
        "An unknown key in `asof.toml` is an error that names it."
    ),
    "api": (
        "What `asof serve` and `asof run` answer; [the page on serving](../serving.md) tells how to use it. A service gives the same in "
        "OpenAPI at `/v1/openapi.json`. Whatever is wrong is answered with a problem document in `application/problem+json`. A parameter "
        "that is not listed is refused. Those that hold several values are repeated."
    ),
    "metrics": (
        "What `asof run` answers at `/metrics`. No label holds an instrument. A counter begins at 0 with the process, and the series of a "
        "label's value with its first event. [Operations](../operations.md#dashboard) tells what to look at, and which "
        "[alerts](../operations.md#alerts) watch it."
    ),
}
"""What each page says first."""

ABOUT = {
    "arithmetic": "Arithmetic, comparison, and functions of one number. A comparison answers 1 for true and 0 for false.",
    "logic": "What looks at missing values instead of passing them through. Any finite number but 0 is true.",
    "rolling": "The last `n` bars of one instrument, the current bar included. `n` is a whole number that is part of the definition.",
    "ordered": "Where values stand among the last `n`, by comparison alone.",
    "moments": "How the last `n` values lie about their mean, and beside those of another series.",
    "trend": (
        "Weights by place in the window, and straight lines through it. `x.ewm` takes its `alpha` as a `span`, a `half_life` or Wilder's "
        "n, too, and then its `reach` follows: [fading weights](../semantics.md#fading-weights)."
    ),
    "present": "With `min_count`, what the last `n` bars have counts, be they fewer than `n` or without a value here and there.",
    "windows": (
        "The points of one window: `x`, `weight` and `time` are columns of `events.window(...)`, `trades.last(...)` and their like, or "
        "expressions over them. An *event* is any such point. Each takes `where=` beside, for [some of them](../events.md), and "
        '`fading_mean` and `fading_sum` a half-life such as `"6h"` alone.'
    ),
    "points": "What a point has to do with those before it, and with those of other streams. The result has a value for each point.",
    "staged": "What looks beyond one instrument's bars of one timeframe, and is computed before everything that uses it.",
    "across": (
        "What the members of a universe have at one moment, each beside the others: `across(universe, by=grouping)`, see "
        "[across instruments](../across.md). Instruments that are no members have no value, and a member without one takes no part. The "
        "result is an expression over bars, and each section is as late as the last of its bars."
    ),
}
"""A sentence for each family."""

KINDS = {
    str: "text",
    str | None: "text",
    int: "whole number",
    float: "number",
    Path | None: "path",
    SecretStr | None: "text, kept secret",
    dict[str, SecretStr]: "table of text, kept secret",
    tuple[str, ...]: "list of text",
    dict[str, str]: "table of text",
}
"""How the types of settings are called."""

MISSING = {
    "and": "either is missing and neither is false",
    "or": "either is missing and neither is true",
    "not": "`x` is missing",
    "where": "the condition is, or the branch taken is",
    "when": "`x` is missing, or the condition is false or missing",
    "is_missing": "never",
    "previous": "there is no point before it within reach, or that has no value",
    "previous_other": "there is no other value before it within reach, or it has none itself",
    "at": "no point became known within the window that ends there, or the newest has no value",
    "lag": "there is no bar `n` bars ago, or its value is missing",
    "count": "never",
    "cumulative": "`within` did not change among the last `n` bars, or a bar since then has no value",
    "age": "no such bar was known yet",
    "latest": "no such bar was known yet, or its value is missing",
    "bars_since": "`x` was not true among the last `n` bars, or has no value since",
}
"""When the result of an operator is missing whose shape does not decide it."""


class Parameter(Protocol):
    """What is asked of an argument or option. Typer carries a Click of its own, whose classes have no public name."""

    name: str
    param_type_name: str
    opts: list[str]
    help: str
    default: object
    envvar: str | None
    required: bool
    hidden: bool
    nargs: int


class Command(Protocol):
    """A command, or a group of them, likewise."""

    help: str
    params: list[Parameter]


def operators() -> str:
    """Every operator, a table for each family."""
    parts = [
        page_head("Operators"),
        INTRO["operators"],
    ]
    for family, module in FAMILIES.items():
        parts.append(f"## {family.capitalize()}\n\n{ABOUT[family]}")
        rows = [operator_row(operator) for operator in module.OPERATORS]
        parts.append(table(("call", "computes", "missing when", "earlier bars", "of adjusted values", "shape", "version"), rows))
        parts.append(parameters(module))
    return "\n\n".join(part for part in parts if part) + "\n"


def operator_row(operator: Operator) -> tuple[str, ...]:
    says = first_sentence(operator.kernel.__doc__ or "")
    return (
        code(operator.signature),
        prose(says),
        missing_when(operator),
        earlier_bars(operator),
        "" if operator.shape in (*EVENT_SHAPES, *POINT_SHAPES) else SCALINGS[operator.scaling],
        operator.shape.value,
        str(operator.version),
    )


SCALINGS = {
    Scaling.UNKNOWN: "no window",
    Scaling.SAME: "scales alike",
    Scaling.COMPARISON: "stays",
    Scaling.SIGN: "stays",
    Scaling.PRESENCE: "stays",
    Scaling.PRODUCT: "scales by both",
    Scaling.QUOTIENT: "scales by both",
    Scaling.SQUARE: "scales twice",
    Scaling.ROOT: "scales by half",
    Scaling.CHOICE: "scales as `a` and `b`",
    Scaling.WEIGHTED: "scales as x",
}
"""What splits and dividends do to the result where they rescale the inputs."""


def missing_when(operator: Operator) -> str:
    return missing_across(operator) if operator.shape in SECTION_SHAPES else missing_alone(operator)


def missing_alone(operator: Operator) -> str:
    match operator.shape:
        case Shape.ROW:
            return "an input is missing"
        case Shape.SERIES:
            return f"fewer than `{operator.params[0].name}` bars, or one without a value"
        case Shape.PRESENT:
            return f"fewer than `min_count` of the last `{operator.params[0].name}` bars have a value"
        case Shape.SUM:
            return "an event has no value"
        case Shape.MOMENT | Shape.WINDOW:
            return {0: "an event has no value", 1: "no event, or one without a value", 2: "fewer than 2 events, or one without a value"}[
                operator.minimum
            ]
        case _:
            return MISSING[operator.name]


def missing_across(operator: Operator) -> str:
    few = {0: "never, for a member", 1: "no member has a value", 2: "fewer than 2 members have a value"}[operator.minimum]
    if operator.shape is Shape.SECTION:
        return few
    return "the member has no value" if operator.minimum == 1 else f"the member has no value, or {few}"


def earlier_bars(operator: Operator) -> str:
    if operator.shape not in BAR_SHAPES:
        return "0"
    name = operator.params[0].name
    return {7: f"`{name}`", 6: f"`{name} - 1`"}[operator.reach((7,))]


def parameters(module: ModuleType) -> str:
    """What the parameters of a family may be, each with the operators that take it so."""
    takers: dict[str, dict[str, None]] = {}
    for operator in module.OPERATORS:
        for parameter in operator.params:
            takers.setdefault(parameter_text(parameter), {})[code(operator.name)] = None
    lines = [f"- {text} ({', '.join(names)})" for text, names in takers.items()]
    return "Parameters:\n\n" + "\n".join(lines) if lines else ""


def parameter_text(p: Param) -> str:
    if p.span:
        return f"`{p.name}` is a duration, such as `10s`"
    kind = "a whole number" if p.kind is int else "a number"
    limits = "" if p.minimum is None else f" from {bounded(p.minimum)}" + ("" if p.maximum is None else f" to {bounded(p.maximum)}")
    default = "" if p.default is None else f", {p.default:g} if not given"
    return f"`{p.name}` is {kind}{limits}{default}"


def bounded(limit: float) -> str:
    return f"{limit:,.0f}" if limit == int(limit) else f"{limit:g}"


def indicators() -> str:
    """Every indicator, in the order of its file."""
    rows = [indicator_row(name, function) for name, function in vars(technical).items() if is_indicator(function)]
    return "\n\n".join([page_head("Indicators"), INTRO["indicators"], table(("call", "computes", "bars"), rows)]) + "\n"


def is_indicator(found: object) -> bool:
    own = inspect.isfunction(found) and found.__module__ == technical.__name__ and not found.__name__.startswith("_")
    return own and issubclass(get_type_hints(found)["return"], Expr | tuple)


def indicator_row(name: str, function: Callable[..., Expr | tuple[Expr, ...]]) -> tuple[str, ...]:
    signature = inspect.signature(function)
    shown = ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default}" for p in signature.parameters.values())
    given = {"x": bars.close, "high": bars.high, "low": bars.low, "n": 20}
    made = function(**{p.name: given[p.name] for p in signature.parameters.values() if p.default is p.empty})
    lines = made if isinstance(made, tuple) else (made,)
    fields = f": {', '.join(code(f) for f in made._fields)}" if isinstance(made, tuple) else ""  # type: ignore[attr-defined]
    return code(f"{name}({shown})"), prose(first_sentence(function.__doc__ or "")) + fields, str(max(line.lookback for line in lines))


def feature_sets() -> str:
    """The sets that ship with asof."""
    parts = [
        page_head("Shipped feature sets"),
        INTRO["feature sets"],
    ]
    for feature_set in SHIPPED.values():
        seen = [f"`{stream}` {duration_text(reach.length)}" for stream, reach in feature_set.reaches.items()]
        facts = [
            ("lookback", f"{feature_set.lookback} bars, the current one included"),
            ("looks back at points", ", ".join(seen) or "none"),
            ("features", ", ".join(code(name) for name in feature_set.features)),
            ("flags", ", ".join(code(name) for name in feature_set.flag_names)),
            ("fingerprint", code(feature_set.fingerprint)),
        ]
        parts.append(f"## {feature_set.version}\n\n{table(('', ''), facts)}\n\n```text\n{feature_set.text.rstrip()}\n```")
    parts.append(
        "`COMPUTATION_ERROR` is the engine's own flag and has no line: it is raised where a feature came out non-finite though nothing "
        "it needs was missing.\n\nThe event window of `fs_v1` and the count below which `LOW_EVENT_COUNT` is raised can be set, see "
        "[settings](settings.md); the names keep their `_1h` whatever the window is, and each window has a fingerprint of its own, so "
        "one store holds one of them."
    )
    return "\n\n".join(parts) + "\n"


def commands() -> str:
    """Every command, its arguments and options."""
    root = typer.main.get_command(app)
    parts = [
        page_head("Commands"),
        INTRO["commands"],
    ]
    parts += [command_section(command, name) for name, command in leaves(root, "asof")]
    return "\n\n".join(parts) + "\n"


def leaves(command: Command, path: str) -> Iterator[tuple[str, Command]]:
    """Every command under a group, and the root for its own options."""
    subcommands = getattr(command, "commands", {})
    if not subcommands or path == "asof":
        yield path, command
    for name, child in subcommands.items():
        yield from leaves(child, f"{path} {name}")


def command_section(command: Command, path: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]
    usage = " ".join([path, "[OPTIONS]", *map(argument_usage, arguments)])
    if getattr(command, "commands", None):
        usage = f"{path} [OPTIONS] COMMAND [ARGS]..."
    parts = [f"## {path}", prose(command.help), f"```text\n{usage}\n```"]
    if arguments:
        parts.append(table(("argument", "meaning", "default"), [(code(p.name), prose(p.help), default_of(p)) for p in arguments]))
    if options:
        parts.append(table(("option", "meaning", "default"), [(code(", ".join(p.opts)), option_help(p), default_of(p)) for p in options]))
    return "\n\n".join(parts)


def argument_usage(argument: Parameter) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def option_help(option: Parameter) -> str:
    text = prose(option.help)
    return f"{text} Environment: {code(option.envvar)}." if option.envvar else text


def default_of(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None or parameter.default is False or parameter.nargs == -1:
        return ""
    return code(str(parameter.default))


def settings() -> str:
    """Every setting of `asof.toml` and its environment variable."""
    rows = []
    for name, field in Settings.model_fields.items():
        variable = field.validation_alias
        kind = kind_of(field.annotation)
        bounds = ", ".join(filter(None, map(bound, field.metadata)))
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = "" if default in (None, "", {}) else code(str(default))
        rows.append((code(name), code(str(variable)), prose(field.description or ""), kind, bounds, shown))
    return (
        "\n\n".join(
            [
                page_head("Settings"),
                INTRO["settings"],
                table(("in asof.toml", "environment", "meaning", "type", "limits", "default"), rows),
            ]
        )
        + "\n"
    )


def kind_of(annotation: object) -> str:
    """The type of a setting in words; the words themselves where it is one of some."""
    return KINDS[annotation] if annotation in KINDS else f"one of {', '.join(code(word) for word in get_args(annotation))}"


def metrics() -> str:
    """Every metric of the service, and those of its process."""
    served = Metrics()
    rows = [(code(exposed(m)), m.describe()[0].type, labels_of(m), prose(m.describe()[0].documentation)) for m in declared(served)]
    process = [(code(f.samples[0].name), f.type, "", prose(f.documentation)) for f in served.registry.collect() if "process" in f.name]
    heads = ("metric", "type", "labels", "meaning")
    buckets = ", ".join(f"{seconds:g}" for seconds in SECONDS)
    return (
        "\n\n".join(
            [
                page_head("Metrics"),
                INTRO["metrics"],
                table(heads, rows),
                f"A histogram has `_bucket`, `_sum` and `_count`; its buckets end at {buckets} seconds.",
                "## The process\n\n" + table(heads, process),
            ]
        )
        + "\n"
    )


def declared(served: Metrics) -> list[MetricWrapperBase]:
    return [metric for metric in vars(served).values() if isinstance(metric, MetricWrapperBase)]


def exposed(metric: MetricWrapperBase) -> str:
    """The name that the service answers with."""
    family = metric.describe()[0]
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def labels_of(metric: MetricWrapperBase) -> str:
    names = metric._labelnames  # noqa: SLF001  # prometheus_client has no public name for them
    return ", ".join(map(code, names)) or ("`version`, `python`" if isinstance(metric, Info) else "")


def bound(limit: object) -> str:
    names = {"ge": "at least", "le": "at most", "gt": "above", "min_length": "length: at least"}
    return ", ".join(f"{words} {getattr(limit, name):,}" for name, words in names.items() if hasattr(limit, name))


def page_head(title: str) -> str:
    return f"{NOTICE}\n\n# {title}"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown. Cells hold no bare `|`: `code` and `prose` see to it."""
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(text: str) -> str:
    """Text as code, in a form that tables of every Markdown take."""
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def prose(text: str) -> str:
    """A docstring's or help's words on one line, safe in a table and free of unintended markup."""
    words = " ".join(text.split())
    parts = re.split(r"(`[^`]+`)", words)
    return "".join(code(p[1:-1]) if p.startswith("`") else plain(p) for p in parts)


def plain(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text, quote=False)).replace("|", "&#124;")


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, without its full stop and without what the column beside it says anyway."""
    sentence = re.split(r"\.(?:\s|$)", docstring.strip().split("\n\n")[0])[0]
    return "; ".join(part for part in sentence.split("; ") if not SAID_BESIDE.match(part))


SAID_BESIDE = re.compile(r"missing |never missing$|else missing$|needs 2 events$")


def api() -> str:
    """The routes, as their OpenAPI description has them."""
    described = described_api().openapi()
    parts = [NOTICE, "", "# HTTP API", "", INTRO["api"], ""]
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            need = next(route.need for route in ROUTES if route.path == path and route.answers(method.upper()))
            parts += [f"## `{method.upper()} {path}`", "", f"{told['summary']} Needs: {NEEDS[need]}.", ""]
            if given := told.get("parameters"):
                rows = ((f"`{one['name']}`", one["in"], _about(one)) for one in given)
                parts += ["| parameter | in | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
            for what, content in (("Body", told.get("requestBody", {})), ("Answer", told["responses"]["200"])):
                kinds = content.get("content", {})
                if kinds:
                    parts += [f"{what}: {', '.join(f'`{kind}`' for kind in kinds)}", ""]
                if example := kinds.get("application/json", {}).get("example"):
                    parts += ["```json", json.dumps(example, indent=2), "```", ""]
    return "\n".join(parts)


NEEDS = {"public": "nothing", "any": "a key", "read": "a key that may read the feature set"}


def _about(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    says = parameter.get("description") or schema.get("description") or ""
    example = parameter.get("example", (schema.get("examples") or [None])[0])
    shown = "" if example is None else f", such as `{example if isinstance(example, str | int) else ' '.join(example)}`"
    return f"{'**required**. ' if parameter.get('required') else ''}{says}{shown}"


PAGES: dict[str, Callable[[], str]] = {
    "operators.md": operators,
    "indicators.md": indicators,
    "feature-sets.md": feature_sets,
    "cli.md": commands,
    "settings.md": settings,
    "metrics.md": metrics,
    "api.md": api,
}
"""What writes each page."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is stale")
    check = parser.parse_args().check
    stale = 0
    for name, write in PAGES.items():
        path, wanted = FOLDER / name, write()
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        if there == wanted:
            continue
        stale += 1
        if check:
            lines = (text.splitlines(keepends=True) for text in (there, wanted))
            sys.stdout.writelines(difflib.unified_diff(*lines, name, f"{name} as it should be", n=1))
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parent.parent)}")
    if check and stale:
        print(f"{stale} of {len(PAGES)} reference pages are stale: run python scripts/generate_reference.py")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
