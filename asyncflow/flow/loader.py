"""From a name to a flow class, in the engine's process and in a worker's.

A class reaches a worker in one of three ways, in this order of preference: its module is
imported; its file is run as a module, with the `__main__` guard off (a script); or the class
itself is pickled (a notebook cell, a REPL, a class made inside a function). `describe` says which,
as plain data that stands in the run's first event, and `load` follows it.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.call_site import importing_line, importing_module
from asyncflow._support.paths import absolute, import_path, working_directory
from asyncflow.errors import EngineClosedError, FlowError, UnguardedRunError
from asyncflow.flow.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

MAIN_ALIAS: Final = "__mp_main__"
"""What a script's module is called where it is not the program itself: its guard stays closed.

It is multiprocessing's name for the same, so that a process which a step starts finds it too.
"""

_inside_worker = False
_imports = 0  # how many files of flows are being imported, one within another


def is_inside_worker() -> bool:
    """Whether this process is a worker, in which no engine may be started."""
    return _inside_worker


def mark_worker() -> None:
    """This process is a worker from now on."""
    global _inside_worker  # noqa: PLW0603 - true of the whole process, for good
    _inside_worker = True


@contextmanager
def _importing() -> Iterator[None]:
    """A flow's file is run for what it defines."""
    global _imports  # noqa: PLW0603 - true of the whole process
    _imports += 1
    try:
        yield
    finally:
        _imports -= 1


def check_may_start() -> None:
    """See that this is a place where an engine may be started.

    Raises:
        UnguardedRunError: A flow's file is being imported.
        EngineClosedError: This is a worker.
    """
    if _imports:
        raise _unguarded("starts a run")
    if _inside_worker:
        message = "no engine can be started within a step: have the program run the other flow"
        raise EngineClosedError(message)


def is_program() -> bool:
    """Whether a file that makes an instance of its flow wants its command line.

    Not so where asyncflow runs the file for what it defines: there a bare `MyFlow()` does nothing.

    Raises:
        UnguardedRunError: A program imports the file, and has a command line of its own.
    """
    if _imports:
        return False
    if importing_module() not in {"__main__", ""}:
        raise _unguarded("is a command line")
    return True


def _unguarded(what: str) -> UnguardedRunError:
    file, line = importing_line()
    message = (
        f"this {what} whenever the file is imported, which workers do, too; put it under "
        '`if __name__ == "__main__":`'
    )
    return UnguardedRunError(message, file=file, line=line)


# --- by the user's word -----------------------------------------------------------------------


def load_flow(spec: str) -> type[FlowSpec]:
    """The flow that `FILE[:Flow]` or `package.module[:Flow]` names.

    The script's folder comes first on `sys.path`, as when Python runs the script; for a file inside
    a package it is the folder of the topmost package, and relative imports work.

    Raises:
        FlowError: There is no such file, module or flow, or several and none is named.
    """
    with _importing():
        return _load_flow(spec)


def _load_flow(spec: str) -> type[FlowSpec]:
    target, _, name = spec.rpartition(":") if _names_flow(spec) else (spec, "", "")
    path = Path(target)
    if path.is_dir() and (os.sep in target or not target.isidentifier()):  # else perhaps a package
        message = f"{target} is a folder; name the file in it that has the flow"
        raise FlowError(message)
    if target.endswith(".py") or path.is_file():
        if not path.is_file():
            message = f"there is no file {target}"
            raise FlowError(message)
        module = load_file(path)
    else:
        module = _import(target)
    return _choose(module, name, target)


def _names_flow(spec: str) -> bool:
    head, colon, name = spec.rpartition(":")
    return bool(colon and head and name.isidentifier())


def _import(name: str) -> ModuleType:
    here = working_directory()
    if here and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        message = f"there is no file and no module {name!r}"
        raise FlowError(message) from None
    except ValueError as error:
        message = f"{name!r} is neither a file nor the name of a module: {error}"
        raise FlowError(message) from None


def load_file(path: Path) -> ModuleType:
    """Run a file as a module, once; a second call gives the same module."""
    path = absolute(path).resolve()
    name, root = _module_name(path)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for known in (name, MAIN_ALIAS, "__main__"):
        module = sys.modules.get(known)
        if module is not None and _file_of(module) == path:
            return module
    if "." in name:
        return importlib.import_module(name)
    return _execute(name if name not in sys.modules else f"asyncflow_flow_{name}", path)


def import_root(path: Path) -> Path:
    """The folder in which Python would find a file, and the modules beside it."""
    return _module_name(path)[1]


