"""Sends what a dead program has written to a journal on this machine and not sent any more.

Its values are in the store already: they are sent before a record names them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from asyncflow._support.commit_points import reached
from asyncflow.store.interface import Sent
from asyncflow.store.journal import FIRST_RECORD, JournalReader
from asyncflow.store.object_store.claim import CLAIM, look_at
from asyncflow.store.object_store.piece_file import PieceFile
from asyncflow.store.object_store.sent_journal import (
    JOURNAL,
    PieceSender,
    RunEndedError,
    Unsent,
    note_sent,
    unsent_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.store.local_store import LocalRun, LocalStore
    from asyncflow.store.object_store.objects import Objects


def send_rest(objects: Objects, cache: LocalStore, flow: str = "", run_id: str = "") -> list[Sent]:
    """Send what is left of the journals of one run, or of all.

    Raises:
        JournalError: A journal is damaged.
        OSError: The store refuses, or does not answer.
    """
    done = []
    for run in [cache.run(flow, run_id)] if run_id else _all_runs(cache):
        unsent = unsent_in(run.place)
        if unsent is not None and not run.is_being_written():
            done.append(_send_rest_of(objects, cache, run, unsent))
    return done


def _all_runs(cache: LocalStore) -> Iterator[LocalRun]:
    for flow in cache.flows():
        for run_id in cache.runs(flow):
            yield cache.run(flow, run_id)


def _send_rest_of(objects: Objects, cache: LocalStore, run: LocalRun, unsent: Unsent) -> Sent:
    folder = os.fspath(Path(run.place).relative_to(cache.root))
    pieces = PieceFile(objects, f"{folder}/{JOURNAL}")
    pieces.refresh(now=True)
    before, writer = pieces.size, unsent.writer
    end = _end_of_records(run)
    sent = dropped = 0
    if before and pieces.last_writer() != writer:
        before = 0  # nothing of it is in the store
    if before < end:
        sender = PieceSender(objects, pieces.folder, writer, run.journal_place, before)
        try:
            if unsent.has_begun and not pieces.size:
                raise sender.ended_by_others()  # by removing it
            while sender.sent < end:
                sender.send_one(end)
        except RunEndedError:
            # What is in the store is the run's journal, and this one is nobody's.
            dropped = end - sender.sent
            reached("unsent.drop")
            Path(run.journal_place).unlink()
        sent = sender.sent - before
    claim = f"{folder}/{CLAIM}"
    seen = look_at(objects, claim)
    if seen is not None and seen.writer == writer.hex():
        objects.delete([claim])
    note_sent(run.place)
    return Sent(run.pathspec, sent, dropped)


def _end_of_records(run: LocalRun) -> int:
    """Where the last whole record ends; 0 if the run was never announced."""
    try:
        with JournalReader(run.journal_place) as journal:
            end = 0
            for _, _, after in journal.read_from(FIRST_RECORD):
                end = after
            return end
    except FileNotFoundError:
        return 0
