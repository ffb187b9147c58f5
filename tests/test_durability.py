"""`durability`: what is synced before anybody is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import pytest

from asyncflow import Engine, FlowSpec, events, step
from asyncflow.errors import SettingsError
from asyncflow.settings import Settings
from asyncflow.store import journal as journal_module
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.journal import JournalWriter
from asyncflow.store.layout import Layout


class Sizes(FlowSpec):
    """A value inline, one in a segment, one in a blob."""

    @step
    def start(self):
        self.inline, self.segment, self.blob = b"1", os.urandom(9_000), os.urandom(300_000)
        self.next(self.end)

    @step
    def end(self):
        pass


class Synced(list[str]):
    """Paths; `sizes` has how much of each is on the disk itself."""

    def __init__(self):
        super().__init__()
        self.sizes = {}


@pytest.fixture
def synced(monkeypatch):
    """The files and folders that this process has synced, in order, and how large they were."""
    seen = Synced()

    def watch(real):
        def sync(descriptor):
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            seen.append(path)
            size = os.fstat(descriptor).st_size
            real(descriptor)
            seen.sizes[path] = size

        return sync

    monkeypatch.setattr(os, "fsync", watch(os.fsync))
    for module in ("journal", "segments", "blobs"):
        name = f"asyncflow.store.{module}.sync_file"
        monkeypatch.setattr(name, watch(os.fdatasync))
    return seen


def test_a_durable_journal_is_synced_with_each_write(tmp_path, synced):
    """When `write` returns, the record is on the disk itself."""
    writer = JournalWriter.create(tmp_path / "journal", durable=True)
    for count in range(2, 4):
        writer.write(journal_module.frame(b"x"))
        assert synced.count(str(tmp_path / "journal")) == count - 1
    writer.close()


@pytest.mark.parametrize("durable", [True, False])
def test_values_are_synced_before_their_task_is_told_of(store, synced, durable):
    """Segment, blob and their folders are on the disk itself; without `durable` none is."""
    layout = Layout.open(store, create=True)
    run = layout.create_run("Flow")
    del synced[:]
    with ArtifactWriter(layout, "Flow", run, "w1", durable=durable) as writer:
        ref = writer.put(os.urandom(300_000))
        writer.put(os.urandom(9_000))
        writer.sync()
    blob = layout.blob(ref.digest)
    wanted = {f"{layout.run_dir('Flow', run)}/w1.seg", str(Path(blob).parent), str(layout.blobs)}
    assert wanted <= set(synced) if durable else not synced


def test_a_blob_that_is_there_already_is_synced_all_the_same(store, synced):
    """Whoever put it first may not have."""
    layout = Layout.open(store, create=True)
    run = layout.create_run("Flow")
    value = os.urandom(300_000)
    with ArtifactWriter(layout, "Flow", run, "w1") as writer:
        ref = writer.put(value)
    del synced[:]
    with ArtifactWriter(layout, "Flow", run, "w2", durable=True) as writer:
        writer.put(value)
    assert layout.blob(ref.digest) in synced


async def test_a_run_with_durability_power_ends_like_any_other(store):
    """Only what is waited for differs."""
    settings = Settings(store=store, workers=1, durability="power")
    async with Engine(settings=settings) as engine:
        run = await engine.run(Sizes)
    assert run.successful
    assert len(run.data.blob) == 300_000


class Waits(FlowSpec):
    """Tells something, and then nothing for as long as nobody stops it."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        while True:
            time.sleep(0.01)


async def test_the_journal_of_a_run_that_is_silent_is_synced_too(store, synced):
    """What was written last does not wait for what comes next."""
    settings = Settings(store=store, workers=1, sync_seconds=0.05)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Waits)
        journal = str(Layout(store).run_dir("Waits", handle.run_id) / "journal")
        async for event in handle.events():
            if isinstance(event, events.TaskStarted) and event.step == "end":
                break
        written = Path(journal).stat().st_size
        while synced.sizes.get(journal, 0) < written:  # noqa: ASYNC110 - a thread's
            await anyio.sleep(0.01)
        handle.cancel()


def test_another_durability_is_refused():
    """The error says what there is."""
    with pytest.raises(SettingsError, match="'crash' or 'power'"):
        Settings(durability="forever")
