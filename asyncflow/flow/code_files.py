"""The source files of a flow: its own, and those of its folder that its modules import.

They are kept with each run, so that `asyncflow code` shows what ran, whatever the files hold today.
A module belongs to the flow if its file lies in the folder of the flow's file or below, and the
flow's module, or one that belongs to it, holds the module or something that it defines. What a step
imports only when it runs is not known beforehand, and not kept.

A value that `@environment` gives to a step is often a secret. Where one stands in a file, the file
is kept with asterisks in its place.

The files are kept as one value, `Code`, in a form of its own: msgpack of a version, the name of the
flow's file, the files by name, and the names of what was too large.
"""

from __future__ import annotations

import os
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from asyncflow.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

MOST_BYTES: Final = 4 << 20
"""The most that is kept for a run; files beyond it are named only."""
_VERSION: Final = 1
_NOT_OURS: Final = ("site-packages", "dist-packages", ".venv", "venv", "node_modules")
_KEPT_FILES: Final = 16  # of the flows used last; an application has a handful


class Code(NamedTuple):
    """The source files of a flow."""

    script: str
    """The name of the flow's file, relative to its folder; a cell's for a flow without a file."""
    files: Mapping[str, bytes]
    """What each file holds, by its name relative to that folder."""
    left_out: tuple[str, ...] = ()
    """The names of files that were too large to be kept, or could not be read."""

    def without(self, secrets: Collection[str]) -> Code:
        """The same code with asterisks in place of these texts, but for the shortest ones."""
        if not secrets:
            return self
        from asyncflow.flow.hidden_texts import hide  # most flows have no secrets

        return self._replace(files=hide(secrets, self.files))

    def pack(self) -> bytes:
        """The same code is the same bytes."""
        files = dict(sorted(self.files.items()))
        packed: bytes = msgpack.packb([_VERSION, self.script, files, sorted(self.left_out)])
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Code:
        """Undo `pack`.

        Raises:
            RecordError: These bytes are no code, or a later version has written them.
        """
        try:
            version, script, files, left_out, *_ = msgpack.unpackb(data)
            is_known = version == _VERSION and isinstance(script, str)
            named = {str(name): bytes(content) for name, content in files.items()}
            left = tuple(map(str, left_out))
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise RecordError(f"it is no source code of a flow: {error}") from error
        if not is_known or any(not _is_below(name) for name in named):
            raise RecordError("it is no source code of a flow that this version can read")
        return cls(script, named, left)


def _is_below(name: str) -> bool:
    """Whether a file of this name, written below a folder, stays in it."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and ".." not in parts and "\0" not in name


class _Kept(NamedTuple):
    """What was found of the code of one file's flows, and when it holds still."""

    modules: int
    """How many modules were imported then: with another one, others may belong to the flow."""
    files: list[str]
    stamp: tuple[Any, ...]
    packed: bytes


class CodeFiles:
    """Reads the source files of flows, again only when one has changed."""

    def __init__(self, keep: str) -> None:
        """Prepare to keep `all` files, that of the `flow` alone, or `none`."""
        self._keep = keep
        self._kept: dict[str, _Kept] = {}  # by file, not by class: a class may be made for each run

    def packed(self, flow: type, secrets: Collection[str] = ()) -> bytes:
        """The packed `Code` of a flow without these texts; empty if nothing of it can be found."""
        if self._keep == "none":
            return b""
        module = sys.modules.get(flow.__module__)
        first = _source_file(module) if module is not None else ""
        if module is None or not first:
            code = _typed(flow)
            return code.without(secrets).pack() if code is not None else b""
        modules, kept = len(sys.modules), self._kept.pop(first, None)
        if kept is None or kept.modules != modules:
            files = [first] if self._keep == "flow" else _files_of(module, first)
        else:
            files = kept.files
        stamp = *secrets, *((path, *_stat(path)) for path in files)
        if kept is None or kept.stamp != stamp:
            code = _read(os.path.dirname(first), files)  # noqa: PTH120 - text: thousands of files
            kept = _Kept(modules, files, stamp, code.without(secrets).pack())
        self._kept[first] = kept._replace(modules=modules, files=files)
        for oldest in [*self._kept][:-_KEPT_FILES]:
            self._kept.pop(oldest, None)
        return kept.packed


def _files_of(module: ModuleType, first: str) -> list[str]:
    """The files of the flow in this module: its own first, then the others sorted."""
    folder = os.path.dirname(first)  # noqa: PTH120 - as above
    found = {first: None}
    pending = [module]
    while pending:
        for used in _used_by(pending.pop()):
            file = _source_file(used)
            if file.startswith(folder + os.sep) and file not in found and _is_ours(file, folder):
                found[file] = None
                pending.append(used)
    return [first, *sorted(set(found) - {first})]


def _used_by(module: ModuleType) -> Iterator[ModuleType]:
    """The modules that a module holds, or has something of, and the packages around them."""
    names: dict[str, None] = {}
    for value in list(vars(module).values()):
        name = _module_of(value)
        while name and name not in names:
            names[name] = None
            name = name.rpartition(".")[0]
    for each in names:
        found = sys.modules.get(each)
        if isinstance(found, ModuleType):
            yield found


def _module_of(value: object) -> str:
    """The name of the module that a value is, or comes from; nothing for one that does not say.

    Only modules, functions and classes are asked: to ask an object of the user's runs its code.
    """
    name: object = ""
    if type(value) is ModuleType:
        name = value.__name__
    elif type(value) is FunctionType:
        name = value.__module__
    elif issubclass(type(value), type):
        name = type.__getattribute__(value, "__dict__").get("__module__")
    return name if isinstance(name, str) else ""


def _source_file(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) and file.endswith(".py") else ""  # noqa: PTH100 - as above


def _is_ours(file: str, folder: str) -> bool:
    return not any(part in _NOT_OURS for part in file[len(folder) :].split(os.sep))  # noqa: PTH206 - text


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _read(folder: str, paths: list[str]) -> Code:
    files: dict[str, bytes] = {}
    left_out = []
    total = 0
    for path in paths:
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                content = file.read(MOST_BYTES - total + 1)
        except OSError:
            left_out.append(name)
            continue
        if total + len(content) > MOST_BYTES:
            left_out.append(name)
        else:
            files[name] = content
            total += len(content)
    script = os.path.relpath(paths[0], folder)
    return Code(script, files, tuple(left_out))


def _typed(flow: type) -> Code | None:
    """The source of a flow that was typed into a cell or at the prompt."""
    import inspect

    try:
        text = inspect.getsource(flow).encode(errors="backslashreplace")
    except (OSError, TypeError):
        return None
    name = f"{flow.__name__}.py"
    return Code(name, {name: text}) if len(text) <= MOST_BYTES else Code(name, {}, (name,))
