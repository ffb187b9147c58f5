"""Waits for a lock on a whole file, and finds out who holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

_LOCKS: Final = Path("/proc/locks")
_LOOK_SECONDS: Final = 0.01


def lock_within(descriptor: int, seconds: float) -> bool:
    """Take the exclusive lock of a file; False if others hold it for that many seconds.

    Raises:
        OSError: The file system has no locks.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_SECONDS)
        else:
            return True


def holder_of(descriptor: int) -> str:
    """Who holds a lock on a file, as far as the system knows: `process 123`."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = _LOCKS.read_text().splitlines()
    except OSError:
        locks = []
    for lock in locks:  # 1: FLOCK ADVISORY WRITE 123 fd:01:4567 0 EOF
        fields = lock.split()
        if fields[1:2] == ["FLOCK"] and fields[5:6] == [device] and fields[4].isdecimal():
            return f"process {fields[4]}" if int(fields[4]) != os.getpid() else "this process"
    return "another process"
