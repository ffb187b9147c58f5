"""Faults in the file system: the n-th operation on a store fails, tears, or fails after its effect.

A flow file calls `install_from_environ()` when it is imported, so both the engine's process and the
workers get the fault that the environment asks for, each in its turn:

    FAULT_STORE  the store's folder; operations elsewhere are let be
    FAULT_ROLE   `engine` or `worker`
    FAULT_NTH    which operation, from 1
    FAULT_MODE   `full` (from then on nothing can be written), `torn` (half of it is written, once),
                 `late` (it is done, and then reported as failed, once), `unsynced` (from then on
                 nothing can be synced), `fail` (it is not done, once); or like `full`, with
                 another reason, the name of an errno
    FAULT_WIDE   not only what writes: also what opens a file to write to it, syncs it, cuts it off,
                 gives it a time, and deletes
    FAULT_LOG    a file that is given one line when the fault comes
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from asyncflow.flow import loader
from asyncflow.store import blobs, files, journal, local_store, segments

MODES = ("full", "torn", "late")
_REASONS = {
    "full": errno.ENOSPC,
    "torn": errno.ENOSPC,
    "late": errno.EIO,
    "unsynced": errno.EIO,
    "fail": errno.EIO,
}
_ONCE = {"torn", "late", "fail"}


class Faults:
    """Counts operations on a store, and spoils one."""

    def __init__(self, store, nth, mode, log):
        self.store, self.nth, self.mode, self.log = store, nth, mode, log
        self.count = 0
        names = ("write", "writev", "open", *PATHS, *WIDE_PATHS, *DESCRIPTORS)
        self.real = {name: getattr(os, name) for name in names}
        self.real_write_bytes, self.real_path_open = Path.write_bytes, Path.open

    def install(self):
        """Take the place of the functions that change a file system."""
        os.write = self.write
        os.writev = self.writev
        for name in PATHS:
            setattr(os, name, self.on_path(name))
        Path.write_bytes = self.bytes_writer()  # type: ignore[method-assign] # that is the point

    def install_wide(self):
        """The same, and of all the others there are."""
        self.install()
        os.open = self.open
        for name in WIDE_PATHS:
            setattr(os, name, self.on_path(name))
        for name in DESCRIPTORS:
            setattr(os, name, self.on_descriptor(name))
        modules: tuple[Any, ...] = (journal, segments, blobs, local_store)
        for module in modules:
            module.sync_file = self.on_descriptor("fdatasync")
        Path.open = self.path_opener()  # type: ignore[method-assign] # that is the point

    def install_unsynced(self):
        """Take the place of the functions that sync."""
        modules: tuple[Any, ...] = (journal, segments, blobs, local_store)
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
        hit = self.count == self.nth if self.mode in _ONCE else self.count >= self.nth
        if hit:
            log = self.real["open"](self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self.real["write"](log, f"{place}\n".encode())
            os.close(log)
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

    def open(self, path, flags, *args, **more):
        """`os.open`, spoilt or not where it may make or change a file."""
        place = place_in(path, more.get("dir_fd"))
        if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) or not self.comes(place):
            return self.real["open"](path, flags, *args, **more)
        if self.mode == "late":
            os.close(self.real["open"](path, flags, *args, **more))
        raise self.error()

    def path_opener(self):
        """`Path.open`, spoilt or not where it may make or change a file."""

        def opened(path, mode="r", *args, **more):
            if not set(mode) & set("wax+") or not self.comes(path):
                return self.real_path_open(path, mode, *args, **more)
            if self.mode == "late":
                self.real_path_open(path, mode, *args, **more).close()
            raise self.error()

        return opened

    def on_descriptor(self, name):
        """A function on open files, spoilt or not."""

        def spoilt(fd, *args):
            if not self.comes(place_of(fd)):
                return self.real[name](fd, *args)
            if self.mode == "late":
                self.real[name](fd, *args)
            raise self.error()

        return spoilt

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
            frees = name in FREEING and self.mode == "full"  # that is what a full disk still does
            folder = more.get("dir_fd", more.get("src_dir_fd"))
            if frees or not self.comes(place_in(args[0], folder)):
                return self.real[name](*args, **more)
            if self.mode == "late":
                self.real[name](*args, **more)
            raise self.error()

        return spoilt


PATHS = ("link", "mkdir", "rename", "replace")
FREEING = ("unlink", "rmdir")
WIDE_PATHS = ("utime", *FREEING)
DESCRIPTORS = ("fsync", "fdatasync", "ftruncate")


def place_of(fd):
    """The path of an open file; nothing for one that has no name."""
    try:
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""
    return "" if place.endswith("(deleted)") else place


def place_in(path, folder):
    """The path of an operation, which may be told relative to an open folder."""
    return path if folder is None else f"{place_of(folder)}/{path}"


def install_from_environ():
    """Install the fault that the environment asks this process to have, if any."""
    asked = {name: os.environ.get(f"FAULT_{name.upper()}") for name in ("store", "role", "mode")}
    role = "worker" if loader.is_inside_worker() else "engine"
    if asked["role"] != role or not asked["store"]:
        return
    nth, log = int(os.environ["FAULT_NTH"]), os.environ["FAULT_LOG"]
    faults = Faults(asked["store"], nth, asked["mode"], log)
    if os.environ.get("FAULT_WIDE"):
        faults.install_wide()
    elif asked["mode"] == "unsynced":
        faults.install_unsynced()
    else:
        faults.install()
