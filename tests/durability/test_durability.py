"""`durability`: what is synced before anybody is told."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from asyncflow import Engine, FlowSpec, codec, events, step
from asyncflow._support.settings import Settings
from asyncflow.engine.subscription import Channel
from asyncflow.errors import SettingsError, StoreError
from asyncflow.events.records import REFERRING, code_of, fields_of, references_of
from asyncflow.store import journal as journal_module
from asyncflow.store.blobs import BlobStore
from asyncflow.store.frames import frame
from asyncflow.store.journal import JournalReader
from asyncflow.store.layout import Layout
from asyncflow.values import Place
from tests.support.store_files import begin_journal, writer_of
from tests.support.syncing_flow import Disk, Syncing, watch


class Sizes(FlowSpec):
    """A value inline, one in a segment, one in a blob."""

    @step
    def start(self):
        self.inline, self.segment, self.blob = b"1", b"2" * 9_000, b"3" * 300_000
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
    writer = begin_journal(tmp_path / "journal", durable=True)
    for count in range(2, 4):
        writer.write(frame(b"x"))
        assert synced.count(str(tmp_path / "journal")) == count - 1
    writer.close()


@pytest.mark.parametrize("durable", [True, False])
def test_values_are_synced_before_their_task_is_told_of(store, synced, durable):
    """Segment, blob and their folders are on the disk itself; without `durable` none is."""
    layout = Layout.open(store, create=True)
    run = layout.create_run("Flow")
    del synced[:]
    with writer_of(layout, "Flow", run, "w1", durable=durable) as writer:
        ref = writer.put(os.urandom(300_000))
        writer.put(os.urandom(9_000))
        writer.sync()
    blob = layout.blob(ref.digest)
    wanted = {f"{layout.run_dir('Flow', run)}/w1.seg", str(Path(blob).parent), str(layout.blobs)}
    assert wanted <= set(synced) if durable else not synced


def test_the_folders_above_the_shards_are_synced_once(store, synced):
    """Each blob costs two syncs, of its file and of its shard; the disk is slow at these."""
    layout = Layout.open(store, create=True)
    values = BlobStore(layout, durable=True)
    del synced[:]
    digests = [values.put_new([os.urandom(300_000)], 300_000) for _ in range(20)]
    above = [str(layout.blobs), str(layout.root)]
    assert [synced.count(path) for path in above] == [1, 1]
    shards = [str(Path(layout.blob(digest)).parent) for digest in digests]
    assert Counter(shards) <= Counter(synced)
    assert len(synced) == 2 * len(digests) + len(above)
    folders = {each.name for each in layout.blobs.iterdir()}
    assert folders == {"new"} | {f"{first:02x}" for first in range(256)}  # none is made later


def test_a_process_makes_only_the_folders_of_blobs_that_are_missing(store, monkeypatch):
    """Its first blob that has to survive a power cut would else cost 256 calls of the system."""
    layout = Layout.open(store, create=True)
    BlobStore(layout, durable=True).put_new([os.urandom(300_000)], 300_000)
    missing = next(each for each in layout.blobs.glob("??") if not any(each.iterdir()))
    missing.rmdir()
    made, mkdir = [], os.mkdir

    def make(name, *args, **more):
        made.append(name)
        mkdir(name, *args, **more)

    monkeypatch.setattr("asyncflow.store.synced_folders._synced", {})  # as in another process
    monkeypatch.setattr(os, "mkdir", make)
    BlobStore(layout, durable=True).put_new([os.urandom(300_000)], 300_000)
    assert made == [missing.name]


def test_a_blob_that_is_stored_is_replaced_only_by_one_that_is_synced(store, monkeypatch):
    """Two processes store the same value at once, and events of one name it already."""
    layout = Layout.open(store, create=True)
    blobs, data = BlobStore(layout, durable=True), os.urandom(300_000)
    with blobs.writer() as late:
        late.write_and_hash([data])
        path = Path(layout.blob(blobs.put_new([data], len(data))))
        first, there = path.stat().st_ino, []

        def sync(descriptor):
            there.append(path.stat().st_ino)
            os.fdatasync(descriptor)

        monkeypatch.setattr("asyncflow.store.blobs.sync_file", sync)
        late.commit(late.digest)
    assert there == [first]
    assert path.stat().st_ino != first
    assert path.read_bytes() == data


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_blob_whose_bytes_the_disk_refuses_is_not_there(store, monkeypatch, is_taken):
    """A second sync of the same file might succeed, although its bytes are lost."""
    layout = Layout.open(store, create=True)
    blobs, data = BlobStore(layout, durable=True), os.urandom(300_000)
    path = Path(layout.blob(codec.digest(data)))
    if is_taken:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"damaged")

    def refuse(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr("asyncflow.store.blobs.sync_file", refuse)
        with pytest.raises(StoreError, match="Input/output error"):
            blobs.put_new([data], len(data))
    left = [each.read_bytes() for each in layout.blobs.rglob("*") if each.is_file()]
    assert left == [b"damaged"] * is_taken
    blobs.put_new([data], len(data))
    assert path.read_bytes() == data


def test_a_blob_is_stored_where_there_are_no_hard_links(store, monkeypatch, synced):
    """It is synced before it gets its name."""

    def refuse(*_, **__):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    layout = Layout.open(store, create=True)
    data = os.urandom(300_000)
    digest = BlobStore(layout, durable=True).put_new([data], len(data))
    path = Path(layout.blob(digest))
    assert path.read_bytes() == data
    draft, shard, *_ = synced[-4:]
    assert Path(draft).parent == layout.blobs / "new"
    assert shard == str(path.parent)


def test_a_folder_of_blobs_that_was_made_anew_is_synced_again(store, synced):
    """Somebody may delete all blobs while a worker lives. A new folder may have the old number."""
    layout = Layout.open(store, create=True)
    values = BlobStore(layout, durable=True)
    for _ in range(2):
        del synced[:]
        digest = values.put_new([os.urandom(300_000)], 300_000)
        assert {str(Path(layout.blob(digest)).parent), str(layout.blobs)} <= set(synced)
        shutil.rmtree(layout.blobs)


def test_a_blob_that_is_there_already_is_synced_all_the_same(store, synced):
    """Whoever put it first may not have."""
    layout = Layout.open(store, create=True)
    run = layout.create_run("Flow")
    value = os.urandom(300_000)
    with writer_of(layout, "Flow", run, "w1") as writer:
        ref = writer.put(value)
    del synced[:]
    with writer_of(layout, "Flow", run, "w2", durable=True) as writer:
        writer.put(value)
    assert layout.blob(ref.digest) in synced


async def test_a_run_with_durability_power_ends_like_any_other(tmp_path):
    """Only what is waited for differs: the same events, the same values, in the same places."""
    ended = []
    for durability in ("crash", "power"):
        settings = Settings(store=tmp_path / durability, workers=1, durability=durability)
        async with Engine(settings=settings) as engine:
            run = await engine.run(Sizes)
        refs = run["start"].task.artifacts
        kinds = [type(event) for event in run.events()]
        ended.append((run.status, kinds, [(a.id, a.sha, a.data, a.size) for a in refs]))
    assert ended[0] == ended[1]
    assert len(ended[0][2]) == 3


async def test_with_power_all_that_is_told_would_outlive_a_power_cut(store, tmp_path, monkeypatch):
    """Whenever records are told: they, the values that they name, and all names on the way."""
    log, told = tmp_path / "synced", []
    monkeypatch.setenv("SYNCED", str(log))
    watch(str(log), monkeypatch.setattr)
    publish = Channel.publish

    def noting(channel, news, size):
        told.append((size, log.stat().st_size))
        publish(channel, news, size)

    monkeypatch.setattr(Channel, "publish", noting)
    settings = Settings(store=store, workers=2, durability="power")
    async with Engine(settings=settings) as engine:
        run = await engine.run(Syncing)
    synced, layout = log.read_bytes(), Layout(store)
    journal = layout.run_dir("Syncing", run.id) / "journal"
    needed = [(end, wanted(layout, record)) for record, end in records(journal)]
    places = Counter(path.parent.parent.name for _, files in needed for path in files)
    assert sorted(places) == ["Syncing", "blobs"]
    begun = 0
    for size, upto in told:
        disk = Disk(synced[:upto])
        assert disk.size(journal, tmp_path) >= size
        assert disk.size(store / "format", tmp_path) > 0
        for end, files in needed:
            if begun < end <= size:
                left = {path: disk.size(path, tmp_path) for path in files}
                assert {path: left[path] for path in files if left[path] < files[path]} == {}
        begun = size
    assert begun == needed[-1][0]


def records(journal):
    """The records of a journal, and where each ends."""
    with JournalReader(journal) as reader:
        return [(record, end) for _, record, end in reader.read_from()]


def wanted(layout, record):
    """The files that a record needs, and how many bytes of each."""
    sizes: Counter[Path] = Counter()
    for _, ref in references_of(fields_of(record)) if code_of(record) in REFERRING else ():
        if ref.place == Place.BLOB:
            sizes[Path(layout.blob(ref.digest))] = ref.size
        elif ref.place == Place.SEGMENT:
            path = layout.flow_dir("Syncing") / ref.file
            sizes[path] = max(sizes[path], ref.offset + ref.size)
    return sizes


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


async def test_what_is_written_while_a_slow_disk_syncs_is_synced_after_that(
    store, synced, monkeypatch
):
    """Also when nothing comes in any more."""
    go, busy = threading.Event(), threading.Event()
    sync = vars(journal_module)["sync_file"]

    def slow(descriptor):
        sync(descriptor)
        busy.set()
        go.wait(180)

    monkeypatch.setattr(journal_module, "sync_file", slow)
    settings = Settings(store=store, workers=1, sync_seconds=0.05)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Waits)
        journal = str(Layout(store).run_dir("Waits", handle.run_id) / "journal")
        async for event in handle.events():
            if isinstance(event, events.TaskStarted) and event.step == "end":
                break
        written = Path(journal).stat().st_size
        assert busy.wait(180)
        await anyio.sleep(0.3)  # the next sync is due meanwhile, and cannot begin
        assert synced.sizes[journal] < written
        go.set()
        with anyio.fail_after(180):
            while synced.sizes[journal] < written:  # noqa: ASYNC110 - a thread's
                await anyio.sleep(0.01)
        handle.cancel()


def test_another_durability_is_refused():
    """The error says what there is."""
    with pytest.raises(SettingsError, match="'crash' or 'power'"):
        Settings(durability="forever")
