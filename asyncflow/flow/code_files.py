"""The source files of a flow: its own, and those of its folder that it imports.

They are kept with each run, so that `asyncflow code` shows what ran, whatever the files hold today,
and so that workers on other machines can run it. A module belongs to the flow if its file lies in
the folder of the flow's file or below, or in the package that the flow's file belongs to;
`imported_files` finds them.

A value that `@environment` gives to a step is often a secret. Where one stands in a file, the file
is kept with asterisks in its place. Whoever runs the code is told what they stand for.

The files are kept as one value, `Code`, in a form of its own: msgpack of a version, the name of the
flow's file, the files by name, and the names of what was too large.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.modules import file_of
from asyncflow.errors import RecordError
from asyncflow.flow.imported_files import ImportedFiles, root_of, working_root

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import ModuleType

MOST_BYTES: Final = 10 << 20
"""The most that is kept for a run; files beyond it are named only."""
MOST_HIDDEN_BYTES: Final = 1 << 14
"""The most that is told of what asterisks stand for: it travels in one packet with an order."""
_VERSION: Final = 1
_KEPT_FILES: Final = 16  # of the flows used last; an application has a handful

Hidden = dict[str, list[tuple[int, bytes]]]
"""What was hidden in files: by their names, where asterisks begin, and what they stand for."""


class Code(NamedTuple):
    """The source files of a flow."""

    script: str
    """The name of the flow's file, relative to its folder; a cell's for a flow without a file."""
    files: Mapping[str, bytes]
    """What each file holds, by its name relative to that folder."""
    left_out: tuple[str, ...] = ()
    """The names of files that were too large to be kept, or could not be read."""

    def without(self, secrets: Collection[str]) -> tuple[Code, Hidden]:
        """The same code with asterisks in place of these texts, but for the shortest ones."""
        if not secrets:
            return self, {}
        from asyncflow.flow.hidden_texts import hide  # most flows have no secrets

        files, hidden = hide(secrets, self.files)
        return self._replace(files=files), hidden

    def with_hidden(self, hidden: Mapping[str, Sequence[tuple[int, bytes]]]) -> Code:
        """Undo `without`."""
        if not hidden:
            return self
        from asyncflow.flow.hidden_texts import show

        return self._replace(files={**self.files, **show(hidden, self.files)})

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
    """Whether a file of this name, written below a folder, stays in it, and has no other name."""
    return "\0" not in name and not {"", ".", ".."}.intersection(name.split("/"))


class FoundCode(NamedTuple):
    """The code of a flow as it is now."""

    packed: bytes = b""
    """The packed `Code`; empty if nothing can be found, or nothing should be kept."""
    root: str = ""
    """The folder that the names of files are relative to; empty if no other machine needs them."""
    hidden: Hidden | None = {}  # noqa: RUF012 - a field of a tuple, which nobody changes
    """What asterisks stand for; None if that is too much to be told."""


class _Kept(NamedTuple):
    """What was found of the code of one file's flows, and when it holds still."""

    modules: int
    """How many modules were imported then: with another one, others may belong to the flow."""
    paths: Mapping[str, str]
    stamp: tuple[Any, ...]
    found: FoundCode


class CodeFiles:
    """Reads the source files of flows, again only when one has changed."""

    def __init__(self, keep: str) -> None:
        """Prepare to keep `all` files, that of the `flow` alone, or `none`."""
        self._keep = keep
        self._imports = ImportedFiles()
        self._kept: dict[str, _Kept] = {}  # by file, not by class: a class may be made for each run

    def find(self, flow: type, secrets: Collection[str] = ()) -> FoundCode:
        """The code of a flow without these texts."""
        module = sys.modules.get(flow.__module__)
        if self._keep == "none" or module is None:
            return FoundCode()
        first = file_of(module)
        if not first.endswith(".py"):
            return self._find_typed(flow, module, secrets)
        modules, kept = len(sys.modules), self._kept.pop(first, None)
        if kept is None or kept.modules != modules or kept.stamp != _stamp(kept.paths, secrets):
            kept = self._find_in_files(module, first, secrets)
        self._kept[first] = kept._replace(modules=modules)
        for oldest in [*self._kept][:-_KEPT_FILES]:
            self._kept.pop(oldest, None)
        return kept.found

    def _find_in_files(self, module: ModuleType, first: str, secrets: Collection[str]) -> _Kept:
        root = root_of(module)
        folder = root or os.path.dirname(first)  # noqa: PTH120 - text: thousands of files
        script = os.path.relpath(first, folder).replace(os.sep, "/")
        paths = {script: first}
        if self._keep == "all" and root:
            others = self._imports.below(root, module)
            paths |= {name: others[name] for name in sorted(others) if name != script}
        stamp = _stamp(paths, secrets)
        return _Kept(0, paths, stamp, _found(_read(script, paths), root, secrets))

    def _find_typed(self, flow: type, module: ModuleType, secrets: Collection[str]) -> FoundCode:
        """The code of a flow that was typed into a cell or at the prompt."""
        text = _source_of(flow)
        root = working_root() if self._keep == "all" else ""
        paths = self._imports.below(root, module) if root else {}
        name = f"{flow.__name__}.py"
        if name in paths:
            name = f"{flow.__name__} (cell).py"
        if not paths and text is None:
            return FoundCode()
        code = _read(name, dict(sorted(paths.items())), text)
        return _found(code, root if paths else "", secrets)


def _found(code: Code, root: str, secrets: Collection[str]) -> FoundCode:
    kept, hidden = code.without(secrets)
    size = sum(len(text) for each in hidden.values() for _, text in each)
    return FoundCode(kept.pack(), root, hidden if size <= MOST_HIDDEN_BYTES else None)


def _stamp(paths: Mapping[str, str], secrets: Collection[str]) -> tuple[Any, ...]:
    return *secrets, *((path, *_stat(path)) for path in paths.values())


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - text: thousands of files
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _read(script: str, paths: Mapping[str, str], text: bytes | None = None) -> Code:
    """The code in these files, and in a script that has this text instead of a file."""
    files = {} if text is None else {script: text}
    left_out = []
    total = len(text or b"")
    if total > MOST_BYTES:
        return Code(script, {}, (script,))
    for name, path in paths.items():
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - text: thousands of files
                content = file.read(MOST_BYTES - total + 1)
        except OSError:
            left_out.append(name)
            continue
        if total + len(content) > MOST_BYTES:
            left_out.append(name)
        else:
            files[name] = content
            total += len(content)
    return Code(script, files, tuple(left_out))


def _source_of(flow: type) -> bytes | None:
    import inspect

    try:
        return inspect.getsource(flow).encode(errors="backslashreplace")
    except (OSError, TypeError):
        return None
