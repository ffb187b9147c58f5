from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from asyncflow import codec
from asyncflow.codec import Chunk
from asyncflow.errors import ArtifactCorruptError, ArtifactMissingError, StoreError
from asyncflow.store import blobs as blobs_module
from asyncflow.store.blobs import TOUCH_SECONDS, BlobStore, verified
from asyncflow.store.layout import Layout
from tests.support.leftovers import running_threads

DATA = b"some bytes " * 500
DIGEST = codec.digest(DATA)


@pytest.fixture
def layout(store: Path) -> Layout:
    """The layout of this test's store."""
    return Layout.open(store, create=True)


@pytest.fixture
def blobs(layout: Layout) -> BlobStore:
    """A process that has verified nothing yet."""
    verified.clear()
    return BlobStore(layout)


def files(layout: Layout) -> list[str]:
    """Every file below blobs, relative to it."""
    paths = (path for path in layout.blobs.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(layout.blobs)) for path in paths)


def path_of(layout: Layout, digest: bytes = DIGEST) -> Path:
    """The file of a blob."""
    return Path(layout.blob(digest))


def name_of(digest: bytes = DIGEST) -> str:
    """The same relative to the folder of all blobs."""
    return f"{digest.hex()[:2]}/{digest.hex()}"


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what is hashed from now on."""
    seen: list[int] = []
    digest_of = codec.digest_of

    def counted(chunks, size):
        seen.append(size)
        return digest_of(chunks, size)

    monkeypatch.setattr(blobs_module, "digest_of", counted)
    return seen


# --- writing ----------------------------------------------------------------------------------


def test_a_blob_is_a_file_named_by_its_hash(layout, blobs):
    """Its bytes and nothing else, read-only, and no draft beside it."""
    assert blobs.put([DATA[:10], DATA[10:]], DIGEST, len(DATA)) is True
    assert files(layout) == [name_of()]
    assert path_of(layout).read_bytes() == DATA
    assert path_of(layout).stat().st_mode & 0o777 == 0o400
    assert bytes(blobs.open(DIGEST, len(DATA))) == DATA


def test_equal_bytes_are_stored_once(layout, blobs):
    """Putting what is there writes nothing."""
    blobs.put([DATA], DIGEST, len(DATA))
    before = path_of(layout).stat()
    assert blobs.put([DATA], DIGEST, len(DATA)) is False
    assert path_of(layout).stat() == before
    assert BlobStore(layout).put_new([DATA], len(DATA)) == DIGEST
    assert path_of(layout).stat() == before


def test_an_old_blob_that_is_put_again_counts_as_new(layout, blobs):
    """A garbage collection that goes by age spares what a running run has just put."""
    blobs.put([DATA], DIGEST, len(DATA))
    old = time.time() - TOUCH_SECONDS - 60
    os.utime(path_of(layout), (old, old))
    verified.clear()
    assert blobs.put([DATA], DIGEST, len(DATA)) is False
    assert time.time() - path_of(layout).stat().st_mtime < 60


def test_a_blob_that_a_killed_collection_has_left_aside_is_read_from_there(layout, blobs):
    """It was needed after all: nobody has to run another collection to read it."""
    blobs.put([DATA], DIGEST, len(DATA))
    path_of(layout).rename(layout.blob_aside(DIGEST))
    assert bytes(blobs.open(DIGEST, len(DATA))) == DATA


@pytest.mark.parametrize("damage", [DATA[:-1], b"X" + DATA[1:], b""])
def test_a_damaged_blob_that_is_put_again_is_healed(layout, blobs, damage):
    """What is said to be stored is stored: bytes that are there are trusted after a look only."""
    blobs.put([DATA], DIGEST, len(DATA))
    path_of(layout).unlink()
    path_of(layout).write_bytes(damage)
    assert blobs.put([DATA], DIGEST, len(DATA)) is True
    assert path_of(layout).read_bytes() == DATA


def test_a_large_blob_is_hashed_while_it_is_written(layout, blobs, monkeypatch):
    """It gets the same name, and nothing is left of it where it was there already."""
    monkeypatch.setattr(blobs_module, "_TOGETHER_BYTES", 1)
    before = running_threads()
    assert blobs.put_new([DATA[:100], DATA[100:]], len(DATA)) == DIGEST
    written = path_of(layout).stat()
    assert blobs.put_new([DATA], len(DATA)) == DIGEST
    assert path_of(layout).stat() == written
    assert files(layout) == [name_of()]
    assert running_threads() - before == set()


def test_a_blob_of_some_megabytes_is_hashed_in_pieces_as_it_is_written(layout, blobs, hashes):
    """However its chunks are divided; put again, it leaves no second file."""
    array, text = bytearray(os.urandom(700_001)), os.urandom(2 << 20)
    chunks: list[Chunk] = [b"head", memoryview(array), text, b"", b"end"]
    whole = b"head" + array + text + b"end"
    for _ in range(2):
        digest = blobs.put_new(chunks, len(whole))
        assert digest == codec.digest(whole)
        assert files(layout) == [name_of(digest)]
    assert path_of(layout, digest).read_bytes() == whole
    assert not hashes  # never as a whole


def test_a_value_that_changes_while_it_is_stored_has_the_hash_of_its_file(layout, blobs):
    """A thread that a step has left behind may still write to its array."""
    data = bytearray(2 << 20)

    def change() -> None:
        data[:] = os.urandom(len(data))

    digest = blobs.put_new([memoryview(data)], len(data), change)
    stored = path_of(layout, digest).read_bytes()
    assert codec.digest(stored) == digest
    assert stored != bytes(data)


def test_a_hash_that_fails_stores_nothing(layout, blobs, monkeypatch):
    """A thread that runs out of memory does not make up a name."""
    monkeypatch.setattr(blobs_module, "_TOGETHER_BYTES", 1)
    monkeypatch.setattr(blobs_module._Hashing, "_run", lambda self: None)
    with pytest.raises(StoreError, match="could not be hashed"):
        blobs.put_new([DATA], len(DATA))
    assert files(layout) == []


@pytest.mark.parametrize("together", [1, 1 << 30])
def test_a_full_disk_leaves_nothing(layout, blobs, monkeypatch, together):
    """The error tells what to do, and what was written of the blob is gone."""
    monkeypatch.setattr(blobs_module, "_TOGETHER_BYTES", together)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot write to .*; make room there, or choose"):
            blobs.put_new([DATA], len(DATA))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(layout) == []


def test_a_full_disk_is_no_matter_where_the_blob_is_there(layout, blobs, monkeypatch):
    """What need not be written need not fit."""
    monkeypatch.setattr(blobs_module, "_TOGETHER_BYTES", 1)
    blobs.put([DATA], DIGEST, len(DATA))
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    assert blobs.put_new([DATA], len(DATA)) == DIGEST


@pytest.mark.parametrize("call", ["open", "write", "rename", "mkdir"])
def test_whatever_fails_leaves_nothing(layout, blobs, monkeypatch, call):
    """An error of the system becomes one of the store, without a trace of the blob."""

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    if call == "mkdir":
        monkeypatch.setattr(os, "mkdir", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(StoreError, match="Input/output error"):
        blobs.put([DATA], DIGEST, len(DATA))
    monkeypatch.undo()
    assert files(layout) == []
    assert blobs.put([DATA], DIGEST, len(DATA)) is True


def test_a_blob_without_a_commit_is_gone(layout, blobs):
    """A generator that raises while its items are stored leaves nothing."""

    def interrupted() -> None:
        with blobs.writer() as writer:
            writer.write_and_hash([DATA])
            assert len(files(layout)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(layout) == []


def test_a_crash_at_any_line_leaves_a_whole_blob_or_none(layout, blobs):
    """Killed wherever it is, a writer leaves at most a draft, which is in nobody's way."""
    script = """
        import os, sys
        from asyncflow import codec
        from asyncflow.store.blobs import BlobStore
        from asyncflow.store.layout import Layout
        from asyncflow.store import mapped_files
        data = b"some bytes " * 500
        digest = codec.digest(data)
        lines = 0
        while True:
            lines += 1
            child = os.fork()
            if not child:
                left = lines
                def trace(frame, event, arg):
                    global left
                    if event == "line" and "store" in frame.f_code.co_filename:
                        left -= 1
                        if not left:
                            os._exit(1)
                    return trace
                layout = Layout(f"{sys.argv[1]}/{lines}")
                os.makedirs(layout.root)
                sys.settrace(trace)
                BlobStore(layout).put([data[:9], data[9:]], digest, len(data))
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
                break
        print(lines)
        """
    told = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script), layout.root],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    lines = int(told.stdout)
    assert lines > 30
    states = set()
    for line in range(1, lines + 1):
        crashed = Layout(layout.root / str(line))
        left = files(crashed)
        states.add(tuple(each.split("/")[0] for each in left))
        assert len(left) <= 1
        if left == [name_of()]:
            assert path_of(crashed).read_bytes() == DATA
        BlobStore(crashed).put([DATA], DIGEST, len(DATA))
        assert path_of(crashed).read_bytes() == DATA
    assert states == {(), ("new",), (DIGEST.hex()[:2],)}


