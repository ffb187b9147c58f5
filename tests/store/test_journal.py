"""The journal: what is read back is what was written, or an error, or the end."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.errors import JournalError
from asyncflow.store import frames, journal
from asyncflow.store.frames import PREFIX_BYTES, frame
from asyncflow.store.journal import HEADER, JournalReader, is_being_written
from tests.support.store_files import begin_journal

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS = [b"\x93one", b"\x92" + bytes(300), b"\x91three" * 5]

payloads = st.lists(st.binary(min_size=1, max_size=200), max_size=12)


def write(path: Path, records: Sequence[bytes]) -> list[int]:
    """Write a journal; the offsets of its records."""
    writer = begin_journal(path)
    offsets = []
    for record in records:
        offsets.append(writer.size)
        writer.write(frame(record))
    writer.close()
    return offsets


def read(path: Path, offset: int = 0) -> list[bytes]:
    """Every record from there on."""
    with JournalReader(path) as reader:
        return [payload for _, payload, _ in reader.read_from(offset)]


# --- round trips ------------------------------------------------------------------------------


@given(payloads)
def test_what_was_written_is_read_back_from_every_record_on(records):
    """Each record tells where it lies and where the next one begins."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        offsets = write(path, records)
        with JournalReader(path) as reader:
            for number, offset in enumerate(offsets):
                assert reader.read_one(offset) == records[number]
                assert [p for _, p, _ in reader.read_from(offset)] == records[number:]
            found = [(at, after) for at, _, after in reader.read_from()]
        assert found == list(zip(offsets, [*offsets[1:], path.stat().st_size], strict=False))


def test_a_batch_is_one_write(tmp_path):
    """Frames joined read the same as frames written one by one."""
    writer = begin_journal(tmp_path / "journal")
    writer.write(b"".join(map(frame, RECORDS)))
    writer.close()
    assert read(tmp_path / "journal") == RECORDS


@pytest.mark.parametrize("size", [1 << 18, (1 << 18) - PREFIX_BYTES, 3_000_000])
def test_a_record_longer_than_one_read_comes_whole(tmp_path, size):
    """Also as the very first record, when nothing is known of its length yet."""
    records = [b"\x91" * size, b"\x92 small", b"\x93" * size]
    offsets = write(tmp_path / "journal", records)
    assert read(tmp_path / "journal") == records
    with JournalReader(tmp_path / "journal") as reader:
        assert [reader.read_one(offset) for offset in offsets] == records


def test_records_at_the_border_of_two_reads_come_whole(tmp_path, monkeypatch):
    """Wherever the reads are cut, the records are the same."""
    write(tmp_path / "journal", RECORDS * 3)
    for size in range(PREFIX_BYTES, 400):
        monkeypatch.setattr(journal, "_READ_BYTES", size)
        assert read(tmp_path / "journal") == RECORDS * 3


def test_a_record_too_long_to_be_read_is_not_written(monkeypatch):
    """The limit is one for both sides."""
    monkeypatch.setattr(frames, "MAX_RECORD_BYTES", 10)
    with pytest.raises(JournalError, match="too large"):
        frame(bytes(11))


# --- torn and damaged -------------------------------------------------------------------------


def test_a_journal_torn_at_any_byte_reads_up_to_the_tear(tmp_path):
    """A crash loses the record that it cut, and no other."""
    offsets = [*write(tmp_path / "whole", RECORDS), 0]
    whole = (tmp_path / "whole").read_bytes()
    offsets[-1] = len(whole)
    torn = tmp_path / "torn"
    for length in range(len(whole) + 1):
        torn.write_bytes(whole[:length])
        complete = sum(offset <= length for offset in offsets[1:])
        assert read(torn) == RECORDS[:complete]


class CountingReader(JournalReader):
    """Counts the bytes that it reads."""

    bytes_read = 0

    def _pread(self, size: int, offset: int) -> bytes:
        data = super()._pread(size, offset)
        self.bytes_read += len(data)
        return data


