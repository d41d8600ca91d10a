"""The canonical text of expressions and feature sets, and the parser that reads it back. No `eval`.

The text is the Python that a person would write, so there is one language to learn. Python's own grammar splits it into a syntax
tree; only the few node kinds listed here mean anything, and nothing is ever executed.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping

from asof.errors import DefinitionError
from asof.features.across import MEMBER, NAMES, Across, across_of
from asof.features.event_text import EVENT_TEXTS, EventText, comparison
from asof.features.expression import (
    BARS,
    AdjustedBars,
    Bars,
    Events,
    EventWindow,
    Expr,
    PointWindow,
    apply,
    bars,
    constant,
    events,
    walk,
    where,
)
from asof.features.market import Books, Quotes, Trades, books, quotes, trades
from asof.features.streams import BOOKS, EVENTS, QUOTES, TRADES, Window
from asof.operators import EVENT_SHAPES, OPERATORS, SECTION_SHAPES
from asof.operators.known import KNOWN
from asof.timeframes import duration_text

LONGEST_TEXT = 1_000_000
"""Characters of the longest text that is parsed."""

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_UNARY: dict[type[ast.AST], str] = {ast.USub: "negate", ast.Invert: "not"}
_RANK = {"or": 1, "and": 2, "add": 5, "subtract": 5, "multiply": 6, "divide": 6, "negate": 7, "not": 7}
_COMPARISON, _ATOM = 0, 9
_POINTS: dict[str, Events | Trades | Quotes | Books] = {EVENTS: events, TRADES: trades, QUOTES: quotes, BOOKS: books}
_SYMBOL = {o.name: o.symbol for o in OPERATORS if o.symbol}


def expression_text(expr: Expr, names: Mapping[Expr, str] | None = None) -> str:
    """The canonical text of an expression; nodes in `names` are written by their name."""
    try:
        return _text(expr, names or {}, top=True)[0]
    except RecursionError:
        raise DefinitionError("an expression is nested too deeply to be written: make some of its parts features of their own") from None


def _text(expr: Expr, names: Mapping[Expr, str], top: bool = False) -> tuple[str, int]:
    """The text of a node, and how tightly it binds."""
    if not top and expr in names:
        return names[expr], _ATOM
    operator = expr.operator
    if operator is None:
        return _leaf(expr)
    parts = [_text(i, names) for i in expr.inputs]
    if operator.symbol:
        rank = _RANK.get(operator.name, _COMPARISON)
        if len(parts) == 1:
            return f"{operator.symbol}{_wrap(parts[0], rank)}", rank
        return f"{_wrap(parts[0], rank + (rank == 0))} {operator.symbol} {_wrap(parts[1], rank + 1)}", rank
    if operator.name == "where":
        return f"where({', '.join(text for text, _ in parts)})", _ATOM
    if operator.shape in SECTION_SHAPES:
        args = [text for text, _ in parts[:-2]] + _arguments(expr)
        return f"{across_of(expr)!r}.{operator.name}({', '.join(args)})", _ATOM
    keyword = operator.shape in EVENT_SHAPES
    args = [f"{n}={t}" if keyword else t for n, (t, _) in zip(operator.inputs[1:], parts[1:], strict=True)]
    return f"{_wrap(parts[0], _ATOM)}.{operator.name}({', '.join(args + _arguments(expr))})", _ATOM


def _arguments(expr: Expr) -> list[str]:
    """The parameters of a node, by their names where they have a default."""
    assert expr.operator is not None
    args = []
    for param, value in zip(expr.operator.params, expr.params, strict=True):
        text = f'"{duration_text(int(value))}"' if param.span else _number(value)
        args.append(text if param.default is None and not param.named else f"{param.name}={text}")
    return args


def _leaf(expr: Expr) -> tuple[str, int]:
    if expr.domain is None:
        text = _number(expr.params[0])
        return text, _RANK["negate"] if text.startswith("-") else _ATOM
    if expr.name.startswith(MEMBER):
        return f"{Across(expr.name.removeprefix(MEMBER))!r}.member", _ATOM
    root = expr.domain.text if isinstance(expr.domain, Window) else BARS if expr.domain == BARS else f'bars.every("{expr.domain}")'
    asked = f"({', '.join(map(_number, expr.params))})" if expr.params else ""
    return (f"{root}.{expr.name}{asked}" if expr.name else root), _COMPARISON if comparison(expr.name) else _ATOM


def _wrap(part: tuple[str, int], rank: int) -> str:
    text, own = part
    number = text[0].isdigit() and rank == _ATOM
    return f"({text})" if own < rank or number else text


def _number(value: float) -> str:
    whole = isinstance(value, int) or (value == int(value) and abs(value) < 1e15 and str(value) != "-0.0")
    return str(int(value)) if whole else repr(value)


def parse_expression(text: str, names: Mapping[str, Expr] | None = None) -> Expr:
    """The expression that a text stands for; `names` are defined words beside `bars`, `events` and `where`.

    Raises `DefinitionError` for anything that is not the language: other names, calls, attributes, literals.
    """
    if len(text) > LONGEST_TEXT:
        raise DefinitionError(f"an expression of {len(text)} characters is longer than {LONGEST_TEXT}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        found = _parse(tree, {} if names is None else names)
    except (SyntaxError, ValueError) as error:
        raise DefinitionError(f"{_short(text)!r} is not an expression: {error}") from None
    except (RecursionError, MemoryError):
        raise DefinitionError(f"{_short(text)!r} is nested too deeply") from None
    if not isinstance(found, Expr):
        raise DefinitionError(f"{_short(text)!r} is not an expression: take a column of it, such as .close or .sentiment")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _parse(node: ast.AST, names: Mapping[str, Expr]) -> object:
    """An `Expr`, a number, or one of the roots `bars`, `events` and a window."""
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("True and False are written 1 and 0")
        case ast.Constant(value=int() | float() as number):
            return constant(number)
        case ast.Name(id="bars"):
            return bars
        case ast.Name(id=name) if name in _POINTS:
            return _POINTS[name]
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if not isinstance(number, bool):
            return constant(-number)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return apply(_UNARY[type(op)], _expr(operand, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return apply(_BINARY[type(op)], _expr(left, names), _expr(right, names))
        case ast.Compare(left=ast.Attribute(attr=name) as left, ops=[ast.Eq()], comparators=[ast.Constant(value=str() as said)]) if (
            name in EVENT_TEXTS
        ):
            return _event_text(left, names) == said
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            return apply(_BINARY[type(op)], _expr(left, names), _expr(right, names))
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="window"), args=[ast.Constant(value=str() as by)], keywords=[]) if (
            name in _POINTS
        ):
            return _POINTS[name].window(by)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="last"), args=args, keywords=keywords) if name in _POINTS:
            return _POINTS[name].last(*map(_literal, args), **{str(k.arg): _literal(k.value) for k in keywords})  # type: ignore[arg-type]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="bars"), attr="every"), args=[ast.Constant(value=str() as by)], keywords=[]):
            return bars.every(by)
        case ast.Call(func=ast.Name(id="across"), args=[] | [ast.Constant(value=str())], keywords=[] | [ast.keyword(arg="by")]):
            return _across(node)
        case ast.Call(func=ast.Name(id="where"), args=[a, b, c], keywords=[]):
            return where(_expr(a, names), _expr(b, names), _expr(c, names))
        case ast.Call(func=ast.Attribute(value=value, attr=method), args=args, keywords=keywords):
            return _call(value, method, args, keywords, names)
        case ast.Attribute(value=value, attr=name) if not name.startswith("_"):
            root = _parse(value, names)
            if isinstance(root, Across) and name == "member":
                return root.member
            if isinstance(root, Bars | AdjustedBars | PointWindow) and isinstance(found := getattr(root, name), Expr | AdjustedBars):
                return found
    raise ValueError(f"{ast.unparse(node)} is not part of the language")


def _event_text(node: ast.Attribute, names: Mapping[str, Expr]) -> EventText:
    window = _parse(node.value, names)
    if not isinstance(window, EventWindow):
        raise ValueError(f"{ast.unparse(node)} is not part of the language")
    text: EventText = getattr(window, node.attr)
    return text


def _across(node: ast.Call) -> Across:
    """The universe and the grouping of `across(...)`."""
    universe, by = ([v for v in given if isinstance(v, ast.Constant)] for given in (node.args, [k.value for k in node.keywords]))
    if len(by) < len(node.keywords):
        raise ValueError(f"{ast.unparse(node)} names no grouping")
    return Across(universe[0].value if universe else None, by[0].value if by else None)  # type: ignore[arg-type]  # Across checks


def _expr(node: ast.AST, names: Mapping[str, Expr]) -> Expr:
    found = _parse(node, names)
    if not isinstance(found, Expr):
        raise ValueError(f"{ast.unparse(node)} is not a column: write {ast.unparse(node)}.close or the like")
    return found


def _call(value: ast.expr, method: str, args: list[ast.expr], keywords: list[ast.keyword], names: Mapping[str, Expr]) -> Expr:
    """`x.method(...)`: plain numbers stay numbers, so that parameters are told from inputs."""
    if any(k.arg is None for k in keywords) or method.startswith("_"):
        raise ValueError(f".{method}(...) is not part of the language")
    root = _parse(value, names)
    if any(root is points for points in _POINTS.values()):
        name = ast.unparse(value)
        raise ValueError(f'{name} are cut into windows first: {name}.window("1h")')
    plain = [_argument(a, names) for a in args]
    named = {str(k.arg): _argument(k.value, names) for k in keywords}
    if isinstance(root, Expr):
        if method in Expr.__slots__:
            raise ValueError(f".{method}(...) is not part of the language")
    elif not _is_method(root, method):
        raise ValueError(f"{ast.unparse(value)} has no method {method}")
    try:
        result: Expr = getattr(root, method)(*plain, **named)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return result


def _is_method(root: object, method: str) -> bool:
    """Whether bars, points or sections have a method that gives an expression."""
    if isinstance(root, Across):
        return method in NAMES
    if isinstance(root, PointWindow):
        return callable(getattr(type(root), method, None))
    return isinstance(root, Bars) and method == "count"


def _literal(node: ast.expr) -> object:
    """A text or a number as it is written."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int) and not isinstance(node.value, bool):
        return node.value
    raise ValueError(f"{ast.unparse(node)} is not part of the language")


