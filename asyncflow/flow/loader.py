"""Finds a flow class by its name, in the engine's process and in a worker.

A worker gets a class in one of three ways, in this order of preference: it imports the module; it
runs the file as a module, in which `__name__` is not `"__main__"` (a script); or it unpickles the
class (a notebook cell, a prompt, a class made in a function). `describe` returns the way as plain
data, which the run's first event holds, and `load` follows it.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.call_site import importing_line, importing_module
from asyncflow._support.modules import file_of, find_member
from asyncflow._support.paths import absolute, import_path, working_directory
from asyncflow.errors import EngineClosedError, FlowError, UnguardedRunError
from asyncflow.flow.spec import FlowSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

MAIN_ALIAS: Final = "__mp_main__"
"""The name of a script's module in a worker, so that its `__main__` guard is false.

multiprocessing uses the same name, so a process that a step starts finds the module too.
"""

_inside_worker = False
# True of what the import of a flow's file calls, on event loops too, and of no other thread.
_is_importing = ContextVar("asyncflow_is_importing", default=False)
_loading = threading.RLock()  # a file that another thread still runs is in `sys.modules` already


def is_inside_worker() -> bool:
    """Whether this process is a worker, which must not start an engine."""
    return _inside_worker


def mark_worker() -> None:
    """Mark this process as a worker."""
    global _inside_worker  # noqa: PLW0603 - true of the whole process, for good
    _inside_worker = True


@contextmanager
def _importing() -> Iterator[None]:
    """Mark that a flow's file is being run to get its definitions."""
    token = _is_importing.set(True)
    try:
        yield
    finally:
        _is_importing.reset(token)


def check_may_start() -> None:
    """Check that an engine may be started here.

    Raises:
        UnguardedRunError: A flow's file is being imported.
        EngineClosedError: This is a worker.
    """
    if _is_importing.get():
        raise _unguarded("starts a run")
    if _inside_worker:
        message = "no engine can be started within a step: have the program run the other flow"
        raise EngineClosedError(message)


def is_program() -> bool:
    """Whether `MyFlow()` in a file should start the command line.

    While asyncflow imports the file for its definitions, `MyFlow()` does nothing.

    Raises:
        UnguardedRunError: Another program imports the file.
    """
    if _is_importing.get():
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


# --- by a name that the user gives ------------------------------------------------------------


def load_flow(spec: str) -> type[FlowSpec]:
    """Load the flow that `FILE[:Flow]` or `package.module[:Flow]` names.

    The script's folder is put first on `sys.path`, as when Python runs the script. For a file in a
    package it is the folder that contains the topmost package, so relative imports work.

    Raises:
        FlowError: There is no such file, module or flow, or there are several flows and none is
            named.
    """
    with _loading, _importing():
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
    """Run a file as a module; a second call returns the same module."""
    path = absolute(path).resolve()
    name, root = _module_name(path)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for known in (name, MAIN_ALIAS, "__main__"):
        module = sys.modules.get(known)
        if module is not None and _path_of(module) == path:
            return module
    if "." in name:
        return importlib.import_module(name)
    return _execute(name if name not in sys.modules else f"asyncflow_flow_{name}", path)


def import_root(path: Path) -> Path:
    """The folder that must be on `sys.path` for Python to import this file."""
    return _module_name(path)[1]


def _module_name(path: Path) -> tuple[str, Path]:
    """The dotted name under which Python would import the file, and the folder for `sys.path`.

    A file or folder with a dot in its name is not part of a package, as Python cannot name it.
    """
    parts, folder = [path.stem.replace(".", "_")], path.parent
    in_package = "." not in path.stem
    while in_package and "." not in folder.name and (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), folder


def _path_of(module: ModuleType) -> Path | None:
    file = file_of(module)
    return Path(file) if file else None


def _execute(name: str, path: Path) -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{path} is not a Python file"
        raise FlowError(message)
    module = importlib.util.module_from_spec(spec)
    main = sys.modules.get("__main__")
    if name == MAIN_ALIAS:
        module.__spec__ = None  # as for a script: multiprocessing then runs its file again
        # The program pickles a class as `__main__.Thing`, which must be found here too. This has to
        # happen before the file runs: the first `import multiprocessing` aliases `__main__`.
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
    """The flows that a module defines, by name, without those that it imports."""
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
    # A base class of other flows in the file is not a candidate.
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
    """Describe how a worker gets this class, as plain data; `pickle` stores it as a last resort."""
    name, module_name = cls.__qualname__, cls.__module__
    module = sys.modules.get(module_name)
    described: dict[str, Any] = {"name": name, "module": module_name}
    if module is None or find_member(module, name) is not cls:
        return {**described, "kind": "pickle", "ref": pickle(cls)}
    file = _path_of(module)
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
    places = {os.path.normpath(os.path.join(here, entry)) for entry in import_path()}  # noqa: PTH118 - a path as text takes a fraction of the time
    return expected == name and "." not in file.stem and str(root) in places


def load(source: Mapping[str, Any], unpickle: Callable[[Any], Any]) -> type[FlowSpec]:
    """Load the class from the result of `describe`.

    Raises:
        FlowError: The module no longer has this flow.
        Exception: The user's module raised it when it was imported.
    """
    kind, name = source["kind"], source["name"]
    if kind == "pickle":
        unpickled: type[FlowSpec] = unpickle(source["ref"])
        return unpickled
    with _importing():
        module = _module_of(source)
    found = find_member(module, name)
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
    if file is not None and main is not None and _path_of(main) == file:
        return main  # this process was forked from the program itself
    if source["kind"] == "module":
        return importlib.import_module(source["module"])
    if file is None:
        message = f"the module {source['module']!r} has no file to load it from"
        raise FlowError(message)
    if source["module"] != "__main__":
        return load_file(file)
    module = sys.modules.get(MAIN_ALIAS)
    if module is None or _path_of(module) != file:
        module = _execute(MAIN_ALIAS, file)
    return module
