"""The flow's code and the program's environment on a machine that may have none of its files.

A worker beside the engine uses the engine's files. Elsewhere the flow's code is used where it lies
if the same files lie there, as in a shared folder or the same image; else the files that are kept
with the run are unpacked. The same holds for the working directory.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.locations import is_url
from asyncflow._support.modules import file_of, travelled_to
from asyncflow.errors import FlowError, StoreError
from asyncflow.flow.code_files import Code
from asyncflow.flow.unpacked_code import MOST_PACKED_BYTES, is_there, unpack
from asyncflow.store import open_store
from asyncflow.workers.program_environment import ProgramEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncflow.values import ArtifactRef
    from asyncflow.workers.messages import Opening

_INTERPRETERS: Final = re.compile(r"/(?:site|dist)-packages(?:/|$)|/python\d+\.\d+(?:/|$)|\.zip$")
"""What each machine has of its own: the standard library and what was installed."""

_TOLD_FILES: Final = 20

_folders: dict[tuple[object, ...], str] = {}
"""Where code is on this machine, if it was unpacked, by what identifies it in its store."""


def folder_here(
    source: Mapping[str, Any],
    ref: ArtifactRef | None,
    opening: Opening,
    load: Callable[[ArtifactRef], bytes | bytearray | memoryview],
) -> str:
    """The folder to which a flow's code was unpacked; empty if this machine has it in its place.

    Args:
        source: Where the program has the flow's class from.
        ref: The run's code; None if none was kept.
        opening: The run's.
        load: Reads a stored value.

    Raises:
        FlowError: The code cannot be used here; the message says why.
        RecordError: It is no code.
        StoreError: It cannot be read.
    """
    root = source.get("root", "")
    if not root or ref is None:
        _check_has_flow(source, opening, is_kept=ref is not None)
        return ""
    key = (opening.store, ref.digest or bytes(ref.data), root, str(opening.hidden_code))
    if key not in _folders:
        if ref.size > MOST_PACKED_BYTES:
            message = f"the flow's code has {ref.size} bytes, which is too much"
            raise FlowError(message)
        _folders[key] = _folder_of(Code.unpack(bytes(load(ref))), source, opening)
    return _folders[key]


def _folder_of(code: Code, source: Mapping[str, Any], opening: Opening) -> str:
    if opening.hidden_code is None:
        message = (
            "the values of @environment and @secrets stand in the flow's code so often that it "
            "cannot be sent to other machines without them: take them out of the code"
        )
        raise FlowError(message)
    try:
        code = code.with_hidden(
            {
                name: [(begin, text) for begin, text in places]
                for name, places in opening.hidden_code.items()
            }
        )
    except ValueError as error:
        message = f"the flow's code is not what this run was started with: {error}"
        raise FlowError(message) from error
    root = source["root"]
    if is_there(code, Path(root)):
        return ""
    try:
        folder = str(unpack(code, Path(opening.node_folder, "code")))
    except OSError as error:
        message = f"the flow's code cannot be written on this machine: {error}"
        raise FlowError(message) from error
    travelled_to(folder, root)
    _forget_others(code, folder)
    return folder


def _check_has_flow(source: Mapping[str, Any], opening: Opening, *, is_kept: bool) -> None:
    if source["kind"] == "file":
        is_here = os.path.isfile(source.get("file", ""))  # noqa: PTH113 - a text
    elif source["kind"] == "module":
        path = [*ProgramEnvironment(*opening.surroundings).path, *sys.path]
        is_here = PathFinder.find_spec(source["module"].partition(".")[0], path) is not None
    else:
        return
    if not is_here:
        what = source.get("file") or source["module"]
        why = "it was installed" if is_kept else "by the setting keep_code no code is kept"
        message = f"{what} is not on this machine, and was not sent to it: {why} on the engine's"
        raise FlowError(message)


def _forget_others(code: Code, folder: str) -> None:
    """Have the files of this code imported again, if an imported one has another text in it.

    Flows of one folder share what they import; only an edited file makes a difference.
    """
    earlier = tuple(f"{each}{os.sep}" for each in _folders.values() if each and each != folder)
    known = {}
    for name, module in list(sys.modules.items()):
        file = file_of(module)
        if file.startswith(earlier):
            start = next(each for each in earlier if file.startswith(each))
            if file[len(start) :] in code.files:
                known[name] = Path(file).read_bytes() == code.files[file[len(start) :]]
    if not all(known.values()):
        for name in known:
            del sys.modules[name]


def what_was_sent() -> str:
    """What to say about a module that is not found on a machine to which a flow's code was sent."""
    folder = next((each for each in sys.path if each in _folders.values()), "")
    if not folder:
        return ""
    names = sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("*.py"))
    told = ", ".join(names[:_TOLD_FILES]) + (" …" if len(names) > _TOLD_FILES else "")
    return (
        "this machine was sent the files of the flow's folder that the flow is seen to import "
        f"({told}); import the module by its name in one of them, or install it on the machine"
    )


def check_store_here(opening: Opening) -> None:
    """Check that a store in a folder is on this machine the one that the engine uses.

    Raises:
        StoreError: It is not; the message says what to do.
    """
    if is_url(opening.store):
        return
    try:
        is_same = open_store(opening.store).run(opening.flow, opening.run_id).is_there()
    except StoreError:
        is_same = False
    if not is_same:
        message = (
            f"{platform.node()} does not have the folder {opening.store} with the run's store: "
            "share the folder with all nodes, at the same path, or keep the runs in an object "
            "store, as with --store s3://BUCKET/PREFIX"
        )
        raise StoreError(message)


def source_in(folder: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """Where to load a flow's class from, if its code was unpacked to this folder."""
    file = source.get("file")
    if not folder or not file:
        return dict(source)
    within = os.path.relpath(file, source["root"])
    return {**source, "file": os.path.join(folder, within)}  # noqa: PTH118 - a text


def program_here(
    program: ProgramEnvironment, opening: Opening, folder: str, root: str
) -> ProgramEnvironment:
    """A program's environment with a working directory and import path that are good here."""
    cwd = program.cwd
    if not (os.path.isdir(cwd) and os.access(cwd, os.X_OK)):  # noqa: PTH112 - a text
        cwd = os.path.join(opening.node_folder, "work")  # noqa: PTH118 - a text
        os.makedirs(cwd, mode=0o700, exist_ok=True)  # noqa: PTH103 - a text
    path = list(dict.fromkeys(_path_here(program.path, folder, root)))
    return program._replace(cwd=cwd, path=path)


def _path_here(path: Sequence[str], folder: str, root: str) -> Iterator[str]:
    if folder:
        yield folder
    for entry in path:
        if entry and _INTERPRETERS.search(entry):
            continue  # this machine's own follow
        if folder and entry.startswith(root + os.sep):
            inside = folder + entry[len(root) :]
            if os.path.isdir(inside):  # noqa: PTH112 - a text
                yield inside
        if not entry or os.path.exists(entry):  # noqa: PTH110 - a text
            yield entry
