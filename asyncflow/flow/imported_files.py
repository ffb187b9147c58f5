"""Finds the files that a flow imports from its folder, without running anything.

What a module holds tells what was imported already. What its source says tells what a step imports
only when it runs. A name that is computed (`importlib.import_module(name)`) is found once it was
imported, if something of the flow holds it then.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.modules import file_of
from asyncflow._support.parsing import parse
from asyncflow._support.paths import import_path, working_directory
from asyncflow.flow.loader import import_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NOT_OURS: Final = ("site-packages", "dist-packages", ".venv", "venv", "node_modules")
_PARSED_BYTES: Final = 1 << 20  # a longer file is data; to parse it would take seconds
_KEPT_IMPORTS: Final = 10_000  # files, of a few hundred bytes each


class Import(NamedTuple):
    """An import statement in a source file."""

    level: int
    """How many dots it begins with."""
    name: str
    members: tuple[str, ...]
    """What is imported from there; a module of a package, or something that it defines."""


class _Found(NamedTuple):
    file: str
    """The path of the source; empty if there is none, as for a folder without `__init__.py`."""
    search: Sequence[str]
    """Where the modules of a package are looked for; empty for a module."""
    package: str
    """What a relative import in it starts from."""
    module: ModuleType | None


def root_of(module: ModuleType) -> str:
    """The folder from which Python imports this module: for a package, the one that contains it.

    Empty for a module that was installed, because each machine has its own.
    """
    file = file_of(module)
    name = getattr(vars(module).get("__spec__"), "name", None) or module.__name__
    ending = f"{os.sep}{name.replace('.', os.sep)}.py"
    if "." in name and file.endswith(ending):
        root = file.removesuffix(ending) or os.sep
    else:
        root = str(import_root(Path(file)))
    return root if is_ours(file) else ""


def working_root() -> str:
    """The working directory, if a notebook or a prompt imports modules from there; else nothing."""
    here = working_directory()
    return os.path.realpath(here) if here and {"", here}.intersection(import_path()) else ""


def is_ours(file: str, root: str = "") -> bool:
    """Whether a file below this folder is the user's, and belongs to no installed package."""
    if file.startswith(_INSTALLED):
        return False
    return not any(part in _NOT_OURS for part in file[len(root) :].split(os.sep))  # noqa: PTH206 - a path as text takes a fraction of the time


def source_file(module: ModuleType) -> str:
    """The absolute path of a module's source; empty if it has none."""
    file = getattr(module, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) and file.endswith(".py") else ""  # noqa: PTH100 - a path as text takes a fraction of the time


class ImportedFiles:
    """Finds what modules of one folder import from it; remembers what their files say."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[tuple[int, int], tuple[Import, ...]]] = {}

    def below(self, root: str, module: ModuleType) -> dict[str, str]:
        """The paths of the files by their names relative to `root`, with the module's own.

        A module without a file is a notebook or a prompt.
        """
        scan = _Scan(root)
        own = vars(module).get("__package__")
        package = own if isinstance(own, str) else module.__name__.rpartition(".")[0]
        file = file_of(module)  # `<stdin>` is none
        start = _Found(file if file.endswith(".py") else "", (), package, module)
        if not scan.visit(start):
            scan.pending.append(start)
        for code in _codes_of(module) if not start.file else ():
            for each in imports_in_code(code):
                scan.visit_import(each, package)
        while scan.pending:
            found = scan.pending.pop()
            for used in _used_by(found.module) if found.module is not None else ():
                scan.visit_name(used)
            for each in self._imports_of(found.file) if found.file else ():
                scan.visit_import(each, found.package)
        return scan.files

    def _imports_of(self, file: str) -> tuple[Import, ...]:
        try:
            status = os.stat(file)  # noqa: PTH116 - a path as text takes a fraction of the time
            stamp = status.st_mtime_ns, status.st_size
            known = self._said.get(file)
            if known is not None and known[0] == stamp:
                return known[1]
            with open(file, "rb") as opened:  # noqa: PTH123 - a path as text takes a fraction of the time
                found = imports_in(opened.read(_PARSED_BYTES + 1))
        except OSError:
            return ()
        if len(self._said) >= _KEPT_IMPORTS:
            self._said.clear()
        self._said[file] = stamp, found
        return found


class _Scan:
    """One look at everything that is imported from one folder."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._inside = root.rstrip(os.sep) + os.sep
        self._seen: dict[str, _Found | None] = {}
        self.files: dict[str, str] = {}
        self.pending: list[_Found] = []

    def visit(self, found: _Found) -> bool:
        """Remember a file that is below the folder, to be looked at; False if it is not."""
        name = self._name_of(found.file)
        if name and name not in self.files:
            self.files[name] = found.file
            self.pending.append(found)
        return bool(name)

    def visit_import(self, each: Import, package: str) -> None:
        """Look at what an import statement in a module of this package names."""
        name = each.name
        if each.level:
            around = package.split(".")
            around = around[: len(around) - each.level + 1]
            name = ".".join(filter(None, [*around, name]))
        if name and self.visit_name(name):
            for member in each.members:
                self.visit_name(f"{name}.{member}")

    def visit_name(self, name: str) -> bool:
        """Look at a module and the packages around it; False if it is none of the folder's."""
        is_inside, around = False, None
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            dotted = ".".join(parts[:end])
            if dotted not in self._seen:
                self._seen[dotted] = _find(dotted, around)
            found = self._seen[dotted]
            if found is None:
                return False
            is_inside = self.visit(found)
            if not is_inside and found.file:
                return False
            around = found
        return is_inside or around is not None

    def _name_of(self, file: str) -> str:
        """The name of a file relative to the folder; empty if it is elsewhere, or not ours."""
        if not file:
            return ""
        if not file.startswith(self._inside):
            folder, name = os.path.split(file)
            file = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 - a path as text takes a fraction of the time
        if not file.startswith(self._inside) or not is_ours(file, self._root):
            return ""
        return file[len(self._inside) :].replace(os.sep, "/")


