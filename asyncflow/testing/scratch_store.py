"""A store in a temporary folder, for runs of tests that name none."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path


def scratch_store() -> Path:
    """The store of this process, which is removed at its end."""
    return _folder(os.getpid()) / "store"


@functools.cache
def _folder(pid: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"asyncflow-testing-{pid}-"))
    atexit.register(_remove, folder, pid)
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # and not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)
