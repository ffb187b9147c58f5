"""Reads what the body of a step says from its source: its `self.next(...)`, what it assigns.

This module does not judge; `asyncflow.flow.graph_reader` says which transitions are legal.
"""

from __future__ import annotations

import ast
import linecache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.parsing import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import CodeType, FunctionType

NEXT: Final = "next"


class Argument(NamedTuple):
    """An argument of `self.next(...)`."""

    text: str
    """The argument as it is written."""
    step: str | None = None
    """The step's name, if it is written `self.name`."""
    constant: object = None
    """The value, if it is a constant."""
    path: tuple[str, ...] = ()
    """The names, if it is written `self.name.name`, with at least two."""
    cases: tuple[tuple[Argument, Argument], ...] | None = None
    """Keys and values, if it is written as a dict."""


class NextCall(NamedTuple):
    """A call of `self.next(...)`, as it is written."""

    line: int
    positional: tuple[Argument, ...] = ()
    keywords: Mapping[str, Argument] = MappingProxyType({})
    is_last: bool = False
    """Whether it is the body's last statement, and not inside another one."""


class Body(NamedTuple):
    """What the body of one step says."""

    line: int
    """Where its `def` stands."""
    calls: tuple[NextCall, ...]
    """The calls, in the order of the code."""
    assigned: Mapping[str, int]
    """The attributes of `self` that are assigned, each with the line of its first assignment."""
    reads_arrivals: bool = False
    """Whether it has an `async for` over its inputs."""


def read_source(function: FunctionType) -> Body | None:
    """Read the body of a function; None if its source is not found, or was edited since.

    The function has a positional argument, which stands for `self`.
    """
    code = function.__code__
    definition = _definition(code, function.__globals__)
    if definition is None:
        return None
    body = from_source(definition)
    return body if _agrees(body, code) else None


def _agrees(body: Body, code: CodeType) -> bool:
    """Whether the code can come from this text, as far as the transition to the next step goes."""
    if not body.calls:
        return NEXT not in code.co_names
    given = [argument for call in body.calls for argument in call.positional]
    given += [target for argument in given for _, target in argument.cases or ()]
    steps = {argument.step for argument in given}
    return steps - {None} | {NEXT} <= set(code.co_names)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definition(code: CodeType, module_globals: dict[str, Any]) -> _Definition | None:
    """The definition that a function was compiled from; None if the file no longer has it there."""
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, module_globals)
    block = _block(lines, code)
    # Parse only these lines, however long the file is, and unchanged: removing the indentation
    # would break strings of several lines.
    wrapped = block[:1].isspace()
    try:
        tree = parse("if 1:\n" + block if wrapped else block)
    except (SyntaxError, ValueError):  # edited since
        return None
    found: Any = tree.body[0] if tree.body else None
    found = found.body[0] if wrapped else found
    if not isinstance(found, _Definition) or found.name != code.co_name:
        return None
    ast.increment_lineno(found, code.co_firstlineno - (2 if wrapped else 1))
    return found


def _block(lines: Sequence[str], code: CodeType) -> str:
    """The lines of a function, with its decorators."""
    first = code.co_firstlineno - 1
    last = max((each[1] or each[0] or 0 for each in code.co_positions()), default=0)
    indent = _indent(lines[first]) if first < len(lines) else 0
    # lines after the last compiled one: closing brackets, and statements without effect
    while last < len(lines) and (not lines[last].strip() or _indent(lines[last]) > indent):
        last += 1
    return "".join(lines[first:last])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def from_source(definition: _Definition) -> Body:
    """Read an `ast` function definition."""
    arguments = [*definition.args.posonlyargs, *definition.args.args]
    reader = _SourceReader(arguments[0].arg if arguments else "")
    last = _last_statement(definition.body)
    calls: list[NextCall] = []
    assigned: dict[str, int] = {}
    for statement in definition.body:
        for node in _within(statement):
            if not (isinstance(node, ast.Attribute) and reader.is_own(node)):
                continue
            if isinstance(node.ctx, ast.Store):
                assigned.setdefault(node.attr, node.lineno)
            elif node.attr == NEXT:
                calls.append(reader.call(node, statement, is_last=statement is last))
    inputs = arguments[1].arg if len(arguments) > 1 else ""
    reads_arrivals = any(
        isinstance(node, ast.AsyncFor | ast.comprehension)
        and getattr(node, "is_async", 1)
        and isinstance(node.iter, ast.Name)
        and node.iter.id == inputs
        for statement in definition.body
        for node in _within(statement)
    )
    calls.sort(key=lambda call: call.line)
    return Body(definition.lineno, tuple(calls), assigned, reads_arrivals)


def _last_statement(body: Sequence[ast.stmt]) -> ast.stmt:
    """The last statement that does something: not a lone constant, `pass` or an empty `return`."""
    for statement in reversed(body):
        match statement:
            case (
                ast.Expr(value=ast.Constant())
                | ast.Pass()
                | ast.Return(value=None)
                | ast.Return(value=ast.Constant(value=None))
            ):
                continue
            case _:
                return statement
    return body[-1]


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """The node and everything inside it, in order, except functions and classes defined there."""
    pending = [node]
    while pending:
        node = pending.pop()
        if not isinstance(node, _Definition | ast.Lambda | ast.ClassDef):
            yield node
            pending.extend(reversed(list(ast.iter_child_nodes(node))))


class _SourceReader:
    def __init__(self, self_name: str) -> None:
        self._self_name = self_name

    def is_own(self, node: ast.Attribute) -> bool:
        """Whether the attribute is one of `self`."""
        return isinstance(node.value, ast.Name) and node.value.id == self._self_name

    def _path(self, node: ast.expr) -> tuple[str, ...]:
        """The names of `self.a.b`; none if it is anything else."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            if self.is_own(node):
                return tuple(reversed(names))
            node = node.value
        return ()

    def call(self, following: ast.expr, statement: ast.stmt, *, is_last: bool) -> NextCall:
        """The call of `self.next` within a statement."""
        match statement:
            case ast.Expr(value=ast.Call(func=function) as call) if function is following:
                return self._arguments(call, is_last=is_last)
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and node.func is following:
                return self._arguments(node, is_last=False)
        # `self.next` that is not called here, so nobody can tell where it leads
        return NextCall(following.lineno, (Argument(ast.unparse(following)),))

    def _arguments(self, call: ast.Call, *, is_last: bool) -> NextCall:
        positional = tuple(self._argument(each) for each in call.args)
        keywords = {each.arg or "**": self._argument(each.value) for each in call.keywords}
        return NextCall(call.lineno, positional, keywords, is_last)

    def _argument(self, node: ast.expr) -> Argument:
        match node:
            case ast.Attribute(attr=name) if self.is_own(node):
                return Argument(ast.unparse(node), step=name)
            case ast.Attribute() if path := self._path(node):
                return Argument(ast.unparse(node), path=path)
            case ast.Constant(value=value):
                return Argument(ast.unparse(node), constant=value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return Argument(ast.unparse(node), constant=-value)
            case ast.Dict(keys=keys, values=values) if None not in keys:
                pairs = zip(keys, values, strict=True)
                cases = tuple(
                    (self._argument(key), self._argument(value)) for key, value in pairs if key
                )
                return Argument(ast.unparse(node), cases=cases)
            case _:
                return Argument(ast.unparse(node))