def _find(name: str, around: _Found | None) -> _Found | None:
    """Where a module is; None if there is none, or its package is none."""
    module = sys.modules.get(name)
    if isinstance(module, ModuleType):
        path = vars(module).get("__path__")
        search = _entries(path)
        package = name if search else name.rpartition(".")[0]
        return _Found(source_file(module), search, package, module)
    if "." in name and (around is None or not around.search):
        return None
    try:
        spec = PathFinder.find_spec(name, around.search if around is not None else None)
    except (ImportError, ValueError, KeyError, OSError):
        return None
    if spec is None:
        return None
    origin = spec.origin if spec.origin is not None and spec.origin.endswith(".py") else ""
    search = _entries(spec.submodule_search_locations)
    return _Found(origin, search, name if search else name.rpartition(".")[0], None)


def _entries(path: Any) -> Sequence[str]:
    try:
        return [each for each in path or () if isinstance(each, str)]
    except Exception:  # noqa: BLE001 - a package may put anything in the place of its path
        return ()


def imports_in(source: bytes) -> tuple[Import, ...]:
    """The import statements of a source, at its top and within functions; none if it has errors."""
    if not source or len(source) > _PARSED_BYTES:
        return ()
    import ast

    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    found: dict[Import, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {Import(0, each.name, ()): None for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            members = tuple(each.name for each in node.names if each.name != "*")
            found[Import(node.level, node.module or "", members)] = None
    return tuple(found)


def _codes_of(module: ModuleType) -> Iterator[CodeType]:
    """The compiled functions of a module, and of its classes."""
    for value in list(vars(module).values()):
        if _module_of(value) != module.__name__:
            continue
        within = [value]
        if isinstance(value, type):
            within = list(type.__getattribute__(value, "__dict__").values())
        for each in within:
            if type(each) is FunctionType:
                yield each.__code__


def imports_in_code(code: CodeType) -> Iterator[Import]:
    """The import statements of a function whose source is gone; none is relative."""
    import dis

    name = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            name = instruction.argval
            yield Import(0, name, ())
        elif instruction.opname == "IMPORT_FROM":
            yield Import(0, name, (instruction.argval,))
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from imports_in_code(each)


def _used_by(module: ModuleType) -> Iterator[str]:
    """The names of modules that a module holds, or has something of."""
    names: dict[str, None] = {}
    for value in list(vars(module).values()):
        name = _module_of(value)
        if name and isinstance(sys.modules.get(name), ModuleType):
            names[name] = None
    yield from names


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


def _installed() -> tuple[str, ...]:
    """The folders of the standard library and of this package, as text and without links."""
    own = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - a path as text takes a fraction of the time
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - a path as text takes a fraction of the time
    folders = {own, library, os.path.realpath(own), os.path.realpath(library)}
    return tuple(f"{folder}{os.sep}" for folder in sorted(folders))


_INSTALLED: Final = _installed()
