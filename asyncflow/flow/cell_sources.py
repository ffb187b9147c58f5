"""The source of a flow that was typed into cells of a notebook goes with its class.

A worker has no file of a cell, and a traceback without lines of code says little. So what stores
the class of such a flow stores the cells that it uses as well, and whoever loads the class can show
their lines: tracebacks, warnings, `inspect.getsource`. A traceback there also says `Cell In[3]`.
"""

from __future__ import annotations

import linecache
import os
from collections import deque
from types import CodeType, FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.notebook import cell_name, remember_cells

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_MOST_OBJECTS: Final = 10_000
_MOST_BYTES: Final = 1 << 20  # of all cells: beyond it, the last ones found are left out


def with_cells(flow: type, secrets: Collection[str] = ()) -> Any:
    """What is pickled in the place of a class, and becomes the class when it is loaded.

    The texts in `secrets` are asterisks in the cells.
    """
    cells = {}
    left = _MOST_BYTES
    for file in _files_of(flow):
        text = "" if os.path.exists(file) else "".join(linecache.getlines(file))  # noqa: PTH110 - it need not be a path
        if text and len(text) <= left:
            cells[file] = text
            left -= len(text)
    if secrets and cells:
        from asyncflow.flow.hidden_texts import hide  # most flows have none

        encoded = {file: text.encode(errors="replace") for file, text in cells.items()}
        cells = {file: text.decode() for file, text in hide(secrets, encoded)[0].items()}
    names = {file: name for file in cells if (name := cell_name(file))}
    return _WithCells(flow, cells, names) if cells else flow


class _WithCells:
    def __init__(self, flow: type, cells: Mapping[str, str], names: Mapping[str, str]) -> None:
        self._flow, self._cells, self._names = flow, cells, names

    def __reduce__(self) -> tuple[Any, ...]:
        return having_cells, (self._flow, self._cells, self._names)


def having_cells(
    flow: type, cells: Mapping[str, str], names: Mapping[str, str] = _NO_NAMES
) -> type:
    """The flow, whose cells can be shown in this process from now on.

    Args:
        flow: The flow.
        cells: The source of each cell, by its made-up file name.
        names: What the notebook calls them; stores of older versions have none.
    """
    remember_cells(names)
    for file, text in cells.items():
        entry = len(text), None, text.splitlines(keepends=True), file
        linecache.cache.setdefault(file, entry)
    return flow


def _files_of(flow: type) -> Iterator[str]:
    """The file names of the code that a class uses, as far as its own module has it."""
    waiting: deque[Any] = deque([flow])
    seen: set[int] = set()
    files: set[str] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        found = waiting.popleft()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, CodeType):
            if found.co_filename not in files:
                files.add(found.co_filename)
                yield found.co_filename
            waiting += (each for each in found.co_consts if isinstance(each, CodeType))
        else:
            waiting += _parts_of(found, flow.__module__)


def _parts_of(found: Any, module: str) -> Iterator[Any]:
    """The code, functions and classes that an object of this module refers to."""
    if isinstance(found, FunctionType) and found.__module__ == module:
        yield found.__code__
        for code in _with_nested(found.__code__):
            yield from (found.__globals__.get(name) for name in code.co_names)
        for cell in found.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # it is empty
                continue
        yield getattr(found, "__wrapped__", None)
    elif isinstance(found, type) and found.__module__ == module:
        yield from found.__bases__
        yield from vars(found).values()
    elif isinstance(found, classmethod | staticmethod):
        yield found.__func__
    elif isinstance(found, property):
        yield from (found.fget, found.fset, found.fdel)


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    waiting = [code]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
