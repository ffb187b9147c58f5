"""What `asyncflow.store.interface` promises, of every kind of store; so far there is one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from asyncflow.errors import JournalError, NotFoundError, StoreError
from asyncflow.store import open_store
from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.frames import PREFIX_BYTES, frame
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.values import ArtifactRef, Place


@pytest.fixture
def opened(tmp_path):
    """An open store with nothing in it."""
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def run(opened):
    """A run that has not begun."""
    return opened.make_run("F")


# --- the journal ----------------------------------------------------------------------------------


def test_a_reader_gets_what_is_appended_by_offset_and_from_an_offset_on(run):
    """While it is written, and again later from where it was."""
    writer = run.begin_journal()
    writer.write(frame(b"one"))
    with run.open_journal() as reader:
        ((at, record, after),) = reader.read_from()
        assert (at, record, after) == (FIRST_RECORD, b"one", writer.size)
        writer.write(frame(b"two") + frame(b"three"))
        assert [record for _, record, _ in reader.read_from(after)] == [b"two", b"three"]
        assert reader.read_one(after) == b"two"
        assert reader.size() == run.journal_size() == writer.size
    writer.close()


def test_a_run_has_one_journal_and_one_writer(run):
    """A second one is refused, also when the first is done."""
    writer = run.begin_journal()
    with pytest.raises(JournalError):
        run.begin_journal()
    writer.close()
    with pytest.raises(JournalError):
        run.begin_journal()


def test_a_journal_that_is_not_there_is_a_missing_file(run):
    """And nothing else is; whoever asks whether it is there gets no error."""
    assert not run.has_journal()
    for ask in (run.open_journal, run.journal_size):
        with pytest.raises(FileNotFoundError):
            ask()


WRITER = """
import sys
from asyncflow.store import open_store
writer = open_store(sys.argv[1]).run("F", sys.argv[2]).begin_journal()
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_run_is_being_written_as_long_as_its_writer_lives(opened, run):
    """Not any more once that process was killed, whatever it had still open."""
    assert not run.is_being_written()
    command = [sys.executable, "-c", WRITER, opened.location, run.run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"begun\n"
        assert run.is_being_written()
        other.kill()
        other.wait()
        assert not run.is_being_written()
    writer = opened.make_run("F")
    appender = writer.begin_journal()
    assert writer.is_being_written()
    appender.close()
    assert not writer.is_being_written()


# --- files beside it ------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_read_in_part(run):
    """Nothing of a longer one that was there before is left."""
    run.put_file("index", b"0123456789")
    run.put_file("index", b"abcdef")
    assert run.file_size("index") == 6
    assert run.read_file("index", most=100) == b"abcdef"
    assert run.read_file("index", most=2) == b"ab"
    assert run.read_file("index", most=2, offset=3) == b"de"
    assert run.read_file("index", most=2, offset=6) == b""


def test_a_file_that_is_not_there_is_missing(run):
    """To be read, or to be measured."""
    assert not run.has_file("summary")
    with pytest.raises(FileNotFoundError):
        run.read_file("summary", most=1)
    with pytest.raises(FileNotFoundError):
        run.file_size("summary")


def test_files_are_stored_while_the_journal_is_delivered(run):
    """Both are there when it is done."""
    writer, delivered = run.begin_journal(), []

    def deliver():
        writer.deliver()
        delivered.append(1)

    writer.write(frame(b"one"))
    run.put_files({"index": b"of tasks", "times": b"of attempts"}, deliver)
    assert delivered == [1]
    assert run.read_file("index", most=100) == b"of tasks"
    assert run.read_file("times", most=100) == b"of attempts"
    writer.close()


def test_whoever_stores_files_hears_why_the_journal_cannot_be_delivered(run):
    """Whether the files are stored or not."""

    def deliver():
        raise JournalError("somebody else has ended the run")

    with pytest.raises(JournalError, match="somebody else"):
        run.put_files({"index": b"of tasks"}, deliver)
    with pytest.raises(JournalError, match="somebody else"):
        run.put_files({"no/such/folder": b""}, deliver)


def test_a_file_is_updated_by_one_after_the_other(run):
    """Each sees what the one before has made of it, and none is lost."""

    def count(data):
        time.sleep(0.001)
        return b"%d" % (int(data or b"0") + 1)

    threads = [
        threading.Thread(target=run.update_file, args=("tags", count), kwargs={"most": 100})
        for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert run.read_file("tags", most=100) == b"8"


def test_an_update_that_fails_changes_nothing(run):
    """What the function raises comes through, and the next one need not wait."""

    def refuse(data):
        raise ValueError(data)

    run.put_file("tags", b"before")
    with pytest.raises(ValueError, match="before"):
        run.update_file("tags", refuse, most=100)
    run.update_file("tags", lambda data: data + b", after", most=100)
    assert run.read_file("tags", most=100) == b"before, after"


def test_an_update_that_gets_no_lock_says_who_holds_it(run, monkeypatch):
    """A process that was stopped in the middle of an update cannot stop others for ever."""
    monkeypatch.setattr("asyncflow.store.local_store._LOCK_SECONDS", 0.05)
    folder = os.open(run.place, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match=r"this process holds a lock on .*; end it"):
        run.update_file("tags", lambda _: b"x", most=100)
    os.close(folder)
    run.update_file("tags", lambda _: b"x", most=100)
    assert run.read_file("tags", most=100) == b"x"


def test_a_file_of_a_run_that_is_gone_cannot_be_updated(opened):
    """That is an error of the store, which says what to do."""
    with pytest.raises(StoreError, match=r"put back what was deleted"):
        opened.run("F", "7").update_file("tags", lambda _: b"x", most=100)


def test_files_are_deleted_by_how_their_names_begin(run):
    """The others stay."""
    for name in ("inputs-1", "inputs-22", "index"):
        run.put_file(name, b"x")
    run.delete_files("inputs-")
    assert [run.has_file(name) for name in ("inputs-1", "inputs-22", "index")] == [0, 0, 1]


# --- flows and runs -------------------------------------------------------------------------------


def test_a_new_run_is_the_newest_of_its_flow(opened):
    """Also of those that are made in the same microsecond."""
    made = [opened.make_run("F").run_id for _ in range(20)]
    assert opened.runs("F") == sorted(made, key=int, reverse=True) == made[::-1]
    assert opened.flows() == ["F"]


def test_a_run_that_is_discarded_has_never_begun(opened, run):
    """It can be read no more, and is in no list."""
    writer = run.begin_journal()
    ArtifactWriter(run.value_sink("engine")).put(b"x" * 5000)
    writer.write(frame(b"one"))
    run.discard()
    writer.close()
    assert not run.is_there()
    assert not run.has_journal()
    assert opened.runs("F") == []


def test_asking_about_a_run_makes_none(opened):
    """Its place is known before it is there."""
    run = opened.run("F", "17")
    assert (run.pathspec, run.store.location) == ("F/17", opened.location)
    assert not run.is_there()
    assert not run.is_being_written()
    assert opened.flows() == []
    with pytest.raises(NotFoundError):
        opened.run("F", "../17")


def test_a_location_opens_the_same_store_elsewhere(opened, run, tmp_path):
    """The text is all that a worker is told."""
    again = open_store(opened.location)
    assert again.runs("F") == [run.run_id]
    assert again.is_at(opened.location)
    (tmp_path / "link").symlink_to(opened.location)
    assert again.is_at(str(tmp_path / "link"))
    assert not again.is_at(str(tmp_path / "other"))


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5000, 300_000])
def test_a_value_is_read_back_by_its_ref(opened, run, size):
    """Wherever it lies, also while its writer goes on."""
    writer = ArtifactWriter(run.value_sink("w1"))
    refs = [writer.put(bytes([letter]) * size) for letter in b"abc"]
    reader = ArtifactReader(opened.value_source("F"))
    assert [reader.load(ref).value for ref in refs] == [bytes([x]) * size for x in b"abc"]
    writer.close()


