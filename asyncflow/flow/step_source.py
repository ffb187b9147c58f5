"""What the body of a step says, found without running it: its `self.next(...)`, what it assigns.

Two readers give the same answer. `from_source` reads the text, and can quote what is wrong.
`from_bytecode` reads what Python compiled, for a step whose text is nowhere to be found: one typed
at the prompt, given to `exec`, or in a file that was edited since it was imported. Neither judges:
what a legal transition is, `asyncflow.flow.graph_reader` says.
"""

from __future__ import annotations

import ast
import dis
import linecache
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import CodeType, FunctionType

NEXT: Final = "next"


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of `self.next(...)`."""

    text: str
    """As it is written, or what is known of it."""
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
    """Whether it is the body's last statement, and stands within no other."""


@dataclass(frozen=True, slots=True)
class Body:
    """What the body of one step says."""

    line: int
    """Where its `def` stands."""
    calls: tuple[NextCall, ...]
    """In the order of the code."""
    assigned: Mapping[str, int]
    """The attributes of `self` that are assigned to, each with the line of the first time."""


def read_body(function: FunctionType) -> Body:
    """What the body of a function says, from its source if there is one, else from its bytecode.

    The function has a positional argument: the one that stands for `self`.
    """
    code = function.__code__
    definition = _definition(code, function.__globals__)
    if definition is not None:
        body = from_source(definition)
        if _agrees(body, code):
            return body
    return from_bytecode(code)


def _agrees(body: Body, code: CodeType) -> bool:
    """Whether the text can be what was compiled, as far as the way to the next step goes."""
    if not body.calls:
        return NEXT not in code.co_names
    steps = {argument.step for call in body.calls for argument in call.positional}
    return steps - {None} | {NEXT} <= set(code.co_names)


# --- from source ------------------------------------------------------------------------------

_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _definition(code: CodeType, module_globals: dict[str, Any]) -> _Definition | None:
    """The definition that a function was compiled from; None if it is not where it should be."""
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, module_globals)
    block = _block(lines, code)
    # Only these lines are parsed, however long the file, and as they are: to remove the indentation
    # would break strings of several lines.
    wrapped = block[:1].isspace()
    try:
        tree = ast.parse("if 1:\n" + block if wrapped else block)
    except (SyntaxError, ValueError):  # edited into something else since
        return None
    found: Any = tree.body[0] if tree.body else None
    found = found.body[0] if wrapped else found
    if not isinstance(found, _Definition) or found.name != code.co_name:
        return None
    ast.increment_lineno(found, code.co_firstlineno - (2 if wrapped else 1))
    return found


def _block(lines: Sequence[str], code: CodeType) -> str:
    """The lines that belong to a function, its decorators included."""
    first = code.co_firstlineno - 1
    last = max((each[1] or each[0] or 0 for each in code.co_positions()), default=0)
    indent = _indent(lines[first]) if first < len(lines) else 0
    # what comes after the last line that was compiled: closing brackets, and what does nothing
    while last < len(lines) and (not lines[last].strip() or _indent(lines[last]) > indent):
        last += 1
    return "".join(lines[first:last])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def from_source(definition: _Definition) -> Body:
    """What a function definition of `ast` says."""
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
    """The last one that does something: no constant by itself, no `pass`, no empty `return`."""
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
    """The node and what is in it, in order, but for functions and classes defined there."""
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
        """The call within a statement in which `self.next` stands."""
        match statement:
            case ast.Expr(value=ast.Call(func=function) as call) if function is following:
                return self._arguments(call, is_last=is_last)
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and node.func is following:
                return self._arguments(node, is_last=False)
        # `self.next` that is not called here: there is no telling where it leads
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


# --- from bytecode ----------------------------------------------------------------------------

_SELF: Final = object()
_UNREADABLE: Final = Argument("an expression")
_LOADS: Final = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF"})
_PAIRS: Final = frozenset({"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"})
_IDLE: Final = frozenset({"NOP", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "CACHE", "NOT_TAKEN"})


@dataclass(frozen=True, slots=True)
class _Operation:
    """An instruction, as far as it matters here and whatever the version of Python."""

    kind: str
    value: Any
    offset: int
    line: int


