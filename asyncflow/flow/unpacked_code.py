"""Writes the source files of a flow below a folder of a machine that does not have them.

All workers of a machine use the same files: a folder is named by the hash of what it holds, appears
when it is whole, and cannot be written to afterwards. Only plain files are made, and nothing that
is there is followed or replaced. So whatever a hostile store says, nothing is written elsewhere.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from asyncflow.errors import FlowError
from asyncflow.flow.code_files import MOST_BYTES

if TYPE_CHECKING:
    from asyncflow.flow.code_files import Code

MOST_PACKED_BYTES: Final = MOST_BYTES + (1 << 20)
"""What is larger is not even read: the files, their names, and some room."""
_MOST_FILES: Final = 10_000


def is_there(code: Code, root: Path) -> bool:
    """Whether the folder has all these files, with these contents."""
    return bool(code.files) and all(
        _has(root / name, content) for name, content in code.files.items()
    )


def unpack(code: Code, folder: Path) -> Path:
    """Return a folder below this one that has these files and no others; make it if need be.

    Raises:
        FlowError: It is not the code of a flow that could be run: a file has no name of a Python
            file, there are too many files, or they are too large.
        OSError: It cannot be written.
    """
    _check(code)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        message = f"{folder} is not a folder of this user's own: no code is run from it"
        raise FlowError(message)
    name = blake3(code.pack()).hexdigest(length=16)
    for attempt in range(100):  # one that somebody has changed is left alone
        target = folder / (f"{name}-{attempt}" if attempt else name)
        if not os.path.lexists(target):
            _make(code, target)
        if not target.is_symlink() and is_there(code, target):
            return target
    message = f"{folder} has no place for the flow's code: somebody has changed what was there"
    raise FlowError(message)


def _check(code: Code) -> None:
    total = sum(map(len, code.files.values()))
    if total > MOST_BYTES or len(code.files) > _MOST_FILES:
        message = f"the flow's code has {len(code.files)} files of {total} bytes, which is too much"
        raise FlowError(message)
    wrong = next((name for name in code.files if not name.endswith(".py")), None)
    if wrong is not None:
        message = f"the flow's code has a file that is not Python's: {wrong!r}"
        raise FlowError(message)


def _make(code: Code, target: Path) -> None:
    """Make the folder at once, or not at all if another process is faster."""
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix="new-"))
    try:
        for name, content in code.files.items():
            path = draft / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "xb", opener=_read_only) as file:
                file.write(content)
        for each, _, _ in os.walk(draft):
            os.chmod(each, 0o500)  # noqa: PTH101 - a text
        os.rename(draft, target)  # noqa: PTH104 - it must not replace a file
    except OSError:
        _remove(draft)
        if not os.path.lexists(target):
            raise


def _remove(draft: Path) -> None:
    for each, _, _ in os.walk(draft):
        os.chmod(each, 0o700)  # noqa: PTH101 - a text
    shutil.rmtree(draft, ignore_errors=True)


def _read_only(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o400)


def _has(path: Path, content: bytes) -> bool:
    """Whether this is a file with this content; nothing but a file is opened."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != len(content):
            return False
        return path.read_bytes() == content
    except (OSError, ValueError):
        return False
