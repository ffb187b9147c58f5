"""Values in an object store: written through one machine's cache, and read through another's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from asyncflow.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    AsyncflowError,
    SettingsError,
    StoreError,
)
from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.object_store import uploader as uploading
from asyncflow.store.object_store import value_source
from asyncflow.store.object_store.node_cache import NodeCache, mapped_inodes
from asyncflow.store.object_store.node_segment import NodeSegment
from asyncflow.store.object_store.piece_file import PieceFile
from asyncflow.store.object_store.uploader import Uploader
from asyncflow.store.object_store.value_sink import NodeSink
from asyncflow.store.object_store.value_source import CachedValues, blob_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

pytestmark = pytest.mark.cluster

LARGE = np.arange(200_000)


class Machine:
    """A machine with a cache of its own, which counts its requests."""

    def __init__(self, client: Any, folder: Path, node: str, most_bytes: int = 0) -> None:
        from asyncflow.store.object_store.objects import Objects

        self.asked: Counter[str] = Counter()
        self.objects = Objects(lambda: client, "memory://store", patience_seconds=0.3)
        for name in ("get", "get_range", "stream", "listed", "put_file", "create", "head"):
            setattr(self.objects, name, self._counting(name, getattr(self.objects, name)))
        self.cache = NodeCache(str(folder), most_bytes=most_bytes)
        self.node = node
        self.uploader = Uploader(self.cache, self.objects, node)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.asked[name] += 1
            return function(*arguments, **options)

        return counted

    def sink(self, tell: Any = None, run: str = "1") -> NodeSink:
        return NodeSink(self.cache, "F", run, self.node, tell or self.uploader.upload)

    def writer(self, tell: Any = None, run: str = "1") -> ArtifactWriter:
        return ArtifactWriter(self.sink(tell, run))

    def source(self) -> CachedValues:
        return CachedValues(self.cache, self.objects, "F")

    def reader(self) -> ArtifactReader:
        return ArtifactReader(self.source())

    def another_process(self) -> None:
        """Forget what this process knows, but not the cache."""
        self.asked.clear()


@pytest.fixture
def machine(tmp_path: Path) -> Generator[Callable[..., Machine], None, None]:
    """Makes machines with one store and a cache each."""
    from obstore.store import MemoryStore

    client = MemoryStore()
    made: list[Machine] = []

    def make(most_bytes: int = 0) -> Machine:
        number = len(made)
        made.append(Machine(client, tmp_path / str(number), f"node{number}", most_bytes))
        return made[-1]

    yield make
    for each in made:
        each.uploader.close()


def values() -> list[Any]:
    """Of each kind of place: inline, in a segment, in a blob."""
    return [7, "x" * 20_000, b"y" * 300_000, LARGE, {"a": LARGE, "b": "z" * 5000}]


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same, arrays included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return bool(np.array_equal(one, other))


def test_another_machine_reads_what_was_written(machine: Callable[..., Machine]) -> None:
    """Values of all sizes, and items of a foreach."""
    here, there = machine(), machine()
    writer = here.writer()
    refs = [writer.put(value) for value in values()]
    count, items = writer.put_items(range(1000))
    _, many = writer.put_items([bytes([n % 256]) * 5000 for n in range(1000)])
    writer.sync()
    reader = there.reader()
    for value, ref in zip(values(), refs, strict=True):
        assert equal(reader.load(ref).value, value)
    assert (count, reader.load_item(items, 567)) == (1000, 567)
    assert reader.load_item(many, 567) == bytes([567 % 256]) * 5000


def test_the_machine_that_wrote_asks_for_nothing(machine: Callable[..., Machine]) -> None:
    """Its cache has everything."""
    here = machine()
    writer = here.writer()
    refs = [writer.put(value) for value in values()]
    writer.sync()
    here.asked.clear()
    for value, ref in zip(values(), refs, strict=True):
        assert equal(here.reader().load(ref).value, value)
    assert not here.asked


def test_what_a_machine_has_read_is_fetched_once(machine: Callable[..., Machine]) -> None:
    """For all its processes, which may read at the same time."""
    here, there = machine(), machine()
    writer = here.writer()
    refs = [writer.put(value) for value in values()] + [writer.put("w" * 9000)]
    writer.sync()

    def read() -> None:
        reader = there.reader()  # knows as little as one of another process
        for ref in refs:
            reader.load(ref)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there.asked["stream"] == 3
    assert there.asked["get"] == 1


def test_many_small_values_share_a_few_requests(machine: Callable[..., Machine]) -> None:
    """To write them and to read them."""
    here, there = machine(), machine()
    writer = here.writer()
    refs = [writer.put(bytes([n % 256]) * 20_000) for n in range(1000)]
    writer.sync()
    assert here.asked["create"] <= 6
    reader = there.reader()
    assert all(reader.load(ref).value[0] == n % 256 for n, ref in enumerate(refs))
    assert there.asked["get"] <= 6
    assert there.asked["listed"] <= 2


def test_values_that_come_one_after_the_other_share_packs(machine: Callable[..., Machine]) -> None:
    """Nobody waits long for the first, and a put is not for one value."""
    here = machine()
    told: list[Any] = []
    writer = here.writer(lambda *what: told.append(here.uploader.add(*what)))
    for n in range(200):
        writer.put(bytes([n]) * 2000)
        writer.sync()
        time.sleep(0.002)
    while not all(upload.is_done for upload in told):
        time.sleep(0.01)
    assert not any(upload.error for upload in told)
    assert here.asked["create"] <= 20


def test_values_that_nobody_will_add_to_are_stored_at_once(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they would wait for company else, and whatever is on its way."""
    for name in ("_QUIET_SECONDS", "_OLD_SECONDS"):
        monkeypatch.setattr(f"asyncflow.store.object_store.uploader.{name}", 1e6)
    here, told = machine(), list[Any]()
    writer = here.writer(lambda *what: told.append(here.uploader.add(*what)))
    for n in range(3):
        writer.put(bytes([n]) * 2000)
        writer.sync()
        assert not told[-1].is_done
        here.uploader.hurry()
        while not told[-1].is_done:
            time.sleep(0.001)
    assert here.asked["create"] == 3


