"""Pickles classes and functions of the flow's own file so that they can be read without that file.

Plain pickle stores a class as the name of its module, and imports the module to read it back. For
the flow's own file, a notebook would thereby run the user's script. So such a class is stored as

    restore(module, qualname, file, code)

where `code` is the class itself, pickled by cloudpickle. A process that has imported the file, as
every worker of the flow has, takes the class from there. The module may have another name in it
(`__main__` in one process, the file's name in another), so `isinstance` holds from step to step.
Any other process builds the class from `code`, once for equal code.

`qualname` is the name under which the file has the class. It may differ from the class's own name,
as after `Colour = Enum("Color", "RED GREEN")`. If another module has the class under another name,
it is stored as `pkgutil.resolve_name("module:name")`. If no module has the class under any name,
cloudpickle pickles it, and each process has a class of its own.

`code` is empty if cloudpickle cannot pickle the class (a method refers to a lock in a global
variable) or the result is too large (a method refers to a table of megabytes). Then only a process
that has imported the file can read the value. If there is no file to import, `code` is never empty.
In a foreach list `code` is a digest of 16 bytes: the list stores the code of a class once for all
its items; see `asyncflow.codec.items`.

Pickles in the store name `asyncflow.codec.classes.restore` with these parameters, so both are part
of the format.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from blake3 import blake3

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.modules import file_of, find_member, known_as
from asyncflow._support.safe_text import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from types import ModuleType

CODE_BYTES: Final = 1 << 20
"""The most code that is stored for a class whose file can be imported instead.

Each artifact that uses the class stores its code."""

DIGEST_BYTES: Final = 16

_Reduced = tuple[str, str, str, bytes]
_MAIN = "__main__"


class DefiningFile(NamedTuple):
    """The file of a module that is pickled by value."""

    file: str
    """The path, with links resolved; empty if there is no file."""
    source: str
    """The digest of the file's content when the module was registered."""


by_value_modules: Final[dict[str, DefiningFile]] = {}
"""The modules whose classes and functions are stored with their code."""

_reduced: Final[WeakKeyDictionary[Any, _Reduced]] = WeakKeyDictionary()
"""The stored form of each class or function; one that `restore` has built keeps the form it had."""
_built: Final[dict[bytes, Any]] = {}
"""The classes and functions that `restore` has built, by their code."""
_shared: Final[dict[bytes, bytes]] = {}
"""The code sections of foreach lists, by digest."""
_lock: Final = threading.RLock()  # cloudpickle's registry belongs to the whole process
_complete: Final = ContextVar("_complete", default=False)
_imported_as: Final[dict[str, str]] = {}
"""A cache of the names of imported modules by their files."""
_not_imported: Final[dict[str, int]] = {}
"""The files that no imported module comes from, with the number of modules when that was found."""


class CodeMissingError(Exception):
    """Only the digest of the code is known; read the list's code section and try again."""


def pickle_by_value(module_name: str) -> None:
    """From now on, store the classes and functions of this module with their code.

    A module that is not imported is ignored: its classes can only be pickled by value anyway.
    """
    module = sys.modules.get(module_name)
    if module is not None and module_name not in sys.builtin_module_names:
        origin = by_value_modules[module_name] = _origin_of(module)
        if not origin.file:
            _forget_reduced(module)


def _forget_reduced(module: ModuleType) -> None:
    """Forget stored forms: in a notebook, the next cell may redefine what a class refers to."""
    for value, (name, qualname, *_) in list(_reduced.items()):
        if name == module.__name__ and find_member(module, qualname) is value:
            del _reduced[value]


def _origin_of(module: ModuleType) -> DefiningFile:
    file = file_of(module)
    try:
        with open(file, "rb") as source:  # noqa: PTH123 - pathlib may not be imported yet
            return DefiningFile(known_as(file), blake3(source.read()).hexdigest())
    except OSError:  # such as `<stdin>`, which cannot be imported
        return DefiningFile("", "")


# --- storing ----------------------------------------------------------------------------------