def test_a_torn_tail_is_searched_once(tmp_path):
    """Not by each question about a run that was killed; again as soon as the file has grown."""
    path = tmp_path / "journal"
    (offset,) = write(path, [os.urandom(300_000)])
    path.write_bytes(path.read_bytes()[:-1])
    reader = CountingReader(path)
    assert not [*reader.read_batches(offset)]
    first, reader.bytes_read = reader.bytes_read, 0
    assert not [*reader.read_batches(offset)]
    assert not [*reader.read_from(offset)]
    assert reader.bytes_read <= 2 * (first - 200_000)
    with path.open("ab") as file:
        file.write(bytes(20) + frame(b"\x93one"))
    with pytest.raises(JournalError, match="damaged"):
        [*reader.read_batches(offset)]
    reader.close()


def test_a_flipped_byte_never_gives_a_wrong_record(tmp_path):
    """At every byte: what was written, or an error; or the end, in the last record."""
    offsets = write(tmp_path / "whole", RECORDS)
    whole = (tmp_path / "whole").read_bytes()
    flipped = tmp_path / "flipped"
    for at in range(len(whole)):
        for mask in (0x01, 0x80, 0xFF):
            flipped.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            if at < offsets[-1]:
                with pytest.raises(JournalError):
                    read(flipped)
            else:
                assert read(flipped) == RECORDS[:-1]


def test_a_flipped_byte_fails_the_one_record_that_it_is_in(tmp_path):
    """Reading by offset still gives the others."""
    offsets = write(tmp_path / "journal", RECORDS)
    data = bytearray((tmp_path / "journal").read_bytes())
    data[offsets[1] + 20] ^= 4
    (tmp_path / "journal").write_bytes(data)
    with JournalReader(tmp_path / "journal") as reader:
        assert reader.read_one(offsets[0]) == RECORDS[0]
        with pytest.raises(JournalError, match=f"no whole record at byte {offsets[1]}"):
            reader.read_one(offsets[1])
        assert reader.read_one(offsets[2]) == RECORDS[2]


@pytest.mark.parametrize("at", [4, 100, 1_500_000], ids=["checksum", "near", "far"])
def test_damage_in_a_long_record_is_not_taken_for_a_torn_tail(tmp_path, at):
    """However far behind the next good record lies."""
    offsets = write(tmp_path / "journal", [b"\x91", os.urandom(3_000_000), b"\x93 the last"])
    with (tmp_path / "journal").open("r+b") as file:
        file.seek(offsets[1] + at)
        byte = file.read(1)[0]
        file.seek(offsets[1] + at)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(JournalError, match=f"record at byte {offsets[1]}"):
        read(tmp_path / "journal")


@pytest.mark.parametrize("byte", range(4))
def test_a_damaged_length_is_not_taken_for_a_torn_tail(tmp_path, byte):
    """A length that reaches past the end of the file looks like a record being written."""
    offsets = write(tmp_path / "journal", [b"\x91", os.urandom(300_000), *RECORDS])
    with (tmp_path / "journal").open("r+b") as file:
        file.seek(offsets[1] + byte)
        file.write(b"\x3f")
    with pytest.raises(JournalError, match=f"record at byte {offsets[1]}"):
        read(tmp_path / "journal")


@pytest.mark.parametrize("cut", [0, 1 << 20])
def test_a_damaged_length_costs_no_memory(tmp_path, cut):
    """A file with a hole can be as long as its length says; it is looked through in pieces."""
    path = tmp_path / "journal"
    claimed = 64 << 20
    path.write_bytes(HEADER + claimed.to_bytes(4, "little") + b"1234" + b"x")
    os.truncate(path, len(HEADER) + PREFIX_BYTES + claimed - cut)
    with JournalReader(path) as reader:
        tracemalloc.start()
        assert list(reader.read_from()) == []
        with pytest.raises(JournalError, match="no whole record"):
            reader.read_one(len(HEADER))
        reader.is_torn(len(HEADER))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    "offset", [-1, 0, 5, len(HEADER) - 1, 10**6, 1 << 62, 1 << 63, (1 << 64) - 1]
)
def test_an_offset_where_no_record_can_be_is_an_error(tmp_path, offset):
    """An offset may come from a damaged index and be anything."""
    write(tmp_path / "journal", RECORDS)
    with JournalReader(tmp_path / "journal") as reader, pytest.raises(JournalError):
        reader.read_one(offset)


