"""Journals that stay open for a while: threads share them, and some of them leave the cache."""

from __future__ import annotations

import os

from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.client.run_journal import _warm
from asyncflow.events.types import RunStarted
from asyncflow.store import open_store
from asyncflow.store.journal import FIRST_RECORD
from tests.support.page_stores import GRAPH
from tests.support.written_runs import RunWriter


def written(store, number):
    """A run of one event."""
    RunWriter(store, "Made", f"17954726830000{number:02}", GRAPH).close()
    return RunRecord(FlowPlace(open_store(store), "Made"), f"17954726830000{number:02}")


def test_a_journal_can_be_read_while_its_file_is_being_closed(tmp_path, monkeypatch):
    """It leaves the cache, and another thread asks at that moment: the file is opened anew."""
    record, *others = (
        written(tmp_path / "store", number) for number in range(1 + (_warm.maxlen or 0))
    )
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
