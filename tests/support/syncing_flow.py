"""A flow that stores values wherever they can lie, and notes what a power cut would leave of them.

`watch` notes each sync of this process in a file: of a file how long it was then, of a folder which
names it had. Workers that import this module do so by themselves, if `SYNCED` names the file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from asyncflow import FlowSpec, Parameter, step
from asyncflow.flow import loader
from asyncflow.store import blobs, journal, segments

SEGMENT = 9_000
BLOB = 300_000


class Syncing(FlowSpec):
    """Values inline, in segments and in blobs: of the run, of tasks of both kinds, and of items."""

    text = Parameter("text", default="p" * SEGMENT)
    constant = b"c" * BLOB

    @step
    def start(self):
        self.inline, self.segment, self.blob = 1, os.urandom(SEGMENT), os.urandom(BLOB)
        self.same = b"c" * BLOB
        self.items = (os.urandom(BLOB // 3) for _ in range(4))
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        self.size = len(self.input)
        self.segment, self.blob = os.urandom(SEGMENT), os.urandom(BLOB)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.sizes = [task.size for task in inputs]
        self.next(self.spread)

    @step
    def spread(self):
        self.texts = ["i" * SEGMENT, "j" * SEGMENT]
        self.next(self.each, foreach="texts")

    @step
    def each(self):
        self.segment = os.urandom(SEGMENT)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def watch(log: str, replace: Any) -> None:
    """Note each sync in the file `log`; `replace` is like `setattr`."""

    def noting(real: Any) -> Any:
        def sync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            noted: dict[str, Any] = {"inode": status.st_ino, "size": status.st_size}
            if S_ISDIR(status.st_mode):
                noted["names"] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
            real(descriptor)
            with Path(log).open("ab", buffering=0) as file:
                file.write(json.dumps(noted).encode() + b"\n")

        return sync

    replace(os, "fsync", noting(os.fsync))
    for module in (blobs, journal, segments):
        replace(module, "sync_file", noting(module.sync_file))


class Disk:
    """What a power cut would leave, as far as a log tells of it."""

    def __init__(self, log: bytes) -> None:
        self._sizes: dict[int, int] = {}
        self._names: dict[int, dict[str, int]] = {}
        for line in log.splitlines():
            noted = json.loads(line)
            self._sizes[noted["inode"]] = noted["size"]
            if "names" in noted:
                self._names[noted["inode"]] = noted["names"]

    def size(self, path: Path, above: Path) -> int:
        """How many bytes of a file would be there; -1 if one of its names below `above` is lost."""
        inode = above.stat().st_ino
        for name in path.relative_to(above).parts:
            inode = self._names.get(inode, {}).get(name, -1)
        return self._sizes.get(inode, -1)


if loader.is_inside_worker() and os.environ.get("SYNCED"):
    watch(os.environ["SYNCED"], setattr)