def reduce_code(value: Any, shared: MutableMapping[bytes, bytes] | None = None) -> Any:
    """What a pickler's `reducer_override` returns for a class or a function.

    If `shared` is given, the code is added to it, and the pickle holds the code's digest.

    Raises:
        pickle.PicklingError: Only cloudpickle can pickle it.
    """
    module = getattr(value, "__module__", None)
    if module not in by_value_modules and module != _MAIN:
        found = sys.modules.get(module) if isinstance(module, str) else None
        if found is not None and find_member(found, value.__qualname__) is value:
            return NotImplemented
    reduced = _reduced.get(value)
    if reduced is None or (_complete.get() and not reduced[3]):
        place = _place_of(value)
        if place is None:
            return _of_no_module(value, module)
        if place.module not in by_value_modules and place.module != _MAIN:
            import pkgutil

            return pkgutil.resolve_name, (f"{place.module}:{place.name}",)
        reduced = _reduce(value, place)
        if reduced[3] or not _complete.get():
            _reduced[value] = reduced
    if shared is None or len(reduced[3]) <= DIGEST_BYTES:
        return restore, reduced
    *named, code = reduced
    digest = blake3(code).digest(DIGEST_BYTES)
    shared[digest] = code
    return restore, (*named, digest)


def _of_no_module(value: Any, module: object) -> Any:
    if module not in by_value_modules and (module in sys.modules or not isinstance(module, str)):
        return NotImplemented
    # Plain pickle would import the module, and so run the script of another flow.
    raise pickle.PicklingError(f"{module} has no {value!r} under any name")


class _Place(NamedTuple):
    module: str
    name: str


def _place_of(value: Any) -> _Place | None:
    """The place at which every process that imports the module finds a class or function.

    After `Colour = Enum("Color", "RED GREEN")` the class is not found under its own name. Up to
    Python 3.11, `make_dataclass` does not set the right module.
    """
    module, name = value.__module__, getattr(value, "__qualname__", value.__name__)
    others = sorted(sys.modules) if module == "types" else ()
    for home in (module, *by_value_modules, *others):
        found = sys.modules.get(home)
        if found is None:
            continue
        if find_member(found, name) is value:
            return _Place(home, name)
        alias = _name_within(vars(found), value, found.__name__)
        if alias:
            return _Place(home, alias)
    return None


_members_of: Final = type.__dict__["__dict__"].__get__
"""Like `vars` for a class, but a metaclass cannot change the answer."""


def _name_within(names: Mapping[str, Any], value: object, module: str, depth: int = 3) -> str:
    """The name of a value among these names or within the module's classes; empty if none."""
    for name, each in list(names.items()):
        if each is value:
            return name
    for name, each in list(names.items()) if depth else ():
        members = _members_of(each) if isinstance(each, type) else {}
        if members.get("__module__") == module:
            within = _name_within(members, value, module, depth - 1)
            if within:
                return f"{name}.{within}"
    return ""


@contextmanager
def complete_code() -> Iterator[None]:
    """Within the block, store code of any size, and fail if there is none: no reader has a file."""
    token = _complete.set(True)
    try:
        yield
    finally:
        _complete.reset(token)


def _reduce(value: Any, place: _Place) -> _Reduced:
    module, name = place
    origin = by_value_modules.get(module) or _origin_of(sys.modules[module])
    # Without a file, a reader needs the code.
    code = _code_of(value, complete=_complete.get() or not origin.file)
    return module, name, origin.file, code


def _code_of(value: Any, *, complete: bool) -> bytes:
    sink = _CodeSink(sys.maxsize if complete else CODE_BYTES)
    try:
        with _lock, _registered_with_cloudpickle():
            _code_pickler()(sink, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:  # the members of a class may raise anything
        if complete:
            raise pickle.PicklingError(text_of(error)) from error
        return b""
    return b"".join(sink.chunks)


class _CodeSink:
    def __init__(self, room: int) -> None:
        self.chunks: list[bytes] = []
        self._room = room

    def write(self, chunk: bytes) -> None:
        self._room -= len(chunk)
        if self._room < 0:
            raise pickle.PicklingError("too much code")
        self.chunks.append(bytes(chunk))


@contextmanager
def _registered_with_cloudpickle() -> Iterator[None]:
    # Only for this moment: a step's own use of cloudpickle must not change.
    import cloudpickle

    before = cloudpickle.list_registry_pickle_by_value()
    modules = [sys.modules[name] for name in by_value_modules if name in sys.modules]
    ours = [module for module in modules if module.__name__ not in before]
    ours = [module for module in ours if sys.modules.get(module.__name__) is module]
    for module in ours:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in {module.__name__: module for module in ours}.values():
            cloudpickle.unregister_pickle_by_value(module)


@cache
def _code_pickler() -> Any:
    import cloudpickle

    class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """cloudpickle, with the same id for a class in every worker that imports its file."""

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, type | TypeVar):
                _name_class(value)
            return super().reducer_override(value)

    return CodePickler