def test_values_that_are_hurried_again_and_again_share_packs(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes while such a pack is on its way waits for that, and not each for itself."""
    here, told = machine(), list[Any]()
    create, may_go = here.objects.create, threading.Event()

    def slowly(*what: Any) -> Any:
        assert may_go.wait(60)
        return create(*what)

    monkeypatch.setattr(here.objects, "create", slowly)
    monkeypatch.setattr("asyncflow.store.object_store.uploader._OLD_SECONDS", 1e6)
    writer = here.writer(lambda *what: told.append(here.uploader.add(*what)))
    for n in range(50):
        writer.put(bytes([n]) * 2000)
        writer.sync()
        here.uploader.hurry()
    may_go.set()
    while not all(upload.is_done for upload in told):
        here.uploader.hurry()
        time.sleep(0.001)
    assert here.asked["create"] <= 3


def test_a_blob_that_the_store_has_is_not_uploaded_again(machine: Callable[..., Machine]) -> None:
    """By this machine or by another."""
    here, there = machine(), machine()
    for each in (here, here, there):
        writer = each.writer()
        writer.put(LARGE)
        writer.sync()
    assert (here.asked["put_file"], here.asked["head"]) == (1, 1)
    assert (there.asked["put_file"], there.asked["head"]) == (0, 1)


def test_a_part_of_a_very_large_value_is_read_without_the_rest(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item of a foreach, for example."""
    monkeypatch.setattr(value_source, "WHOLE_BYTES", 1 << 20)
    here, there = machine(), machine()
    writer = here.writer()
    _, ref = writer.put_items([bytes([n % 256]) * 50_000 for n in range(500)])
    writer.sync()
    assert ref.size > 20 << 20
    reader = there.reader()
    for index in (3, 4, 5, 499):
        assert reader.load_item(ref, index) == bytes([index % 256]) * 50_000
    assert there.asked["get_range"] <= 3
    assert there.asked["stream"] == 0


# --- what is damaged or gone ---


def test_a_copy_that_is_damaged_is_fetched_again(machine: Callable[..., Machine]) -> None:
    """The value in the store counts."""
    here, there = machine(), machine()
    writer = here.writer()
    blob, small = writer.put(LARGE), writer.put("x" * 20_000)
    writer.sync()
    for ref in (blob, small):
        there.reader().load(ref)
    copies = [path for path in Path(there.cache.folder).rglob("*") if path.stat().st_size > 9000]
    for path in copies:
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(bytes(path.stat().st_size))
    assert equal(there.reader().load(blob).value, LARGE)
    reader = there.reader()
    with pytest.raises(ArtifactCorruptError):
        reader.load(small)
    assert reader.load(small).value == "x" * 20_000


def test_a_value_that_is_damaged_in_the_store_is_an_error(machine: Callable[..., Machine]) -> None:
    """It names the object."""
    here, there = machine(), machine()
    writer = here.writer()
    blob, small = writer.put(LARGE), writer.put("x" * 20_000)
    writer.sync()
    for facts in list(here.objects.listed("")):
        data = bytearray(here.objects.get(facts.name))
        data[len(data) // 2] ^= 1
        here.objects.put(facts.name, bytes(data))
    for ref, name in ((blob, blob_name(blob.digest)), (small, "flows/F/1/node0.seg")):
        with pytest.raises(ArtifactCorruptError, match=name):
            there.reader().load(ref, "art")


def test_a_value_that_is_gone_is_an_error(machine: Callable[..., Machine]) -> None:
    """It names the object, and the artifact."""
    here, there = machine(), machine()
    writer = here.writer()
    refs = [writer.put(LARGE), writer.put("x" * 20_000)]
    writer.sync()
    here.objects.delete([facts.name for facts in here.objects.listed("")])
    for ref in refs:
        with pytest.raises(ArtifactMissingError, match=r"'art'.*memory://store/"):
            there.reader().load(ref, "art")


def test_no_value_is_told_of_whose_upload_fails(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error; once the store answers again, all of it is stored."""
    here, there = machine(), machine()
    create, put = here.objects.create, here.objects.put_file

    def refuse(*_: Any) -> None:
        raise OSError(5, "no answer")

    monkeypatch.setattr(here.objects, "create", refuse)
    monkeypatch.setattr(here.objects, "put_file", refuse)
    writer = here.writer()
    refs = [writer.put(LARGE), writer.put("x" * 20_000)]
    with pytest.raises(StoreError, match="no answer"):
        writer.sync()
    monkeypatch.setattr(here.objects, "create", create)
    monkeypatch.setattr(here.objects, "put_file", put)
    refs.append(writer.put("y" * 20_000))
    writer.sync()
    assert [
        equal(there.reader().load(ref).value, value)
        for ref, value in zip(refs, [LARGE, "x" * 20_000, "y" * 20_000], strict=True)
    ] == [True] * 3
    assert here.uploader.waiting_bytes == 0


def test_packs_that_fail_leave_no_gap(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later pack may be stored before an earlier one, which is put again with more."""
    monkeypatch.setattr(uploading, "PACK_BYTES", 50_000)
    here, there = machine(), machine()
    create, calls = here.objects.create, iter(range(10_000))

    def every_third(name: str, data: bytes) -> Any:
        if next(calls) % 3 == 1:
            raise OSError(5, "no answer")
        return create(name, data)

    monkeypatch.setattr(here.objects, "create", every_third)
    writer = here.writer()
    refs = [writer.put(os.urandom(10_000)) for _ in range(100)]
    for _ in range(100):
        try:
            writer.sync()
        except StoreError:
            continue
        break
    reader = there.reader()
    mine = here.reader()
    assert all(reader.load(ref).value == mine.load(ref).value for ref in refs)


# --- one file of several processes ---


@pytest.mark.parametrize("name", ["asyncflow-packs", "asyncflow-upload"])
def test_values_are_stored_once_there_is_a_thread(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The system starts none for the first try, which is an error; the next one stores them."""
    one, start, refused = machine("a"), threading.Thread.start, list[str]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name.startswith(name) and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    sink = one.sink()
    file, offset = sink.append(b"value")
    with pytest.raises(AsyncflowError, match="thread"):
        sink.sync()
    assert len(refused) == 1
    assert one.uploader.waiting_bytes == 0
    sink.sync()
    stored = PieceFile(one.objects, f"flows/F/{file}")
    stored.refresh()
    assert b"value" in stored.read(100, offset)


def test_processes_share_a_segment(tmp_path: Path) -> None:
    """Each of them knows where its own bytes are."""
    code = (
        "import os, sys\n"
        "from asyncflow.store.local_store import LocalStore\n"
        "from asyncflow.store.object_store.node_segment import NodeSegment\n"
        "segment = NodeSegment(LocalStore.open(sys.argv[1], create=True), 'F', '1', 'node')\n"
        "for n in range(500):\n"
        "    data = os.urandom(1 + n * 37 % 30_000)\n"
        "    print(segment.append(data), data[:8].hex(), data[-8:].hex(), len(data))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    lines = [line for each in processes for line in each.communicate()[0].decode().splitlines()]
    data = (tmp_path / "flows/F/1/node.seg").read_bytes()
    assert len(lines) == 2000
    total = 0
    for line in lines:
        offset, first, last, size = line.split()
        value = data[int(offset) : int(offset) + int(size)]
        assert (value[:8].hex(), value[-8:].hex()) == (first, last)
        total += int(size)
    assert len(data) == total


def test_a_segment_continues_after_it_was_closed(tmp_path: Path) -> None:
    """At its end."""
    from asyncflow.store.local_store import LocalStore

    segment = NodeSegment(LocalStore.open(tmp_path, create=True), "F", "1", "node")
    assert segment.append(b"12345") == 0
    segment.close()
    assert segment.append(b"67") == 5


# --- room in the cache ---


def size_of(cache: NodeCache) -> int:
    """The bytes of all files of a cache."""
    return sum(path.stat().st_size for path in Path(cache.folder).rglob("*") if path.is_file())


def test_a_cache_keeps_to_its_size(machine: Callable[..., Machine]) -> None:
    """What was not used for longest goes; what is needed again is fetched again."""
    here, there = machine(), machine(most_bytes=3_000_000)
    writer = here.writer()
    blobs = [writer.put(os.urandom(300_000)) for _ in range(30)]
    writer.sync()
    reader = there.reader()
    first = blobs[0]
    for ref in blobs:
        reader.load(first)
        there.cache._noted.clear()  # as if a minute had passed
        reader.load(ref)
    assert size_of(there.cache) < 3_600_000
    there.asked.clear()
    there.reader().load(first)
    assert there.asked["stream"] == 0
    there.reader().load(blobs[1])
    assert there.asked["stream"] == 1


def test_what_is_mapped_stays_in_a_cache(machine: Callable[..., Machine]) -> None:
    """Deleting it would free nothing, and the next reader would fetch it again."""
    here, there = machine(), machine(most_bytes=1_000_000)
    writer = here.writer()
    blob = writer.put(LARGE)
    writer.sync()
    array = there.reader().load(blob).value
    status = Path(there.cache.local.blob(blob.digest)).stat()
    assert (status.st_dev, status.st_ino) in mapped_inodes()
    there.cache.make_room()
    assert Path(there.cache.local.blob(blob.digest)).exists()
    del array
    there.cache.make_room()
    assert not Path(there.cache.local.blob(blob.digest)).exists()


def test_what_is_not_uploaded_stays_in_a_cache(machine: Callable[..., Machine]) -> None:
    """However full it is, for as long as somebody lives who will upload it."""
    here, there = machine(most_bytes=100_000), machine()
    told: list[Any] = []
    writer = here.writer(lambda *what: told.append(what))
    blob, small = writer.put(LARGE), writer.put("x" * 200_000)
    writer.sync()
    here.cache.make_room()
    assert told[0][1] > 0
    here.uploader.upload(*told[0])
    assert equal(there.reader().load(blob).value, LARGE)
    assert there.reader().load(small).value == "x" * 200_000
    until = time.monotonic() + 10
    while Path(here.cache.local.blob(blob.digest)).exists() and time.monotonic() < until:
        here.cache.make_room()  # unless the uploader is about to
    assert not Path(here.cache.local.blob(blob.digest)).exists()
    assert equal(here.reader().load(blob).value, LARGE)


def test_what_the_dead_have_left_goes(machine: Callable[..., Machine]) -> None:
    """Nobody was told of it."""
    here = machine(most_bytes=100_000)
    writer = here.writer(lambda *what: None)
    blob = writer.put(LARGE)
    writer.put("x" * 200_000)
    here.uploader.close()
    here.cache.make_room()
    assert not Path(here.cache.local.blob(blob.digest)).exists()
    assert size_of(here.cache) < 100_000


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_a_size_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """The error names the variable."""
    monkeypatch.setenv("ASYNCFLOW_CACHE_BYTES", given)
    with pytest.raises(SettingsError, match=f"ASYNCFLOW_CACHE_BYTES .*'{given}'"):
        NodeCache(str(tmp_path / "cache"))
