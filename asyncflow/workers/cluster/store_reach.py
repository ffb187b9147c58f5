"""Whether a node reaches the store of its driver: asked before it gets its first task.

A store in a folder must be the same folder there. Its file `format` is written once, so the time of
that, in seconds, tells it from another store at the same path.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

from asyncflow._support.locations import is_url
from asyncflow.errors import AsyncflowError
from asyncflow.store import open_store

_FORMAT: Final = "format"
_APPEARING_SECONDS: Final = 3.0  # for a folder that was just made to be seen by another machine
_LOOK_SECONDS: Final = 0.25


def mark_of(location: str) -> int:
    """What tells a store in a folder from others; 0 for a store that has a URL, or is not there."""
    if is_url(location):
        return 0
    try:
        return int(Path(location, _FORMAT).stat().st_mtime)
    except OSError:
        return 0


def why_unreachable(location: str, mark: int) -> str:
    """Why this machine does not reach the store with that mark; empty if it does.

    It may take as long as an object store that does not answer is asked.
    """
    if is_url(location):
        try:
            open_store(location).close()
        except (AsyncflowError, OSError) as error:
            return f"{platform.node()} cannot use the store: {error}"
        return ""
    until = time.monotonic() + _APPEARING_SECONDS
    while not _is_there(location, mark):
        if time.monotonic() > until:
            return (
                f"{platform.node()} does not have the folder {location} with the store: share the "
                "folder with all nodes, at the same path, or keep the runs in an object store, as "
                "with --store s3://BUCKET/PREFIX"
            )
        time.sleep(_LOOK_SECONDS)
    if not os.access(location, os.W_OK | os.X_OK):
        return f"{platform.node()} may not write to the folder {location} of the store"
    return ""


def _is_there(location: str, mark: int) -> bool:
    return mark_of(location) == mark != 0