def _argument(node: ast.expr, names: Mapping[str, Expr]) -> Expr | PointWindow | str | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    found = _parse(node, names)
    if isinstance(found, PointWindow):
        return found
    found = _expr(node, names)
    is_number = found.operator is None and found.domain is None
    if not is_number:
        return found
    number = found.params[0]
    written_whole = "." not in ast.unparse(node) and "e" not in ast.unparse(node)
    return int(number) if written_whole and number == int(number) else number


def definition_text(version: str, features: Mapping[str, Expr], flags: Mapping[str, Expr]) -> str:
    """The canonical text of a feature set: operators that do not ship, shared parts, then a line for each feature and flag, in order.

    A part that is itself a feature is written by that feature's name.
    """
    roots = [*features.values(), *flags.values()]
    names: dict[Expr, str] = {}
    for name, expr in features.items():
        if expr.operator is not None:
            names.setdefault(expr, name)
    uses = Counter(child for node in walk(*roots) for child in node.inputs)
    own = {n.operator for n in walk(*roots) if n.operator and n.operator.digest}
    lines = [f"feature set {version}", *sorted(f"operator {o.name} version {o.version} {o.digest}" for o in own)]
    shared = [n for n in walk(*roots) if uses[n] > 1 and n.operator is not None and n not in names]
    names |= {node: f"_{i}" for i, node in enumerate(shared, 1)}
    lines += [f"{names[node]} = {expression_text(node, names)}" for node in shared]
    seen: set[Expr] = set()
    for kind, group in (("feature", features), ("flag", flags)):
        for name, expr in group.items():
            repeated = expr in names and (names[expr].startswith("_") or names[expr] != name or kind == "flag")
            lines.append(f"{kind} {name} = {names[expr] if repeated else expression_text(expr, names)}")
            seen.add(expr)
    return "\n".join(lines) + "\n"