def from_bytecode(code: CodeType) -> Body:
    """What a compiled function says. CPython 3.11 to 3.13.

    A statement after which nothing more happens counts as the last one, even within an `else`
    whose other branch has returned: compiled, the two are the same. What can never be reached, such
    as a call after `raise`, the compiler has left out.
    """
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    operations = list(_operations(instructions, code))
    calls = []
    assigned: dict[str, int] = {}
    for at, operation in enumerate(operations):
        before = operations[at - 1] if at else operation
        if before.value is not _SELF:
            continue
        if operation.kind == "store":
            assigned.setdefault(operation.value, operation.line)
        elif operation.kind == "attribute" and operation.value == NEXT:
            calls.append(_call(operations, at, _Surroundings(instructions, bytecode)))
    return Body(code.co_firstlineno, tuple(calls), assigned)


def _operations(instructions: Sequence[dis.Instruction], code: CodeType) -> Iterator[_Operation]:
    self_names = code.co_varnames[:1]
    for each in instructions:
        name, value, offset = each.opname, each.argval, each.offset
        line = (each.positions.lineno if each.positions else None) or 0
        if name in _IDLE:
            continue
        if name in _LOADS:
            yield _Operation("load", _SELF if value in self_names else None, offset, line)
        elif name in _PAIRS:
            for one in value:
                yield _Operation("load", _SELF if one in self_names else None, offset, line)
        elif name == "STORE_FAST_LOAD_FAST":
            yield _Operation("load", _SELF if value[1] in self_names else None, offset, line)
        elif name == "KW_NAMES":
            yield _Operation("names", code.co_consts[each.arg or 0], offset, line)
        else:
            yield _Operation(_KINDS.get(name, "other"), value, offset, line)


_KINDS: Final = {
    "LOAD_METHOD": "attribute",
    "LOAD_ATTR": "attribute",
    "STORE_ATTR": "store",
    "LOAD_CONST": "constant",
    "CALL": "call",
    "CALL_KW": "call",
    "POP_TOP": "pop",
    "RETURN_CONST": "return constant",
    "RETURN_VALUE": "return",
}


def _call(operations: Sequence[_Operation], at: int, surroundings: _Surroundings) -> NextCall:
    """The call that begins with the loading of `self.next`, played through on a small stack."""
    line = operations[at].line
    stack: list[Any] = []
    names: tuple[str, ...] = ()
    for place in range(at + 1, len(operations)):
        operation = operations[place]
        match operation.kind:
            case "load" if operation.value is _SELF:
                stack.append(_SELF)
            case "attribute" if stack and stack[-1] is _SELF:
                stack[-1] = Argument(f"self.{operation.value}", step=operation.value)
            case "constant":
                stack.append(Argument(repr(operation.value), constant=operation.value))
            case "names":
                names = operation.value
            case "call":
                arguments = _arguments(stack, names, operation.value)
                if arguments is None:
                    break
                is_last = surroundings.is_last(
                    operations[at].offset, operation.offset, operations[place + 1 : place + 4]
                )
                return NextCall(line, *arguments, is_last)
            case _:
                break
    # what cannot be played through is reported as such, and not as standing in the wrong place
    return NextCall(line, (_UNREADABLE,), {}, is_last=True)


def _arguments(
    stack: list[Any], names: Any, count: int
) -> tuple[tuple[Argument, ...], dict[str, Argument]] | None:
    arguments = [_UNREADABLE if each is _SELF else each for each in stack]
    if len(arguments) == count + 1:  # 3.13: the names lie on the stack
        names = arguments.pop().constant
    if len(arguments) != count or not isinstance(names, tuple):
        return None
    first = count - len(names)
    return tuple(arguments[:first]), dict(zip(names, arguments[first:], strict=True))


class _Surroundings:
    """Tells whether a call is the last thing that happens, whichever way it is come to."""

    def __init__(self, instructions: Sequence[dis.Instruction], bytecode: dis.Bytecode) -> None:
        jumping = {*dis.hasjrel, *dis.hasjabs}
        self._jumps = [
            (each.offset, each.argval) for each in instructions if each.opcode in jumping
        ]
        names = {each.offset: each.opname for each in instructions}
        self._guarded = [
            (entry.start, entry.end)
            for entry in bytecode.exception_entries  # type: ignore[attr-defined] # not in typeshed
            # a coroutine is guarded as a whole, against StopIteration
            if names[entry.target] != "CALL_INTRINSIC_1"
        ]

    def is_last(self, first: int, last: int, after: Sequence[_Operation]) -> bool:
        """Whether nothing but the end comes after, and neither jump nor `try` leads round it."""
        returned = [(each.kind, each.value) for each in after]
        ends = returned[:2] == [("pop", None), ("return constant", None)] or returned == [
            ("pop", None),
            ("constant", None),
            ("return", None),
        ]
        skipped = any(source < first and target > last for source, target in self._jumps)
        guarded = any(start <= first < end for start, end in self._guarded)
        return ends and not skipped and not guarded
