"""Faults in the file system: the n-th operation on a store fails, tears, or fails after its effect.

A flow file calls `install_from_environ()` when it is imported, so both the engine's process and the
workers get the fault that the environment asks for, each in its turn:

    FAULT_STORE  the store's folder; operations elsewhere are let be
    FAULT_ROLE   `engine` or `worker`
    FAULT_NTH    which operation, from 1
    FAULT_MODE   `full` (from then on nothing can be written), `torn` (half of it is written, once),
                 `late` (it is done, and then reported as failed, once), `unsynced` (from then on
                 nothing can be synced); or like `full`, with another reason, the name of an errno
    FAULT_LOG    a file that is given one line when the fault comes
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from asyncflow import loading
from asyncflow.store import blobs, files, journal, segments

MODES = ("full", "torn", "late")
_REASONS = {
    "full": errno.ENOSPC,
    "torn": errno.ENOSPC,
    "late": errno.EIO,
    "unsynced": errno.EIO,
}


class Faults:
    """Counts operations on a store, and spoils one."""

    def __init__(self, store, nth, mode, log):
        self.store, self.nth, self.mode, self.log = store, nth, mode, log
        self.count = 0
        self.real = {name: getattr(os, name) for name in ("write", "writev", *PATHS)}
        self.real_write_bytes = Path.write_bytes

    def install(self):
        """Take the place of the functions that change a file system."""
        os.write = self.write
        os.writev = self.writev
        for name in PATHS:
            setattr(os, name, self.on_path(name))
        Path.write_bytes = self.bytes_writer()  # type: ignore[method-assign] # that is the point

    def install_unsynced(self):
        """Take the place of the functions that sync."""
        modules: tuple[Any, ...] = (journal, segments, blobs)
        for module in modules:
            module.sync_file = self.syncer(files.sync_file)

    def syncer(self, real):
        """A function that syncs a descriptor, spoilt or not."""

        def sync(fd):
            if self.comes(place_of(fd)):
                raise self.error()
            real(fd)

        return sync

    def comes(self, place):
        """Whether this operation is spoilt."""
        if not str(place).startswith(self.store):
            return False
        self.count += 1
        hit = self.count == self.nth if self.mode in {"torn", "late"} else self.count >= self.nth
        if hit:
            with Path(self.log).open("a") as file:
                self.real["write"](file.fileno(), f"{place}\n".encode())
        return hit

    def error(self):
        """What the operating system would say."""
        number = _REASONS.get(self.mode) or getattr(errno, self.mode)
        return OSError(number, os.strerror(number))

    def write(self, fd, data):
        """`os.write`, spoilt or not."""
        if not self.comes(place_of(fd)):
            return self.real["write"](fd, data)
        if self.mode == "torn":
            self.real["write"](fd, memoryview(data)[: len(data) // 2])
        if self.mode == "late":
            self.real["write"](fd, data)
        raise self.error()

    def writev(self, fd, chunks):
        """`os.writev`, spoilt or not."""
        if not self.comes(place_of(fd)):
            return self.real["writev"](fd, chunks)
        if self.mode == "torn":
            self.real["write"](fd, chunks[0])
        if self.mode == "late":
            self.real["writev"](fd, chunks)
        raise self.error()

    def bytes_writer(self):
        """`Path.write_bytes`, spoilt or not."""

        def write_bytes(path, data):
            if not self.comes(path):
                return self.real_write_bytes(path, data)
            if self.mode == "torn":
                self.real_write_bytes(path, data[: len(data) // 2])
            if self.mode == "late":
                self.real_write_bytes(path, data)
            raise self.error()

        return write_bytes

    def on_path(self, name):
        """A function on paths, spoilt or not."""

        def spoilt(*args, **more):
            if not self.comes(args[0]):
                return self.real[name](*args, **more)
            if self.mode == "late":
                self.real[name](*args, **more)
            raise self.error()

        return spoilt


PATHS = ("link", "mkdir", "rename", "replace")


def place_of(fd):
    """The path of an open file; nothing for one that has no name."""
    try:
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""
    return "" if place.endswith("(deleted)") else place


def install_from_environ():
    """Install the fault that the environment asks this process to have, if any."""
    asked = {name: os.environ.get(f"FAULT_{name.upper()}") for name in ("store", "role", "mode")}
    role = "worker" if loading.is_inside_worker() else "engine"
    if asked["role"] != role or not asked["store"]:
        return
    nth, log = int(os.environ["FAULT_NTH"]), os.environ["FAULT_LOG"]
    faults = Faults(asked["store"], nth, asked["mode"], log)
    if asked["mode"] == "unsynced":
        faults.install_unsynced()
    else:
        faults.install()