_OWN = re.compile(r"operator ([A-Za-z][A-Za-z0-9_]*) version ([0-9]+) ([0-9a-f]{16})")
_LINE = re.compile(r"(?:(feature|flag) )?([A-Za-z_][A-Za-z0-9_]*) = (.+)")


def parse_definition(text: str) -> tuple[str, dict[str, Expr], dict[str, Expr]]:
    """Version, features and flags of a definition's text. Raises `DefinitionError` with the line where it is not one."""
    head, *lines = text.splitlines() or [""]
    if not head.startswith("feature set "):
        raise DefinitionError(f"a definition starts with 'feature set <version>', not {_short(head)!r}")
    source: dict[str, tuple[str | None, str]] = {}
    flags_source: dict[str, str] = {}
    for number, line in enumerate(lines, 2):
        if own := _OWN.fullmatch(line.strip()):
            _check_own(head.removeprefix("feature set "), *own.groups())
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise DefinitionError(f"line {number} of the definition is not 'feature <name> = <expression>': {_short(line)!r}")
        kind, name, body = found.groups()
        if kind == "flag":
            flags_source[name] = body
        else:
            source[name] = (kind, body)
    resolved = _Resolver(source)
    for name in source:
        resolved[name]  # in order, so that a long chain of parts is not a deep one
    features = {name: resolved[name] for name, (kind, _) in source.items() if kind == "feature"}
    flags = {name: parse_expression(body, resolved) for name, body in flags_source.items()}
    return head.removeprefix("feature set "), features, flags


def _check_own(version: str, name: str, number: str, digest: str) -> None:
    """Refuse a definition that uses an operator which is not here, or which is another one here."""
    there = KNOWN.named(name)
    if there is None:
        raise DefinitionError(
            f"{version} uses the operator {name}, version {number} ({digest}), which is not known here: load the file that defines it"
            " (`features` in asof.toml), or install the package that brings it (entry points asof.operators)"
        )
    if (str(there.version), there.digest) != (number, digest):
        raise DefinitionError(
            f"{version} uses the operator {name}, version {number} ({digest}); here it is version {there.version} ({there.digest}):"
            " restore that function, or give the changed one a new version, and the feature set, too"
        )


class _Resolver(dict[str, Expr]):
    """Named parts of a definition, parsed when first asked for; a part may stand before the feature that it uses."""

    def __init__(self, source: Mapping[str, tuple[str | None, str]]) -> None:
        super().__init__()
        self._source = source
        self._open: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._source

    def __missing__(self, name: str) -> Expr:
        if name in self._open:
            raise DefinitionError(f"{name} is defined by itself")
        self._open.add(name)
        expr = self[name] = parse_expression(self._source[name][1], self)
        self._open.discard(name)
        return expr
