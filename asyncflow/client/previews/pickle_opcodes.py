"""Makes a tree of what a pickle says, without running it.

The opcodes are read one after the other, as an unpickler reads them. Numbers, texts and containers
are made as they are, but of a long text only its beginning. Where an unpickler would import, call
or build something, the tree has a note: `Named` for what would be imported, `Made` for what would
be called with what. A pickle that is longer than may be read leaves a tree of what was read, with
`is_cut`.
"""

from __future__ import annotations

import io
import pickletools
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.stored_bytes import InMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.stored_bytes import StoredBytes

Node = Any
"""Of the tree: None, bool, int, float, str, bytes, or one of the classes here."""


@dataclass(slots=True, eq=False)
class Several:
    """A list, a tuple or a set."""

    kind: str
    items: list[Node]


@dataclass(slots=True, eq=False)
class Mapped:
    """A dict."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    def get(self, name: str) -> Node:
        """The value with this name; None if there is none."""
        return next((value for key, value in self.pairs if key == name), None)


@dataclass(slots=True, eq=False)
class Named:
    """What an unpickler would import: a class or a function."""

    module: str
    name: str

    @property
    def full(self) -> str:
        """With its module."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """What an unpickler would make by calling something."""

    function: Node
    arguments: list[Node]
    state: Node = None
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PartOfText:
    """The beginning of a text or of bytes; the rest is not read."""

    text: str | bytes
    length: int
    data: StoredBytes
    """All of it, unread."""


@dataclass(slots=True, eq=False)
class Buffer:
    """Bytes that lie beside the pickle."""

    data: StoredBytes


@dataclass(slots=True)
class PickleTree:
    """What a pickle says, as far as it was read."""

    value: Node
    is_cut: bool


_HEADER: Final = struct.Struct("<4sIQ")
_RANGE: Final = struct.Struct("<QQ")
_MOST_BUFFERS: Final = 4_096
_MARK: Final = object()
_COPIED_AT_ONCE: Final = 16  # arguments of a call that cost as much as one more opcode
_CHECK_EVERY: Final = 256
_FIRST_WINDOW: Final = 16 << 10
_MOST_WINDOW: Final = 256 << 10
_WINDOW_BEHIND: Final = 1 << 10  # behind what was left unread: the next may be as long
_MOST_READ: Final = (
    32 << 10
)  # of one text or bytes; longer ones stay unread if a window ends in them
_LENGTHS: Final[dict[int, tuple[str, bool]]] = {
    ord("X"): ("<I", True),
    0x8C: ("<B", True),
    0x8D: ("<Q", True),
    ord("B"): ("<I", False),
    ord("C"): ("<B", False),
    0x8E: ("<Q", False),
    0x96: ("<Q", False),
}
"""How the length of a text or of bytes stands behind its opcode, and whether it is text."""


def read_pickle(stored: StoredBytes, has_buffers: bool, limits: PreviewLimits) -> PickleTree:  # noqa: FBT001 - one of two forms
    """The tree of a stored pickle.

    Raises:
        ValueError: These are not the bytes of a pickle.
    """
    begin, size, buffers = 0, stored.size, list[Buffer]()
    if has_buffers:
        begin, size, buffers = _places(stored)
    return _Machine(buffers, limits).run(stored.part(begin, size))


def _places(stored: StoredBytes) -> tuple[int, int, list[Buffer]]:
    head = stored.read(0, _HEADER.size)
    if len(head) < _HEADER.size:
        raise ValueError("the value is cut short")
    magic, count, size = _HEADER.unpack(head)
    if magic != b"AFB1" or count > _MOST_BUFFERS:
        raise ValueError("the value does not begin as it should, or has too many buffers")
    table = stored.read(_HEADER.size, _RANGE.size * count)
    ranges = _RANGE.iter_unpack(table[: len(table) // _RANGE.size * _RANGE.size])
    buffers = [Buffer(stored.part(offset, length)) for offset, length in ranges]
    return _HEADER.size + _RANGE.size * count, size, buffers


class _Machine:
    """The stack and the memo of an unpickler, with notes in place of objects."""

    def __init__(self, buffers: Sequence[Buffer], limits: PreviewLimits) -> None:
        self._limits = limits
        self._buffers = iter(buffers)
        self._done = self._copied = 0
        self.stack: list[Node] = []
        self.memo: dict[int, Node] = {}

    def run(self, stored: StoredBytes) -> PickleTree:
        """Read in windows; a long text or bytes stay unread, and reading goes on behind them."""
        at, room, window = 0, self._limits.bytes_read, _FIRST_WINDOW
        while room > 0:
            data = stored.read(at, min(window, room))
            room -= len(data)
            is_done, end = self._run_window(data, is_last=at + len(data) >= stored.size)
            if is_done:
                return PickleTree(self.stack[-1], is_cut=False)
            if is_done is not None:
                break
            behind = self._leave_unread(stored, at + end, data[end : end + 9], room)
            room -= 4 * self._limits.characters if behind else 0
            at = behind or at + end
            window = _WINDOW_BEHIND if behind else min(2 * window, _MOST_WINDOW)
        return self._cut_short()

    def _run_window(self, data: bytes, *, is_last: bool) -> tuple[bool | None, int]:
        """Carry out the opcodes of a window; return whether the pickle ends, and up to where.

        False: its limits are reached. None: the opcode there does not end in this window.
        """
        file, end = io.BytesIO(data), 0
        opcodes = pickletools.genops(file)
        while True:
            try:
                opcode, argument, _ = next(opcodes)
            except (ValueError, OverflowError) as error:
                if is_last:
                    raise _not_a_pickle(error) from error
                return None, end
            if opcode.name == "STOP":
                return True, end
            try:
                self._do(opcode.name, argument)
            except (ValueError, OverflowError, IndexError, KeyError) as error:
                raise _not_a_pickle(error) from error
            end = file.tell()
            self._done += 1
            if self._done + self._copied // _COPIED_AT_ONCE >= self._limits.operations or (
                self._done % _CHECK_EVERY == 0 and self._limits.is_over
            ):
                return False, end

    def _leave_unread(self, stored: StoredBytes, at: int, head: bytes, room: int) -> int | None:
        """Push the long text or bytes whose opcode is there, and return where they end."""
        form = _LENGTHS.get(head[0]) if head else None
        if form is None:
            return None
        pattern, is_text = form
        begin = at + 1 + struct.calcsize(pattern)
        if begin > at + len(head):
            return None
        length = int(struct.unpack_from(pattern, head, 1)[0])
        if length <= min(_MOST_READ, room):
            return None
        if begin + length > stored.size:
            raise ValueError("it is not a pickle: a text in it ends behind its end")
        part = stored.part(begin, length)
        piece = part.read(0, 4 * self._limits.characters)
        self.stack.append(
            PartOfText(piece.decode("utf-8", "replace") if is_text else piece, length, part)
        )
        return begin + length

    def _cut_short(self) -> PickleTree:
        """The tree of what was read: what is open is closed, the innermost first."""
        parts: list[list[Node]] = [[]]
        for each in self.stack:
            if each is _MARK:
                parts.append([])
            else:
                parts[-1].append(each)
        while len(parts) > 1:
            items = parts.pop()
            if not (parts[-1] and _add_to(parts[-1][-1], items)):
                parts[-1].append(Several("tuple", items))
        (rest,) = parts
        while len(rest) > 1:
            last = rest.pop()
            _add_to(rest[-1], [last])
        return PickleTree(rest[0] if rest else None, is_cut=True)

    # --- opcodes ---

    def _do(self, name: str, argument: Node) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        else:
            act = _ACTIONS.get(name)
            if act is None:
                message = f"the opcode {name} is not known here"
                raise ValueError(message)
            act(self, argument)

    def pop(self) -> Node:
        top = self.stack.pop()
        if top is _MARK:
            raise ValueError("a mark stands where a value is to be")
        return top

    def top(self) -> Node:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark stands where a value is to be")
        return self.stack[-1]

    def drop(self) -> None:
        self.stack.pop()

    def drop_to_mark(self) -> None:
        self.since_mark()

    def make_dict(self) -> None:
        items = self.since_mark()
        self.stack.append(Mapped(list(zip(items[::2], items[1::2], strict=False))))

    def since_mark(self) -> list[Node]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("there is no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def push_several(self, kind: str, items: list[Node]) -> None:
        self.stack.append(Several(kind, items))

    def make_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise ValueError("the stack is too short")
        items = [self.pop() for _ in range(count)][::-1]
        self.push_several("tuple", items)

    def extend(self, items: list[Node]) -> None:
        top = self.top()
        if not isinstance(top, Several | Made):
            raise ValueError("items are added to what is no container")  # noqa: TRY004 - of the bytes
        top.items += items

    def set_items(self, items: list[Node]) -> None:
        top = self.top()
        if not isinstance(top, Mapped | Made):
            raise ValueError("items are set in what is no container")  # noqa: TRY004 - of the bytes
        top.pairs += list(zip(items[::2], items[1::2], strict=False))

    def append(self) -> None:
        item = self.pop()
        self.extend([item])

    def set_item(self) -> None:
        value = self.pop()
        self.set_items([self.pop(), value])

    def memoize(self, at: int | None) -> None:
        self.memo[len(self.memo) if at is None else int(at)] = self.top()

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name is not text")  # noqa: TRY004 - of the bytes
        self.stack.append(Named(module, name))

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Named(module, name))

    def call(self, arguments: Node, named: Node = None) -> None:
        function = self.pop()
        given = arguments.items if isinstance(arguments, Several) else [arguments]
        if isinstance(named, Mapped) and named.pairs:
            self._copied += len(given)
            given = [*given, named]
        self.stack.append(_called(function, given))

    def new_ex(self) -> None:
        named = self.pop()
        self.call(self.pop(), named)

    def inst(self, argument: str) -> None:
        items = self.since_mark()
        self.name(argument)
        self.stack.append(_called(self.pop(), items))

    def obj(self) -> None:
        function, *items = self.since_mark()
        self.stack.append(_called(function, items))

    def build(self) -> None:
        state, top = self.pop(), self.top()
        if isinstance(top, Made):
            top.state = state

    def next_buffer(self) -> None:
        buffer = next(self._buffers, None)
        if buffer is None:
            raise ValueError("a buffer is missing")
        self.stack.append(buffer)


def _not_a_pickle(error: Exception) -> ValueError:
    return ValueError(f"it is not a pickle: {error}"[:200])


def _add_to(container: Node, items: list[Node]) -> bool:
    """Add items to a container that was being filled; return whether it is one."""
    if isinstance(container, Mapped):
        container.pairs += list(zip(items[::2], items[1::2], strict=False))
    elif isinstance(container, Made) or (
        isinstance(container, Several) and container.kind != "tuple"
    ):
        container.items += items
    else:
        return False
    return True


def _called(function: Node, arguments: list[Node]) -> Node:
    """What a call makes; a class of the flow's own file is a name again."""
    if isinstance(function, Named):
        if function.full == "asyncflow.codec.classes.restore" and len(arguments) > 1:
            module, name = arguments[:2]
            if isinstance(module, str) and isinstance(name, str):
                return Named(module, name)
        if function.full in _CONTAINERS and len(arguments) <= 1:
            items = arguments[0].items if arguments and isinstance(arguments[0], Several) else []
            return Several(function.name, items)
    return Made(function, arguments)