def _module_name(path: Path) -> tuple[str, Path]:
    """The dotted name under which Python would import the file, and from where.

    A file or a folder that has a dot in its name is in no package: Python could not name it.
    """
    parts, folder = [path.stem.replace(".", "_")], path.parent
    in_package = "." not in path.stem
    while in_package and "." not in folder.name and (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return absolute(file).resolve() if file else None


def _execute(name: str, path: Path) -> ModuleType:
    import importlib.util  # noqa: PLC0415 - start-up time: only where a file is run by its path

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{path} is not a Python file"
        raise FlowError(message)
    module = importlib.util.module_from_spec(spec)
    main = sys.modules.get("__main__")
    if name == MAIN_ALIAS:
        module.__spec__ = None  # as that of a script: multiprocessing then runs its file again
        # What was pickled in the program as `__main__.Thing` is found here as well. It is so before
        # the file is run, because the first `import multiprocessing` gives `__main__` this alias.
        sys.modules["__main__"] = module
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if main is not None:
            sys.modules["__main__"] = main
        raise
    return module


def flows_in(module: ModuleType) -> dict[str, type[FlowSpec]]:
    """The flows that a module defines, by name; those that it only imports do not count."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, FlowSpec)
        and value is not FlowSpec
        and value.__module__ == module.__name__
    }


def _choose(module: ModuleType, name: str, target: str) -> type[FlowSpec]:
    flows = flows_in(module)
    if name:
        named = flows.get(name) or getattr(module, name, None)
        if isinstance(named, type) and issubclass(named, FlowSpec):
            return named
        there = ", ".join(flows) or "no flow at all"
        message = f"{target} has no flow {name!r}; it has {there}"
        raise FlowError(message)
    # A base class that other flows of the file extend is no choice.
    bases = {base for flow in flows.values() for base in flow.__mro__[1:]}
    leaves = [flow for flow in flows.values() if flow not in bases]
    if len(leaves) == 1:
        return leaves[0]
    if not leaves:
        message = f"{target} defines no flow: no class in it extends FlowSpec"
        raise FlowError(message)
    there = ", ".join(flow.__name__ for flow in leaves)
    message = f"{target} has several flows ({there}); name one: {target}:{leaves[0].__name__}"
    raise FlowError(message)


# --- from engine to worker --------------------------------------------------------------------


def describe(cls: type[FlowSpec], pickle: Callable[[type[FlowSpec]], Any]) -> dict[str, Any]:
    """How a worker gets this class, as plain data; `pickle` stores it where nothing else does."""
    name, module_name = cls.__qualname__, cls.__module__
    module = sys.modules.get(module_name)
    described: dict[str, Any] = {"name": name, "module": module_name}
    if module is None or _find(module, name) is not cls:
        return {**described, "kind": "pickle", "ref": pickle(cls)}
    file = _file_of(module)
    spec = getattr(module, "__spec__", None)
    is_main = module_name == "__main__"
    if is_main and spec is not None and spec.name != "__main__":  # python -m package.module
        return {**described, "kind": "module", "module": spec.name, "file": str(file or "")}
    if file is not None and file.is_file() and file.suffix == ".py":
        by_name = spec is not None and not is_main and module_name == spec.name
        kind = "module" if by_name and _importable(module_name, file) else "file"
        return {**described, "kind": kind, "file": str(file)}
    if not is_main and spec is not None:
        return {**described, "kind": "module", "file": ""}
    return {**described, "kind": "pickle", "ref": pickle(cls)}


def _importable(name: str, file: Path) -> bool:
    """Whether `import name` would find this very file."""
    expected, root = _module_name(file)
    here = working_directory()
    places = {os.path.normpath(os.path.join(here, entry)) for entry in import_path()}  # noqa: PTH118 - text
    return expected == name and "." not in file.stem and str(root) in places


def load(source: Mapping[str, Any], unpickle: Callable[[Any], Any]) -> type[FlowSpec]:
    """The class that `describe` told of.

    Raises:
        FlowError: The module has no such flow any more.
        Exception: Whatever the user's module raises when it is imported.
    """
    kind, name = source["kind"], source["name"]
    if kind == "pickle":
        unpickled: type[FlowSpec] = unpickle(source["ref"])
        return unpickled
    with _importing():
        module = _module_of(source)
    found = _find(module, name)
    if isinstance(found, type) and issubclass(found, FlowSpec):
        return found
    where = source.get("file") or source["module"]
    message = (
        f"{where} has no flow {name!r} where a worker imports it: it has been removed, or stands "
        'under `if __name__ == "__main__":`; put it above that, at the top level of the file'
    )
    raise FlowError(message)


def _module_of(source: Mapping[str, Any]) -> ModuleType:
    file = Path(source["file"]) if source.get("file") else None
    main = sys.modules.get("__main__")
    if file is not None and main is not None and _file_of(main) == file:
        return main  # forked out of the very program
    if source["kind"] == "module":
        return importlib.import_module(source["module"])
    if file is None:
        message = f"nobody knows where the module {source['module']!r} came from"
        raise FlowError(message)
    if source["module"] != "__main__":
        return load_file(file)
    module = sys.modules.get(MAIN_ALIAS)
    if module is None or _file_of(module) != file:
        module = _execute(MAIN_ALIAS, file)
    return module


def _find(module: ModuleType, qualname: str) -> object:
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
