"""What a kernel of somebody's own is made of: its source and that of all it uses, without what changes no number."""

from __future__ import annotations

import ast
import builtins
import dis
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from asof.errors import DefinitionError

MODULES = ("math", "cmath", "numpy")
"""What a kernel may use beside plain functions and numbers."""
Used = dict[FunctionType, str]
"""Functions in the order in which they are met, with their source and the constants that each uses."""


def digest_of(kernel: FunctionType) -> str:
    """16 hexadecimal digits that change with the source of a kernel, of the functions that it calls and the constants that it uses.

    Comments, layout, annotations and docstrings do not count. Raises `DefinitionError` where something cannot be known: a source that is
    not in a file, a name that is defined later, a list or an array that may change meanwhile.
    """
    used = Used()
    _collect(kernel, kernel.__name__, used)
    return hashlib.sha256("\n".join(used.values()).encode()).hexdigest()[:16]


def _collect(function: FunctionType, whose: str, used: Used) -> None:
    """Add a function, and what it uses, unless it is there."""
    if function in used:
        return
    used[function] = _plain_source(function, whose)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    values = {free: cell.cell_contents for free, cell in cells}
    for word in _globals(function.__code__, whose):
        if word in function.__globals__:
            values[word] = function.__globals__[word]
        elif not hasattr(builtins, word):
            raise DefinitionError(f"operator {whose} uses {word}, which is not defined yet: put it above the operator")
    for word, value in values.items():
        if isinstance(value, FunctionType):
            _collect(value, whose, used)
        elif _is_constant(value):
            used[function] += f"\n{word} = {value!r}"
        elif not _is_library(value):
            raise DefinitionError(
                f"operator {whose} uses {word}, {type(value).__name__}: a kernel may use plain functions, numbers and {', '.join(MODULES)},"
                " nothing that can change meanwhile"
            )


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, bool | int | float | str)


def _is_library(value: object) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0] in MODULES
    home = getattr(value, "__module__", None) or type(value).__module__
    package = home.partition(".")[0]
    return callable(value) and (package in MODULES or (package == "builtins" and isinstance(value, BuiltinFunctionType | type)))


def _globals(code: CodeType, whose: str) -> Iterator[str]:
    """The global names that code reads, in the order in which it first does."""
    seen: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            raise DefinitionError(f"operator {whose} writes the global {instruction.argval}: a kernel keeps nothing from call to call")
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            seen.setdefault(str(instruction.argval))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            seen.update(dict.fromkeys(_globals(inner, whose)))
    return iter(seen)


def _plain_source(function: FunctionType, whose: str) -> str:
    """A function as Python writes it anew, without decorators, annotations and its docstring."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        raise DefinitionError(
            f"operator {whose}: the source of {function.__name__} cannot be read: define it with def, in a file"
        ) from None
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        raise DefinitionError(f"operator {whose}: {function.__name__} is no plain function: define it with def")
    node.decorator_list, node.returns = [], None
    for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        argument.annotation = None
    if ast.get_docstring(node) is not None:
        node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(node)
