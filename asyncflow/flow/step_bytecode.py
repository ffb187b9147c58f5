"""Reads the plain forms of `self.next(...)` from compiled code, for a step whose source is gone.

A flow on standard input (`python - < flow.py`), in `python -c`, in `exec`, or typed at the prompt
before Python 3.13 has no source anywhere. This module lets such flows run. It reads
`self.next(self.a, self.b, foreach="items")` as the last statement, on CPython 3.11 to 3.14, and it
**never learns another form**: whatever is added to `self.next` is read from the source alone, and
a step that this module cannot read must be saved in a file.
"""

from __future__ import annotations

import dis
import re
from typing import TYPE_CHECKING, Final

from asyncflow.flow.step_source import NEXT, Argument, Body, NextCall

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_PLAIN: Final = re.compile(
    rf"self \.{NEXT}((?: self \.\w+)+)(?: =(\w+) foreach=)? call pop None return"
)
_LOADS: Final = ("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD")
_IDLE: Final = frozenset({"NOP", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "NOT_TAKEN"})
_WORDS: Final = {"CALL": "call", "CALL_KW": "call", "POP_TOP": "pop", "RETURN_VALUE": "return"}


def from_bytecode(code: CodeType) -> Body | None:
    """What a compiled step says; None if it has a `self.next` in a form that is not plain.

    A statement after which nothing more happens counts as the last one, even within an `else`
    whose other branch has returned: compiled, the two are the same.
    """
    bytecode = dis.Bytecode(code)
    instructions = list(bytecode)
    found = [(word, each) for each in instructions for word in _words(each, code)]
    words = [word for word, _ in found]
    own = [at for at in range(1, len(words)) if words[at - 1] == "self"]
    assigned: dict[str, int] = {}
    for at in own:
        if words[at].startswith("store "):
            assigned.setdefault(words[at].removeprefix("store "), _line(found[at][1]))
    calls = [at for at in own if words[at] == f".{NEXT}"]
    if not calls:
        return Body(code.co_firstlineno, (), assigned)
    call = _PLAIN.match(" ".join(words[calls[0] - 1 :]))
    if call is None or len(calls) > 1:
        return None
    first = found[calls[0]][1].offset
    last = found[calls[0] + call[0].count(" ") - 4][1].offset  # of the call itself
    jumping = {*dis.hasjrel, *dis.hasjabs}
    if any(i.opcode in jumping and i.offset < first and i.argval > last for i in instructions):
        return None  # within an `if` or a `match`
    names = {each.offset: each.opname for each in instructions}
    for entry in bytecode.exception_entries:  # type: ignore[attr-defined] # not in typeshed
        # a coroutine is guarded as a whole, against StopIteration
        if entry.start <= first < entry.end and names[entry.target] != "CALL_INTRINSIC_1":
            return None  # within a `try` or a `with`
    steps = re.findall(r"\.(\w+)", call[1])
    positional = tuple(Argument(f"self.{name}", step=name) for name in steps)
    keywords = {"foreach": Argument(repr(call[2]), constant=call[2])} if call[2] else {}
    transition = NextCall(_line(found[calls[0]][1]), positional, keywords, is_last=True)
    return Body(code.co_firstlineno, (transition,), assigned)


def _line(instruction: dis.Instruction) -> int:
    return (instruction.positions and instruction.positions.lineno) or 0


def _words(instruction: dis.Instruction, code: CodeType) -> Iterator[str]:
    """An instruction in the words of `_PLAIN`, the same in each version of Python."""
    name, value = instruction.opname, instruction.argval
    if name in _IDLE:
        return
    if name.startswith(_LOADS):
        for each in value if isinstance(value, tuple) else (value,):
            yield "self" if each == code.co_varnames[0] else "other"
    elif name in {"LOAD_METHOD", "LOAD_ATTR"}:
        yield f".{value}"
    elif name == "STORE_ATTR":
        yield f"store {value}"
    elif name in {"LOAD_CONST", "KW_NAMES", "RETURN_CONST"}:
        constant = code.co_consts[instruction.arg or 0]
        plain = isinstance(constant, str) and constant.isidentifier()
        known = {None: "None", ("foreach",): "foreach="}
        yield f"={constant}" if plain else known.get(constant, "other")
        if name == "RETURN_CONST":
            yield "return"
    else:
        yield _WORDS.get(name, "other")