def test_two_writers_of_one_name_do_not_mix(opened, run):
    """Processes of two machines may have one number."""
    one, other = (ArtifactWriter(run.value_sink("w1")) for _ in range(2))
    refs = [writer.put(bytes([number]) * 5000) for number, writer in enumerate([one, other] * 3)]
    reader = ArtifactReader(opened.value_source("F"))
    assert [reader.load(ref).value for ref in refs] == [bytes([n]) * 5000 for n in range(6)]


def test_a_large_value_is_as_long_as_it_was_stored(opened, run):
    """Without being opened; one that nobody stored is missing."""
    ref = ArtifactWriter(run.value_sink("w1")).put(b"x" * 300_000)
    assert opened.blob_size(ref.digest) == ref.size
    with pytest.raises(FileNotFoundError):
        opened.blob_size(bytes(32))


def test_a_ref_can_name_bytes_of_the_journal(opened, run):
    """As for a value within an event, which a task hands on without copying it."""
    value = ArtifactWriter(run.value_sink("w1")).put(b"within an event")
    writer = run.begin_journal()
    writer.write(frame(b"before" + value.data))
    ref = ArtifactRef(
        place=int(Place.SEGMENT),
        encoding=value.encoding,
        type_name="bytes",
        size=value.size,
        digest=bytes.fromhex(ArtifactReader(opened.value_source("F")).sha(value)),
        file=run.journal_file,
        offset=FIRST_RECORD + PREFIX_BYTES + len(b"before"),
        data=b"",
    )
    assert ArtifactReader(opened.value_source("F")).load(ref).value == b"within an event"
    writer.close()