def test_another_file_is_refused(tmp_path):
    """The header says whose file it is, and of which version."""
    (tmp_path / "journal").write_bytes(b"SOMEBODYS JOURNAL 1\n" + frame(b"\x91"))
    with pytest.raises(JournalError, match=r"asyncflow can read$"):
        JournalReader(tmp_path / "journal")


def test_a_journal_of_a_later_format_is_refused(tmp_path):
    """The header says its version, and the error what to do."""
    (tmp_path / "journal").write_bytes(b"ASYNCFLOW JOURNAL 3\n" + frame(b"\x91"))
    with pytest.raises(JournalError, match="a later one wrote it, in format 3; upgrade asyncflow"):
        JournalReader(tmp_path / "journal")


def test_a_missing_journal_is_a_missing_file(tmp_path):
    """So that whoever asks can tell it from damage."""
    with pytest.raises(FileNotFoundError):
        JournalReader(tmp_path / "journal")


# --- while it is being written ----------------------------------------------------------------


def test_a_reader_goes_on_where_it_was(tmp_path):
    """Following costs what is new, not what was."""
    writer = begin_journal(tmp_path / "journal")
    writer.write(frame(RECORDS[0]))
    with JournalReader(tmp_path / "journal") as reader:
        [(_, first, after)] = reader.read_from()
        assert list(reader.read_from(after)) == []
        writer.write(frame(RECORDS[1]))
        [(at, second, _)] = reader.read_from(after)
    writer.close()
    assert (first, at, second) == (RECORDS[0], after, RECORDS[1])


def test_a_batch_that_arrives_while_it_is_read_is_not_damage(tmp_path, monkeypatch):
    """The reader saw part of a record; by the time it looks again, good ones lie behind it."""
    write(tmp_path / "journal", RECORDS * 2)
    real = os.pread
    with JournalReader(tmp_path / "journal") as reader:
        for written in range(reader.size() - len(HEADER)):
            lengths = [written]  # the first read sees so much of what will be there

            def pread(descriptor: int, length: int, offset: int, lengths=lengths) -> bytes:
                return real(descriptor, lengths.pop() if lengths else length, offset)

            monkeypatch.setattr(os, "pread", pread)
            seen = [record for _, record, _ in reader.read_from()]
            assert seen == (RECORDS * 2)[: len(seen)]


def test_a_reader_beside_a_writer_sees_every_record_and_no_damage(tmp_path):
    """Long records and batches, read as fast as they are written."""
    path = tmp_path / "journal"
    records = [os.urandom(1 + number * 7919 % 500_000) for number in range(60)]
    writer = begin_journal(path)

    def work() -> None:
        for number in range(0, len(records), 3):
            writer.write(b"".join(map(frame, records[number : number + 3])))
        writer.close()

    thread = threading.Thread(target=work)
    seen: list[bytes] = []
    offset = 0
    with JournalReader(path) as reader:
        thread.start()
        while len(seen) < len(records):
            for _, payload, after in reader.read_from(offset):
                seen.append(payload)
                offset = after
    thread.join()
    assert seen == records


# --- the writer -------------------------------------------------------------------------------


def test_the_size_is_where_the_next_record_will_lie(tmp_path):
    """The engine names records by it before they are on disk."""
    writer = begin_journal(tmp_path / "journal")
    at = writer.size
    writer.write(frame(RECORDS[0]))
    with JournalReader(tmp_path / "journal") as reader:
        assert reader.read_one(at) == RECORDS[0]
        assert reader.size() == writer.size
    writer.close()


def test_a_journal_is_begun_once(tmp_path):
    """A second writer of the same run is an error, whether the first still writes or not."""
    writer = begin_journal(tmp_path / "journal")
    with pytest.raises(JournalError, match="cannot begin the journal"):
        begin_journal(tmp_path / "journal")
    writer.close()
    with pytest.raises(JournalError, match="cannot begin the journal"):
        begin_journal(tmp_path / "journal")


def test_the_lock_tells_a_running_run_from_an_ended_one(tmp_path):
    """Held from before the first record until the writer closes or its process ends."""
    path = tmp_path / "journal"
    assert not is_being_written(path)
    writer = begin_journal(path)
    assert is_being_written(path)
    assert is_being_written(path)  # asking leaves no trace
    writer.close()
    writer.close()
    assert not is_being_written(path)


