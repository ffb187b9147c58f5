"""Journals that stay open for a while: threads share them, and some of them leave the cache."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from pathlib import Path

from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import RunStarted
from asyncflow.store import open_store
from asyncflow.store.event_reader import EventReader
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.warm_journals import MOST_OPEN
from tests.support.page_stores import GRAPH
from tests.support.written_runs import RunWriter


def written(store, number):
    """A run of one event."""
    RunWriter(store, "Made", f"17954726830000{number:02}", GRAPH).close()
    return RunRecord(FlowPlace(open_store(store), "Made"), f"17954726830000{number:02}")


def test_a_journal_can_be_read_while_its_file_is_being_closed(tmp_path, monkeypatch):
    """It leaves the cache, and another thread asks at that moment: the file is opened anew."""
    record, *others = (written(tmp_path / "store", number) for number in range(1 + MOST_OPEN))
    assert isinstance(record.journal.event(FIRST_RECORD), RunStarted)
    (path,) = (tmp_path / "store").rglob(f"{record.run_id}/journal")
    file, close = path.stat(), os.close
    found: list[int | None] = []

    def closing(descriptor):
        """Ask in place of another thread, right after the file is closed."""
        is_it = os.path.samestat(file, os.fstat(descriptor))
        close(descriptor)
        if is_it and not found:
            found.append(None)
            found[0] = len(list(record.journal.records(FIRST_RECORD)))

    monkeypatch.setattr("asyncflow.store.files.OwnDescriptor.close.__defaults__", (closing,))
    for other in others:
        other.journal.event(FIRST_RECORD)
    assert found == [1]


def open_journals(store):
    """How many journals of a store this process has open."""
    found = 0
    for descriptor in Path("/dev/fd").iterdir():
        with suppress(OSError):  # that of the folder itself
            path = descriptor.readlink()
            found += path.is_relative_to(store) and path.name == "journal"
    return found


def test_kept_runs_and_readers_of_events_keep_a_bounded_number_of_journals_open(tmp_path):
    """All can be read again, and none is open once they are gone."""
    store = tmp_path / "store"
    records = [written(store, number) for number in range(MOST_OPEN + 8)]
    readers = [EventReader(record.journal.run) for record in records]
    for _ in range(2):
        for record, reader in zip(records, readers, strict=True):
            assert len(reader.read(FIRST_RECORD, EventFilter(())).news) == 1
            assert isinstance(record.journal.event(FIRST_RECORD), RunStarted)
            assert len(list(record.journal.records(FIRST_RECORD))) == 1
        assert open_journals(store) == MOST_OPEN
    del record, reader
    records.clear()
    readers.clear()
    gc.collect()  # some of them refer to themselves
    assert open_journals(store) == 0
