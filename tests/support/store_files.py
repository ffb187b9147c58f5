"""Single files and values of a store, in whatever folder a test has them."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.folders import Folder
from asyncflow.store.journal import JournalWriter
from asyncflow.store.local_store import LocalStore
from asyncflow.store.segments import SegmentWriter

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.store.layout import Layout


def begin_journal(path: Path, *, durable: bool = False) -> JournalWriter:
    """The writer of a new journal at this path."""
    with Folder.open(os.fspath(path.parent)) as folder:
        return JournalWriter.create(folder, path.name, durable=durable)


def segment_at(path: Path) -> SegmentWriter:
    """The writer of a segment at this path."""
    return SegmentWriter(path, partial(Folder.open, os.fspath(path.parent)))


def writer_of(
    layout: Layout, flow: str, run_id: str, name: str, *, durable: bool = False
) -> ArtifactWriter:
    """Stores the values of a run."""
    run = LocalStore(layout.root).run(flow, run_id)
    return ArtifactWriter(run.value_sink(name, durable=durable))


def reader_of(layout: Layout, flow: str) -> ArtifactReader:
    """Reads the values of a flow."""
    return ArtifactReader(LocalStore(layout.root).value_source(flow))
