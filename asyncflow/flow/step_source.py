"""What the body of a step says, read from its source: its `self.next(...)`, and what it assigns.

Nothing is run. This module reads and does not judge: which transitions are legal is decided in
`asyncflow.flow.graph_reader`.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import tokenize
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import CodeType, FunctionType

NEXT: Final = "next"


class SourceUnavailable(Exception):
    """The source of a function cannot be had. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of `self.next(...)`."""

    text: str
    """As it is written."""
    step: str | None = None
    """The name, if it is written `self.name`."""
    constant: object = None
    """The value, if it is a constant."""


@dataclass(frozen=True, slots=True)
class NextCall:
    """A call of `self.next(...)`, as it is written."""

    line: int
    positional: tuple[Argument, ...] = ()
    keywords: Mapping[str, Argument] = field(default_factory=dict)
    is_last: bool = False
    """Whether it is the body's last statement, and not nested in another."""


@dataclass(frozen=True, slots=True)
class Body:
    """What was read from the body of one step."""

    line: int
    """The line of its `def`."""
    calls: tuple[NextCall, ...]
    """In the order of the code."""
    assigned: Mapping[str, int]
    """The attributes of `self` that are assigned, each with the line of its first assignment."""


def read_body(function: FunctionType) -> Body:
    """Read the body of a function, which has a positional argument for `self`.

    Raises:
        SourceUnavailable: Python has no source for it, or the file was edited since the import.
    """
    code = function.__code__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, function.__globals__)
    if not lines:
        message = (
            "has no source to read it from (it was typed at a prompt before Python 3.13, came from "
            "`exec`, `python -c` or standard input, or its file is gone): write the flow into a "
            "file, or into a notebook"
        )
        raise SourceUnavailable(message)
    definition = _definition(code, lines)
    body = _read(definition) if definition is not None else None
    if definition is None or body is None or not _agrees(body, definition, code):
        message = (
            "is not in its file as it was imported: the file was edited since, so start the "
            "program again, or import the file again"
        )
        raise SourceUnavailable(message)
    return body


_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definition(code: CodeType, lines: Sequence[str]) -> _Definition | None:
    """The definition that a function was compiled from; None if it is not at its line."""
    try:
        # Only the lines of the function are parsed, however long the file. They are parsed as they
        # are: removing the indentation would break strings of several lines.
        block = "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
        wrapped = block[:1].isspace()
        tree = ast.parse("if 1:\n" + block if wrapped else block)
    except (SyntaxError, ValueError, tokenize.TokenError):  # the file was edited
        return None
    found: Any = tree.body[0] if tree.body else None
    found = found.body[0] if wrapped else found
    if not isinstance(found, _Definition) or found.name != code.co_name:
        return None
    ast.increment_lineno(found, code.co_firstlineno - (2 if wrapped else 1))
    return found


def _agrees(body: Body, definition: _Definition, code: CodeType) -> bool:
    """Whether the code can be compiled from this text, judging by the calls of `self.next`.

    Names are compared, not code: pytest and other tools rewrite a module before they compile it.
    """
    if not body.calls:
        # `next` may also be the built-in
        return NEXT not in code.co_names or any(
            NEXT in {getattr(node, "id", None), getattr(node, "attr", None)}
            for node in ast.walk(definition)
        )
    steps = {argument.step for call in body.calls for argument in call.positional}
    return steps - {None} | {NEXT} <= set(code.co_names)


def _read(definition: _Definition) -> Body:
    """What a function definition says."""
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
    calls.sort(key=lambda call: call.line)
    return Body(definition.lineno, tuple(calls), assigned)


def _last_statement(body: Sequence[ast.stmt]) -> ast.stmt:
    """The last statement that does something: not a bare constant, `pass` or empty `return`."""
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
    """The node and all nodes in it, in order, without functions and classes defined there."""
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

    def call(self, following: ast.expr, statement: ast.stmt, *, is_last: bool) -> NextCall:
        """The call of this `self.next` within a statement."""
        match statement:
            case ast.Expr(value=ast.Call(func=function) as call) if function is following:
                return self._arguments(call, is_last=is_last)
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and node.func is following:
                return self._arguments(node, is_last=False)
        # `self.next` is not called here, so nobody can tell where it leads
        return NextCall(following.lineno, (Argument(ast.unparse(following)),))

    def _arguments(self, call: ast.Call, *, is_last: bool) -> NextCall:
        positional = tuple(self._argument(each) for each in call.args)
        keywords = {each.arg or "**": self._argument(each.value) for each in call.keywords}
        return NextCall(call.lineno, positional, keywords, is_last)

    def _argument(self, node: ast.expr) -> Argument:
        match node:
            case ast.Attribute(attr=name) if self.is_own(node):
                return Argument(ast.unparse(node), step=name)
            case ast.Constant(value=value):
                return Argument(ast.unparse(node), constant=value)
            case _:
                return Argument(ast.unparse(node))
