"""What an engine may have left behind in this process."""

from __future__ import annotations

import gc
import threading
from pathlib import Path


def engine_threads():
    """The names of the threads of engines. The one that reads journals belongs to the process."""
    names = [thread.name for thread in threading.enumerate()]
    return [
        name
        for name in names
        if name.startswith("asyncflow") and not name.startswith("asyncflow-read")
    ]


def open_descriptors() -> set[tuple[int, str]]:
    """The descriptors that this process has open, each with what it is.

    What tests before have left as garbage is closed first, and the sets of two moments may be
    subtracted: a descriptor of another test that is closed meanwhile is no difference.
    """
    gc.collect()
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((int(entry.name), str(entry.readlink())))
        except FileNotFoundError:
            continue  # the listing's own
    return found


def running_threads() -> set[threading.Thread]:
    """The threads of this process, for the same kind of difference."""
    return set(threading.enumerate())