_CONTAINERS: Final = frozenset({"builtins.set", "builtins.frozenset", "builtins.list"})
_IGNORED: Final = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
_VALUES: Final = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINUNICODE", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8"),
    }
)
"""Opcodes whose argument is the value."""
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_ACTIONS: Final[dict[str, Callable[[_Machine, Node], None]]] = {
    "EMPTY_LIST": lambda machine, _: machine.push_several("list", []),
    "EMPTY_TUPLE": lambda machine, _: machine.push_several("tuple", []),
    "EMPTY_SET": lambda machine, _: machine.push_several("set", []),
    "EMPTY_DICT": lambda machine, _: machine.stack.append(Mapped()),
    "LIST": lambda machine, _: machine.push_several("list", machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push_several("tuple", machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push_several("frozenset", machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "APPEND": lambda machine, _: machine.append(),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_item(),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "DICT": lambda machine, _: machine.make_dict(),
    "POP": lambda machine, _: machine.drop(),
    "POP_MARK": lambda machine, _: machine.drop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "PUT": lambda machine, at: machine.memoize(at),
    "BINPUT": lambda machine, at: machine.memoize(at),
    "LONG_BINPUT": lambda machine, at: machine.memoize(at),
    "MEMOIZE": lambda machine, _: machine.memoize(None),
    "GET": lambda machine, at: machine.stack.append(machine.memo[int(at)]),
    "BINGET": lambda machine, at: machine.stack.append(machine.memo[at]),
    "LONG_BINGET": lambda machine, at: machine.stack.append(machine.memo[at]),
    "GLOBAL": lambda machine, argument: machine.name(argument),
    "STACK_GLOBAL": lambda machine, _: machine.stack_global(),
    "EXT1": lambda machine, code: machine.stack.append(Named("copyreg", f"extension {code}")),
    "EXT2": lambda machine, code: machine.stack.append(Named("copyreg", f"extension {code}")),
    "EXT4": lambda machine, code: machine.stack.append(Named("copyreg", f"extension {code}")),
    "REDUCE": lambda machine, _: machine.call(machine.pop()),
    "NEWOBJ": lambda machine, _: machine.call(machine.pop()),
    "NEWOBJ_EX": lambda machine, _: machine.new_ex(),
    "BUILD": lambda machine, _: machine.build(),
    "INST": lambda machine, argument: machine.inst(argument),
    "OBJ": lambda machine, _: machine.obj(),
    "PERSID": lambda machine, key: machine.stack.append(Made(Named("", "persistent"), [key])),
    "BINPERSID": lambda machine, _: machine.stack.append(
        Made(Named("", "persistent"), [machine.pop()])
    ),
    "NEXT_BUFFER": lambda machine, _: machine.next_buffer(),
}


def bytes_of(node: Node) -> StoredBytes | None:
    """The bytes that a node stands for; None if it stands for none."""
    if isinstance(node, Buffer):
        return node.data
    if isinstance(node, PartOfText) and isinstance(node.text, bytes):
        return node.data
    if isinstance(node, bytes | bytearray):
        return InMemory(node)
    return None