NO_DESCRIPTORS = """
import os, resource, sys
from asyncflow.store.journal import is_being_written
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), most))
print(is_being_written(sys.argv[1]))
"""


def test_where_nobody_can_tell_a_journal_is_left_alone(tmp_path):
    """A process that can open no file takes its run for running, and removes nothing of it."""
    path = tmp_path / "journal"
    writer = begin_journal(path)
    command = [sys.executable, "-c", NO_DESCRIPTORS, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    writer.close()
    assert told == "True\n"


def test_the_lock_ends_with_its_process(tmp_path):
    """However the process ended."""
    path = tmp_path / "journal"
    reads, writes = os.pipe()
    child = os.fork()
    if not child:  # no cover: the child
        begin_journal(path)
        os.write(writes, b"1")
        os.kill(os.getpid(), 9)
    os.read(reads, 1)
    os.waitpid(child, 0)
    os.close(reads)
    os.close(writes)
    assert not is_being_written(path)
    assert read(path) == []


def test_looking_at_a_run_does_not_keep_it_from_starting(tmp_path, monkeypatch):
    """Whoever asks for the lock holds it for a moment; the writer waits that moment."""
    path = tmp_path / "journal"
    real = os.open
    probes: list[int] = []

    def open_and_be_probed(name: str, flags: int, mode: int = 0o777, **where: int) -> int:
        descriptor = real(name, flags, mode, **where)
        if name == path.name and not probes:
            probes.append(real(path, os.O_RDONLY))
            fcntl.flock(probes[0], fcntl.LOCK_SH)
            threading.Timer(0.05, os.close, probes).start()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_be_probed)
    writer = begin_journal(path)
    assert is_being_written(path)
    writer.close()


def test_a_failed_write_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    """A full disk cuts a record short; it is taken back, and writing may go on later."""
    writer = begin_journal(tmp_path / "journal")
    writer.write(frame(RECORDS[0]))
    before = writer.size
    real = os.write

    def fill_up(descriptor: int, data: memoryview) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fill_up)
        with pytest.raises(JournalError, match="No space left"):
            writer.write(frame(RECORDS[1])[:20])
    assert (tmp_path / "journal").stat().st_size == writer.size == before
    writer.write(frame(RECORDS[2]))
    writer.close()
    assert read(tmp_path / "journal") == [RECORDS[0], RECORDS[2]]


def test_a_write_that_cannot_be_taken_back_is_the_last(tmp_path, monkeypatch):
    """Nothing is ever written behind a torn record: that would be damage."""

    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    writer = begin_journal(tmp_path / "journal")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        patched.setattr(os, "ftruncate", refuse)
        with pytest.raises(JournalError):
            writer.write(frame(RECORDS[0]))
    with pytest.raises(JournalError):
        writer.write(frame(RECORDS[0]))
    assert not is_being_written(tmp_path / "journal")


def test_syncing_includes_the_file_s_name(tmp_path, monkeypatch):
    """A power cut must take neither the bytes nor the folder's entry; the latter is synced once."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    (tmp_path / "run").mkdir()
    writer = begin_journal(tmp_path / "run" / "journal")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(journal, "sync_file", fsync)
    writer.sync()
    writer.sync()
    writer.close()
    folders = list((tmp_path / "run" / "journal").parents[:4])  # up to where the store would be
    assert synced == ["journal", *(folder.name for folder in reversed(folders)), "journal"]


def test_a_closed_writer_does_not_sync(tmp_path):
    """It says so rather than let the caller believe."""
    writer = begin_journal(tmp_path / "journal")
    writer.close()
    with pytest.raises(JournalError, match="cannot sync"):
        writer.sync()


def test_writer_and_reader_explain_themselves(tmp_path):
    """For logs and failed assertions."""
    writer = begin_journal(tmp_path / "journal")
    assert repr(writer) == f"<JournalWriter {tmp_path.name} {len(HEADER)} bytes, open>"
    writer.close()
    assert repr(writer).endswith("closed>")


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=5000), min_size=2, max_size=6), st.data())
def test_any_damage_before_the_last_record_is_an_error(records, data):
    """Property: cut out, overwrite or flip anywhere before the last record."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "journal")
        offsets = write(path, records)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(len(HEADER), offsets[-1] - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(JournalError):
            read(path)
