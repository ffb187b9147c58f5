"""What the runs of an object store need, and which of them may still change.

A run may change as long as its journal is not sealed and it has no summary, whatever its claim
says: its writer may only be cut off. Such a run is spared whole. If nothing was written to it for
an hour, it is sealed, which its writer could not have survived either: a writer gives up when the
store has not answered for a minute.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncflow.errors import StoreError
from asyncflow.store.maintenance.reachable import Marks
from asyncflow.store.object_store.object_run import ObjectRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asyncflow.store.interface import StoredRun
    from asyncflow.store.object_store.object_store import ObjectStore
    from asyncflow.store.object_store.objects import Objects

GRACE_SECONDS: Final = 3600
"""The most time from a run's first object to its first event, and between clocks."""
_COLLECTOR: Final = "collector"
_FRESH_SECONDS: Final = 600  # a step of a collection takes seconds
_BEAT_SECONDS: Final = 60
_LOOK_SECONDS: Final = 1.0


class ObjectMarks(Marks):
    """The objects and blobs that journals of an object store refer to."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        removing: Iterable[tuple[str, str]] = (),
        changes_nothing: bool = False,
    ) -> None:
        """Start empty; with `changes_nothing`, no run is sealed."""
        super().__init__(store, removing=removing)
        self._objects, self._seals = store.objects, not changes_nothing

    def is_running(self, run: StoredRun) -> bool:
        """Whether somebody may still append to a run's journal; seals one that was left behind."""
        if run.is_being_written():
            return True
        if not run.has_journal() or not isinstance(run, ObjectRun) or run.is_over():
            return False
        newest = max((each.modified for each in self._objects.listed(run.folder)), default=0)
        if newest > time.time() - GRACE_SECONDS or not self._seals:
            return True
        run.end_writing()
        return False


class Collector:
    """The claim of the one process that collects or removes; `beat` renews it."""

    def __init__(self, objects: Objects, e_tag: str, data: bytes) -> None:
        self._objects, self._e_tag, self._data = objects, e_tag, data
        self._due = time.monotonic() + _BEAT_SECONDS

    def beat(self) -> None:
        """Renew the claim if it is time to.

        Raises:
            StoreError: Somebody else has taken it, because this process stood still for long.
        """
        if time.monotonic() < self._due:
            return
        e_tag = self._objects.replace(_COLLECTOR, self._data, self._e_tag)
        if e_tag is None:
            raise StoreError("another process collects or removes by now: this one was too slow")
        self._e_tag, self._due = e_tag, time.monotonic() + _BEAT_SECONDS

    def release(self) -> None:
        """Let others collect.

        The object stays, empty: to delete it would delete that of whoever has come meanwhile.
        """
        self._objects.replace(_COLLECTOR, b"", self._e_tag)


@contextmanager
def collecting(store: ObjectStore, on_wait: Callable[[str], None]) -> Iterator[Collector]:
    """Keep other processes from collecting and removing within the block; waits for its turn.

    Raises:
        StoreError: Somebody else has taken over meanwhile.
        OSError: The store refuses, or does not answer.
    """
    facts = {"host": os.uname().nodename, "pid": os.getpid(), "word": os.urandom(8).hex()}
    data = json.dumps(facts).encode()
    collector = _take(store.objects, data, on_wait)
    try:
        yield collector
    finally:
        collector.release()


def _take(objects: Objects, data: bytes, on_wait: Callable[[str], None]) -> Collector:
    told = False
    while True:
        e_tag = objects.create_version(_COLLECTOR, data)
        if e_tag is not None:
            return Collector(objects, e_tag, data)
        try:
            there, facts = objects.get_with_facts(_COLLECTOR)
        except FileNotFoundError:
            continue
        if not there or time.time() - facts.modified > _FRESH_SECONDS:
            e_tag = objects.replace(_COLLECTOR, data, facts.e_tag)
            if e_tag is not None:
                return Collector(objects, e_tag, data)
        if not told:
            told = True
            on_wait(f"waiting for another process, {_holder(there)}, which collects or removes")
        time.sleep(_LOOK_SECONDS)


def _holder(data: bytes) -> str:
    try:
        found = json.loads(data)
        return f"process {int(found['pid'])} on {str(found['host'])[:64]}"
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return "which cannot be told"