def test_threads_may_put_the_same_blob_at_once(layout, blobs):
    """All of them succeed, and there is one file."""
    data = [os.urandom(1000) for _ in range(20)]

    def put_all() -> None:
        for each in data:
            blobs.put_new([each], len(each))

    threads = [threading.Thread(target=put_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(layout) == sorted(name_of(codec.digest(each)) for each in data)


# --- reading ----------------------------------------------------------------------------------


def test_no_damage_goes_unnoticed(layout, blobs):
    """Whichever byte is flipped, and wherever the file is cut, reading is an error."""
    blobs.put([DATA[:300]], digest := codec.digest(DATA[:300]), 300)
    path = path_of(layout, digest)
    path.chmod(0o644)
    for at in range(300):
        flipped = bytearray(DATA[:300])
        flipped[at] ^= 1 << at % 8
        for damaged in (flipped, DATA[:at], DATA[:300] + DATA[: at + 1]):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactCorruptError, match="artifact 'model' is damaged") as caught:
                blobs.open(digest, 300, name="model")
            assert caught.value.artifact == "model"
    path.write_bytes(DATA[:300])
    assert blobs.open(digest, 300) == DATA[:300]


def test_a_blob_that_is_gone_is_named(layout, blobs):
    """With the artifact, the file, and what to do."""
    with pytest.raises(ArtifactMissingError, match=r"artifact 'model' cannot be read: .* is gone"):
        blobs.open(DIGEST, len(DATA), name="model")
    with pytest.raises(ArtifactMissingError, match="an artifact"):
        blobs.verify(DIGEST, len(DATA))


def test_a_blob_is_hashed_once_in_a_process(layout, blobs, hashes):
    """Reading again, or reading what this process wrote, costs no second hash."""
    blobs.put([DATA], DIGEST, len(DATA))
    blobs.open(DIGEST, len(DATA))
    assert hashes == []
    verified.clear()
    for _ in range(3):
        BlobStore(layout).open(DIGEST, len(DATA))
    assert hashes == [len(DATA)]


def test_a_file_that_has_changed_is_hashed_again(layout, blobs, hashes):
    """Trust ends with the file's identity: its place, length and times."""
    blobs.put([DATA], DIGEST, len(DATA))
    path = path_of(layout)
    path.chmod(0o644)
    time.sleep(0.02)  # the clock of some file systems ticks that slowly
    with path.open("r+b") as file:
        file.write(b"X")
    with pytest.raises(ArtifactCorruptError, match="another hash"):
        blobs.open(DIGEST, len(DATA))
    path.unlink()
    path.write_bytes(DATA)
    blobs.open(DIGEST, len(DATA))
    assert hashes == [len(DATA)] * 2


def test_verifying_always_hashes(layout, blobs, hashes):
    """Whoever asks to verify does not want to hear of an earlier time."""
    blobs.put([DATA], DIGEST, len(DATA))
    blobs.verify(DIGEST, len(DATA))
    blobs.verify(DIGEST, len(DATA))
    assert hashes == [len(DATA)] * 2


def test_what_a_process_has_verified_is_bounded(monkeypatch, blobs):
    """A process that reads a million blobs does not remember a million."""
    monkeypatch.setattr(blobs_module, "_VERIFIED_BLOBS", 10)
    for number in range(100):
        blobs.put_new([bytes([number]) * 10], 10)
    assert len(verified._seen) == 10


def test_an_unreadable_blob_is_a_store_error(layout, blobs):
    """A folder in its place, say."""
    path_of(layout).mkdir(parents=True)
    with pytest.raises((StoreError, ArtifactCorruptError)):
        blobs.open(DIGEST, len(DATA))


def test_an_empty_blob_is_a_blob(layout, blobs):
    """Nothing special about no bytes."""
    digest = blobs.put_new([], 0)
    assert bytes(blobs.open(digest, 0)) == b""
    assert repr(blobs) == f"<BlobStore {layout.blobs}>"


def test_a_blob_whose_file_was_closed_meanwhile_gets_no_name(blobs: BlobStore, layout: Layout):
    """Another thread may close it by mistake, and have its own file under the number."""
    other = layout.root / "other"
    with other.open("wb") as file, blobs.writer() as writer:
        writer.write([DATA])
        draft = str(layout.blobs / "new")
        [number] = [
            int(link.name)
            for link in Path("/proc/self/fd").iterdir()
            if link.exists() and str(link.readlink()).startswith(f"{draft}/")
        ]
        os.dup2(file.fileno(), number)
        with pytest.raises(StoreError, match="something in this process has closed it"):
            writer.commit(DIGEST)
    assert files(layout) == []
    os.close(number)  # it was left to whoever has opened it


def test_what_is_not_wanted_any_more_is_not_written_to_its_end(blobs: BlobStore, layout: Layout):
    """What `go_on` raises comes through, and nothing is left."""
    asked: list[None] = []

    def go_on() -> None:
        asked.append(None)
        if len(asked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        blobs.put_new([memoryview(bytearray(64 << 20))], 64 << 20, go_on)
    assert len(asked) == 3
    assert files(layout) == []


@pytest.mark.parametrize("name", ["Flow/17/train/3/model", "model"])
@pytest.mark.parametrize("what", ["missing", "corrupt", "unreadable"])
def test_an_error_names_the_artifact_and_where_it_is_told_of(name, what):
    """The pathspec too, where the reader knew it."""
    error = {
        "missing": blobs_module.missing(name, "FILE"),
        "corrupt": blobs_module.corrupt(name, "FILE", "it is cut off"),
        "unreadable": blobs_module.unreadable(name, "FILE", OSError(errno.EIO, "no")),
    }[what]
    assert error.artifact == "model"
    assert error.pathspec == (name if "/" in name else "")
    assert name in str(error)
