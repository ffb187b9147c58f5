"""Chooses the id of a new run: the time, but never below that of a run that was started before.

A clock can go back: a machine wakes up with an empty battery, or another machine's clock is behind.
So the file `newest/FLOW` of a store has the flow's last id, as decimal digits and a line feed. It
is read and written under a lock, before the run's folder is made. A crash in between wastes an id.
Behind it stand the flow's newest runs (`recent_runs.py`), noted once the folder is made.
If the file is missing, unreadable, or ahead of the clock, the flow's runs are listed as well: a
power cut may have undone its last change.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import StoreError
from asyncflow.store.file_locks import holder_of, lock_within
from asyncflow.store.recent_runs import forget_recent, read_recent, recent_of, write_recent

if TYPE_CHECKING:
    from asyncflow.store.folders import Folder

NEWEST: Final = "newest"
"""The folder of a store that has a file for each flow: its last id."""

REMOVED: Final = ".removed"
"""The subfolder of a flow for what is kept of removed runs; no run can have this name."""

RUN_ID: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_DIGITS: Final = re.compile(rb"([1-9][0-9]{0,18})\n")
_MOST_BYTES: Final = 32
_LOCK_SECONDS: Final = 5.0  # making a folder takes microseconds


def next_run(flow: str, runs: Folder, newest_ids: Folder) -> int:
    """Make the folder of a new run among those of its flow, and return its id.

    Raises:
        OSError: A folder cannot be written to.
        StoreError: There are no file locks, or another process holds the lock of the id for good.
    """
    path = f"{newest_ids.path}/{flow}"
    with no_forks():
        file = os.fdopen(newest_ids.open_file(flow, os.O_RDWR | os.O_CREAT), "rb+", buffering=0)
        keep_from_children(file)
    try:
        _lock(file.fileno(), path)
        newest = _read(file.fileno())
        number = time.time_ns() // 1000
        if newest is None or number <= newest:
            number = max(number, 1 + max((newest or 0, *_runs_of(runs))))
            _refuse_greatest(number, path)
        recent = read_recent(file.fileno(), runs.changed)
        os.pwrite(file.fileno(), b"%d\n" % number, 0)
        reached("run.numbered")
        number = _make(runs, number)
        if recent is None:  # the runs are listed again, for this once
            recent = recent_of([each for each in _runs_in(runs) if each != number])
        reached("run.noted")
        write_recent(file.fileno(), recent.with_newest(number), runs.changed())
        return number
    finally:
        with no_forks():
            file.close()


def note_run(flow: str, number: int, newest_ids: Folder) -> None:
    """Have new runs get ids above that of a run that was copied here, and the runs listed anew.

    Call it after any change to the flow's folder, with 0 for a removed run. Whoever was starting a
    run at that moment may have read the list before the change, and noted it after.

    Raises:
        OSError: The file cannot be written to.
        StoreError: There are no file locks, or another process holds the lock of the id for good.
    """
    try:
        with no_forks():
            file = os.fdopen(newest_ids.open_file(flow, os.O_RDWR), "rb+", buffering=0)
            keep_from_children(file)
    except FileNotFoundError:
        return  # then the next id is above those of all runs
    try:
        _lock(file.fileno(), f"{newest_ids.path}/{flow}")
        newest = _read(file.fileno())
        if newest is not None and newest < number:
            os.pwrite(file.fileno(), b"%d\n" % number, 0)
        forget_recent(file.fileno())
    finally:
        with no_forks():
            file.close()


def _lock(descriptor: int, path: str) -> None:
    try:
        if lock_within(descriptor, _LOCK_SECONDS):
            return
    except OSError as error:
        message = (
            f"the file system of {path} has no file locks ({error.strerror}); "
            "use a store on a local disk"
        )
        raise StoreError(message) from error
    message = f"cannot start a run: {holder_of(descriptor)} holds a lock on {path}; end it"
    raise StoreError(message)


def _read(descriptor: int) -> int | None:
    found = _DIGITS.match(os.pread(descriptor, _MOST_BYTES, 0))
    return int(found[1]) if found else None


def _runs_of(folder: Folder) -> list[int]:
    """The ids of the flow's runs, and of removed runs that still have files."""
    found = _runs_in(folder)
    with suppress(FileNotFoundError), folder.child(REMOVED) as removed:
        found += _runs_in(removed)
    return found


def _runs_in(folder: Folder) -> list[int]:
    return [int(entry.name) for entry in folder.entries() if RUN_ID.fullmatch(entry.name)]


def _refuse_greatest(number: int, path: str) -> None:
    if not RUN_ID.fullmatch(str(number)):
        message = (
            f"no run can have an id above {number - 1}: move the run with that id out of the "
            f"store, and delete {path}"
        )
        raise StoreError(message)


def _make(folder: Folder, number: int) -> int:
    while True:
        try:
            folder.make(str(number))
        except FileExistsError:  # a run that was copied there by hand
            number += 1
        else:
            return number