def _name_class(cls: Any) -> None:
    """Give cloudpickle an id for a class or type variable that is the same in every worker.

    cloudpickle builds a class once per id, and chooses ids at random. A notebook would therefore
    get a different class from each worker. The source is part of the id, so an edited class gets
    another one.
    """
    place = _place_of(cls)
    origin = by_value_modules.get(place.module) if place is not None else None
    if place is None or origin is None or not origin.source:
        return
    import cloudpickle.cloudpickle as internals

    ids = getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", None)
    if ids is not None and cls not in ids:
        text = f"{origin.file}\0{origin.source}\0{place.name}"
        ids[cls] = blake3(text.encode()).hexdigest(length=DIGEST_BYTES)
        # A copy of this class that a worker has built becomes this class when it comes back.
        getattr(internals, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})[ids[cls]] = cls


# --- reading ----------------------------------------------------------------------------------


def restore(module: str, qualname: str, file: str, code: bytes) -> Any:
    """Find the class or function if its file is imported, else build it from `code`.

    Raises:
        CodeMissingError: `code` is a digest, and the code has not been read yet.
        pickle.UnpicklingError: It was stored without code, and its file is not imported here.
    """
    live = _live(module, qualname, file)
    if live is not None:
        return live
    if len(code) == DIGEST_BYTES:
        if code not in _shared:
            raise CodeMissingError(code)
        code = _shared[code]
    if not code:
        raise pickle.UnpicklingError(
            f"{qualname} could only be stored by name; import {file or module} first"
        )
    if code not in _built:
        built = _built.setdefault(code, pickle.loads(code))
        if built.__name__ == qualname.rpartition(".")[2]:
            built.__qualname__ = qualname  # cloudpickle loses it for nested classes
        _reduced[built] = (module, qualname, file, code)
    return _built[code]


def adopt_code(section: dict[bytes, bytes]) -> None:
    """Add the code section of a foreach list to the code that is known."""
    _shared.update(section)


def _live(module: str, qualname: str, file: str) -> Any:
    found = sys.modules.get(module)
    if found is not None and _is_same(found, module, file):
        return find_member(found, qualname)
    for name, origin in by_value_modules.items():
        if (file and origin.file == file) or _has_moved(origin.file, file):
            return find_member(sys.modules.get(name), qualname)
    return find_member(_module_of(file), qualname) if file else None


def _module_of(file: str) -> ModuleType | None:
    """The module that was imported from this file under any name; None if there is none."""
    known = sys.modules.get(_imported_as.get(file, ""))
    if known is not None and known_as(file_of(known)) == file:
        return known
    if _not_imported.get(file) == len(sys.modules):
        return None
    ending = os.sep + os.path.basename(file)  # noqa: PTH119 - text, as everything here
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not (path.endswith(ending) or os.path.islink(path)):  # noqa: PTH114 - it is text
            continue
        if known_as(file_of(module)) == file:
            _imported_as[file] = name
            return module
    _not_imported[file] = len(sys.modules)
    return None


def _is_same(found: ModuleType, name: str, file: str) -> bool:
    if file:
        return known_as(file_of(found)) == file
    # Every notebook is called __main__. Other modules without a file have names of their own.
    return name != _MAIN and name in by_value_modules and not file_of(found)


def _has_moved(here: str, file: str) -> bool:
    # The project's folder was renamed between a run and its resume.
    return os.path.basename(here) == os.path.basename(file) and not os.path.exists(file)  # noqa: PTH119, PTH110 - a path as text takes a fraction of the time


CODE_TYPES: Final = (type, FunctionType)
"""The types that `reduce_code` handles."""
