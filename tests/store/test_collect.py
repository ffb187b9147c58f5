"""`gc`: what nobody needs is deleted and counted, and nothing else, whatever goes on beside it."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from asyncflow import Engine, Flow, FlowSpec, Run, step
from asyncflow._support import commit_points
from asyncflow.errors import JournalError, StoreError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.store.layout import Layout, sign_of_beginning
from asyncflow.store.maintenance.collect import (
    DRAFT_SECONDS,
    GRACE_SECONDS,
    Amount,
    Collected,
    collect,
)
from asyncflow.store.maintenance.reachable import exclusive
from asyncflow.store.maintenance.verify import verify
from tests.support.command_line import end, here, start
from tests.support.store_files import writer_of
from tests.support.written_runs import STARTED_AT, RunWriter

GRAPH = Graph("F", [Node("start", ("end",)), Node("end")])
BLOB = 300_000
SEGMENT = 5_000
DAYS = 86_400
FLOW = Path(__file__).parents[1] / "support" / "collected_flow.py"


def write_run(store, run_id, *, end=True, began=STARTED_AT, **values):
    """A run with these values, ended or still running; `writer.close()` interrupts it."""
    writer = RunWriter(store, "F", run_id, GRAPH, began=began)
    writer.run("start")
    writer.run("end", **values)
    if end:
        writer.finish()
    else:
        writer.flush()
    return writer


def put(store, value, run_id="1"):
    """Store a value that no event tells of; its file."""
    layout = Layout.open(store, create=True)
    with writer_of(layout, "F", run_id, "w9") as writer:
        return Path(layout.blob(writer.put(value).digest))


def age(store, seconds=3 * DAYS):
    """Make all that there is older."""
    for path in [store, *store.rglob("*")]:
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def after(days):
    """So many days after the time at which the first run of a test began."""
    return STARTED_AT - timedelta(days=30 - days)


def blobs(store):
    """The blobs that there are."""
    return {path.name for path in (store / "blobs").glob("[0-9a-f][0-9a-f]/*")}


def gc(store, **options):
    """Collect."""
    return collect(Layout.open(store, create=False), **options)


def verified(store):
    """The damage that `verify` finds."""
    return verify(Layout.open(store, create=False)).damage


def everything(store):
    """Every file of a store and its bytes."""
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


# --- what is deleted ----------------------------------------------------------------------------


def test_a_blob_that_no_run_refers_to_is_deleted_and_counted(store):
    """Files and bytes; what runs refer to stays, and is counted too."""
    write_run(store, "1", model=b"m" * BLOB)
    put(store, b"x" * BLOB)
    age(store)
    collected = gc(store)
    assert collected.blobs == collected.total == Amount(1, BLOB)
    assert collected.kept.files == 1
    assert Run("F/1").data.model == b"m" * BLOB
    assert gc(store).total == Amount()


def test_a_blob_of_several_runs_stays_until_the_last_of_them_is_gone(store):
    """Equal values are one file."""
    for run_id in ("1", "2"):
        write_run(store, run_id, model=b"m" * BLOB)
    age(store)
    assert here("rm", "F/1").status == 0
    assert gc(store).blobs == Amount()
    assert Run("F/2").data.model == b"m" * BLOB
    assert here("rm", "F/2").status == 0
    assert gc(store).blobs.files == 1
    assert not blobs(store)


def test_how_far_it_is_is_told_to_the_end(store):
    """Each count goes up by one to its total: runs read, runs cleared, shards of blobs."""
    for number in range(3):
        write_run(store, str(1 + number), value=b"x" * BLOB + bytes([number]))
    told: dict[str, list[tuple[int, int]]] = {}
    layout = Layout.open(store, create=False)
    collect(layout, on_progress=lambda what, done, of: told.setdefault(what, []).append((done, of)))
    assert list(told) == ["runs read", "runs cleared", "shards of blobs cleared"]
    for counts in told.values():
        assert counts == [(number, len(counts)) for number in range(1, len(counts) + 1)]


def test_a_dry_run_counts_what_would_be_deleted_and_deletes_nothing(store):
    """The numbers are those of the real one."""
    write_run(store, "1", model=b"m" * BLOB)
    put(store, b"x" * BLOB)
    (store / "blobs" / "new" / ("0" * 24)).write_bytes(b"half")
    (store / "flows" / "F" / "1" / "w8.seg").write_bytes(b"never announced")
    (store / "flows" / "F" / "9").mkdir()
    (store / "flows" / "F" / "9" / "journal").write_bytes(HEADER)
    (store / "flows" / "F" / "9" / "engine.seg").write_bytes(b"of no use")
    age(store)
    before = everything(store)
    dry = gc(store, dry_run=True)
    assert everything(store) == before
    real = gc(store)
    assert {**dry.to_data(), "dry_run": False} == real.to_data()
    assert [real.blobs.files, real.drafts.files, real.segments.files] == [1, 1, 1]
    assert real.leftovers == Amount(2, len(HEADER) + 9)
    assert not (store / "flows" / "F" / "9").exists()


def test_a_segment_stays_as_long_as_one_value_in_it_is_needed(store):
    """Also that of a run that was interrupted; what it never announced is deleted."""
    writer = write_run(store, "1", middling=b"s" * SEGMENT, end=False)
    writer.close()
    unneeded = store / "flows" / "F" / "1" / "w2.seg"
    unneeded.write_bytes(b"x" * 77)
    assert gc(store).segments == Amount(1, 77)
    assert Run("F/1")["end"].task.data.middling == b"s" * SEGMENT


@pytest.mark.parametrize(("hours", "left"), [(12, 1), (36, 0)])
def test_a_blob_that_may_still_be_written_to_is_spared_for_a_day(store, hours, left):
    """What is older was left by a crash."""
    write_run(store, "1", model=b"m" * BLOB)
    draft = store / "blobs" / "new" / ("0" * 24)
    draft.write_bytes(b"half")
    then = time.time() - hours * 3600
    os.utime(draft, (then, then))
    gc(store)
    assert draft.exists() == bool(left)
    assert DRAFT_SECONDS == DAYS


def test_files_of_others_are_left_alone(store):
    """In the store's folder, among the blobs, and in a run's folder."""
    write_run(store, "1")
    strange = [store / "notes.txt", store / "blobs" / "ab" / "notes", store / "blobs" / "x" / "y"]
    strange.append(store / "flows" / "F" / "1" / "notes.txt")
    for path in strange:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    age(store)
    assert gc(store).total == Amount()
    assert all(path.exists() for path in strange)


# --- what is spared -----------------------------------------------------------------------------


def test_changed_tags_stay_and_what_a_killed_change_has_left_goes(store):
    """Unless it is young: somebody may be writing it."""
    write_run(store, "1")
    Run("F/1").add_tag("changed")
    draft = store / "flows" / "F" / "1" / ".tags"
    draft.write_bytes(b"half")
    gc(store)
    assert draft.exists()
    age(store)
    gc(store)
    assert not draft.exists()
    assert Run("F/1").user_tags == {"changed"}
    assert not verified(store)


def test_damaged_tags_are_found_by_verify(store):
    """Nothing else of the run is affected."""
    write_run(store, "1")
    Run("F/1").add_tag("changed")
    path = store / "flows" / "F" / "1" / "tags"
    path.write_bytes(path.read_bytes()[:-1])
    [damage] = verified(store)
    assert "its bytes are not those that were written" in str(damage)
    assert Run("F/1").successful


def test_a_young_blob_is_spared_and_counted(store):
    """A task may have put it, and be about to tell of it."""
    write_run(store, "1")
    put(store, b"x" * BLOB)
    collected = gc(store)
    assert collected.total == Amount()
    assert collected.spared.files == 1
    age(store, 2 * GRACE_SECONDS + 60)
    assert gc(store).blobs.files == 1


def test_what_is_put_again_is_young_again(store):
    """A task that finds its value there already relies on it."""
    write_run(store, "1")
    path = put(store, b"x" * BLOB)
    age(store)
    assert put(store, b"x" * BLOB) == path
    assert gc(store).spared.files == 1
    assert path.exists()


def test_while_a_run_is_running_nothing_is_deleted_that_is_younger_than_it(store):
    """A task may take days between putting a value and its end."""
    writer = write_run(store, "1", end=False)
    path = put(store, b"x" * BLOB)
    (store / "flows" / "F" / "1" / "w8.seg").write_bytes(b"not announced yet")
    started = writer.time / 1e6 - 10
    os.utime(path, (started, started))
    assert gc(store).total == Amount()
    assert path.exists()
    writer.close()
    assert gc(store).total.files == 2
    assert not path.exists()


@pytest.mark.parametrize("ids", ["12", "21"])
def test_of_two_running_runs_the_older_one_decides_what_is_spared(store, ids):
    """What was put after it began is its own, perhaps; in whatever order they are read."""
    days = dict(zip(ids, (0, 8), strict=True))
    writers = {run: write_run(store, run, end=False, began=after(days[run])) for run in "12"}
    path = put(store, b"x" * BLOB, run_id=ids[0])
    then = after(4).timestamp()
    os.utime(path, (then, then))
    assert gc(store).spared.files == 1
    assert path.exists()
    writers[ids[0]].close()
    assert gc(store).blobs.files == 1


def test_what_a_running_run_refers_to_stays(store):
    """However old it is."""
    writer = write_run(store, "1", end=False, model=b"m" * BLOB)
    age(store, 1000 * DAYS)
    gc(store)
    assert Run("F/1")["end"].task.data.model == b"m" * BLOB
    writer.close()


def test_a_folder_of_a_run_that_is_just_starting_is_left_alone(store):
    """Its first event comes within the hour."""
    write_run(store, "1")
    folder = store / "flows" / "F" / "2"
    folder.mkdir()
    gc(store)
    assert folder.exists()
    age(store)
    gc(store)
    assert not folder.exists()


def test_a_blob_that_is_put_while_it_is_being_deleted_is_put_back(store, monkeypatch):
    """Between the first look at it and its last, a task relied on it."""
    write_run(store, "1")
    path = put(store, b"x" * BLOB)
    age(store)
    monkeypatch.setattr(
        commit_points, "watcher", lambda name: os.utime(path) if name == "gc.aside" else None
    )
    collected = gc(store)
    assert collected.blobs == Amount()
    assert collected.spared.files == 1
    assert path.exists()


# --- damage -------------------------------------------------------------------------------------


def test_while_a_journal_cannot_be_read_nothing_is_deleted(store):
    """What that run needs cannot be told; the error says how to find out, and how to go on."""
    write_run(store, "1", model=b"m" * BLOB)
    write_run(store, "2")
    put(store, b"x" * BLOB)
    age(store)
    journal = store / "flows" / "F" / "1" / "journal"
    data = bytearray(journal.read_bytes())
    data[40] ^= 1
    journal.write_bytes(data)
    before = everything(store)
    with pytest.raises(JournalError, match=r"F/1 needs.*nothing was deleted.*asyncflow verify F/1"):
        gc(store)
    assert everything(store) == before
    assert here("rm", "F/1").status == 0
    assert gc(store).blobs.files == 2


def test_a_journal_that_a_crash_has_torn_is_read_to_the_tear(store):
    """An interrupted run keeps what it had announced, and stops no collection."""
    writer = write_run(store, "1", model=b"m" * BLOB, end=False)
    writer.close()
    with (store / "flows" / "F" / "1" / "journal").open("ab") as file:
        file.write(b"\x50\0\0\0torn")
    age(store)
    assert gc(store).kept.files == 1


def test_a_last_record_that_no_crash_can_have_left_stops_a_collection(store):
    """It may tell of a value that was announced."""
    writer = write_run(store, "1", model=b"m" * BLOB, end=False)
    writer.close()
    path = store / "flows" / "F" / "1" / "journal"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with JournalReader(path) as journal:
        *_, (_, _, last) = journal.read_from()
    assert len(HEADER) < last < len(data)
    age(store)
    with pytest.raises(JournalError, match=f"the record at byte {last} is not what was written"):
        gc(store)
    assert len(blobs(store)) == 1


def dangling(path):
    """Put a link in its place that leads nowhere."""
    path.symlink_to(path.with_name("not mounted"))


def looping(path):
    """Put a link in its place that leads to itself."""
    path.symlink_to(path.name)


@pytest.mark.parametrize("place", ["flows", "flows/F", "flows/F/1"])
@pytest.mark.parametrize("put_there", [dangling, looping, Path.touch])
def test_what_is_there_and_cannot_be_looked_into_stops_a_collection(store, place, put_there):
    """Runs may lie behind it; `verify` names it, and once it is back everything is whole."""
    write_run(store, "1", model=b"m" * BLOB)
    write_run(store, "2")
    age(store)
    (store / place).rename(store / "moved")
    put_there(store / place)
    before = everything(store)
    with pytest.raises(StoreError, match=rf"it is unknown what.*{place}.*nothing was deleted"):
        gc(store)
    assert everything(store) == before
    assert [found.file for found in verified(store)] == [place]
    (store / place).unlink()
    (store / "moved").rename(store / place)
    assert gc(store).kept.files == 1
    assert not verified(store)


@pytest.mark.parametrize("old", ["flows/F", "flows/F/1"])
@pytest.mark.parametrize("new", [".F", "1.bak", ".1", "backup", "F.bak", "7", "01", "٣"])
def test_what_was_renamed_stops_a_collection(store, old, new):
    """Whatever the name is: one that the store would not give, or another's."""
    write_run(store, "1", model=b"m" * BLOB, middling=b"s" * SEGMENT)
    write_run(store, "2")
    age(store)
    strange = (store / old).rename((store / old).with_name(new))
    before = everything(store)
    with pytest.raises((StoreError, JournalError), match=r"it is unknown.*nothing was deleted"):
        gc(store)
    assert everything(store) == before
    assert any(str(store / found.file).startswith(str(strange)) for found in verified(store))
    strange.rename(store / old)
    assert gc(store).kept.files == 1


@pytest.mark.parametrize("place", ["flows", "flows/F"])
def test_blobs_without_any_flow_stop_a_collection(store, place):
    """Somebody has moved all flows away, or their disk is not there."""
    write_run(store, "1", model=b"m" * BLOB)
    age(store)
    (store / place).rename(store / "moved")
    with pytest.raises(StoreError, match="the flows are gone, but there are blobs"):
        gc(store)
    assert len(blobs(store)) == 1
    assert [found.file for found in verified(store)] == ["flows"]


def test_a_store_without_flows_and_blobs_is_whole(store):
    """It is new, or has but limits."""
    Layout.open(store, create=True)
    assert gc(store).total == Amount()
    assert not verified(store)


def test_what_a_flow_on_another_disk_needs_is_kept(store, tmp_path):
    """A link is followed to read what runs refer to; behind it nothing is deleted."""
    write_run(store, "1", model=b"m" * BLOB)
    put(store, b"x" * BLOB)
    (store / "flows" / "F" / "1" / "w9.seg").write_bytes(b"of no use")
    age(store)
    elsewhere = (store / "flows" / "F").rename(tmp_path / "elsewhere")
    (store / "flows" / "F").symlink_to(elsewhere)
    collected = gc(store)
    assert (collected.kept.files, collected.blobs.files) == (1, 1)
    assert collected.links == [str(store / "flows" / "F")]
    assert (elsewhere / "1" / "w9.seg").exists()
    assert not verified(store)


@pytest.mark.parametrize("kept", ["index", "w1.seg", "inputs-7"])
@pytest.mark.parametrize("journal", [None, b"", HEADER])
def test_a_run_that_began_and_has_lost_what_tells_of_it_stops_a_collection(store, kept, journal):
    """Without journal and summary, any other file shows that there was something to lose."""
    write_run(store, "1", model=b"m" * BLOB)
    write_run(store, "2")
    folder = store / "flows" / "F" / "1"
    for path in folder.iterdir():
        path.unlink()
    (folder / kept).touch()
    if journal is not None:
        (folder / "journal").write_bytes(journal)
    age(store)
    before = everything(store)
    with pytest.raises(JournalError, match=f"it has no first event, but {kept} exists"):
        gc(store)
    assert everything(store) == before
    [found] = verified(store)
    assert (found.file, found.affected) == ("flows/F/1/journal", ["F/1"])
    assert here("rm", "F/1").status == 0
    assert gc(store).blobs.files == 1


def test_a_run_that_begins_while_it_is_looked_at_stops_no_collection(store, monkeypatch):
    """What the engine stores may be seen before the journal that it made first."""
    write_run(store, "1")
    folder = store / "flows" / "F" / "2"
    folder.mkdir()
    begun: list[RunWriter] = []

    def begin(run_dir):
        if run_dir == folder and not begun:
            folder.rmdir()
            begun.append(write_run(store, "2", end=False))
            (folder / "w1.seg").touch()
        return sign_of_beginning(run_dir)

    monkeypatch.setattr("asyncflow.store.maintenance.reachable.sign_of_beginning", begin)
    gc(store)
    [writer] = begun
    assert folder.exists()
    writer.close()


class Starting(FlowSpec):
    """One that stores something before its first event."""

    table = bytes(SEGMENT)

    @step
    def start(self):
        """Go on."""
        self.next(self.end)

    @step
    def end(self):
        """The end."""


@pytest.mark.parametrize("broken_off", [False, True])
async def test_until_its_first_event_no_file_of_a_run_shows_that_it_began(
    store, monkeypatch, broken_off
):
    """Wherever a crash comes in between, also when it is given up."""
    seen: dict[str, list[tuple[set[str], str]]] = {}

    def watch(name):
        for folder in (store / "flows" / "Starting").glob("[0-9]*"):
            files = {path.name for path in folder.iterdir()}
            seen.setdefault(name, []).append((files, sign_of_beginning(folder)))
        if broken_off and name == "run.begun":
            raise StoreError("broken off")

    async with Engine(store=store, workers=1) as engine:
        monkeypatch.setattr(commit_points, "watcher", watch)
        if broken_off:
            with pytest.raises(StoreError, match="broken off"):
                await engine.start(Starting)
        else:
            await engine.start(Starting)
        monkeypatch.setattr(commit_points, "watcher", None)
    assert {"run.created", "journal.create", "segment.append", "run.begin"} <= set(seen)
    assert seen["run.begin"] == [({"journal", "engine.seg"}, "")]
    for name, looks in seen.items():
        assert name == "run.begun" or not looks[0][1]
    assert len(Layout(store).runs("Starting")) == (not broken_off)


# --- beside others ------------------------------------------------------------------------------


def test_one_collects_at_a_time(store):
    """A second one waits for the first, and a removal for both."""
    write_run(store, "1")
    layout = Layout.open(store, create=False)
    done: list[Collected] = []
    with exclusive(layout):
        second = threading.Thread(target=lambda: done.append(collect(layout)))
        second.start()
        second.join(0.05)
        assert not done
    second.join()
    assert len(done) == 1


@pytest.mark.parametrize("command", [["gc"], ["rm", "F/1"]])
def test_who_waits_for_a_lock_says_for_whom(store, command):
    """Also where what holds it is no asyncflow: then it goes on as soon as it may."""
    write_run(store, "1")
    with (store / "format").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        process = start(*command)
        assert process.stderr is not None
        line = process.stderr.readline()
    said = end(process)
    held_by = f"process {os.getpid()}, which holds a lock on {store}/format"
    assert line == f"Waiting for {held_by}\n"
    assert (said.status, said.stderr) == (0, "")


def test_a_value_that_is_put_while_it_is_collected_is_there_afterwards(store):
    """Whoever comes first, in whichever order: a task that has put it finds it."""
    write_run(store, "1")
    layout = Layout.open(store, create=False)
    for number in range(40):
        value = b"%02d" % number * 150_000
        path = put(store, value)
        age(store)
        together = threading.Barrier(2)

        def collect_it(together=together):
            together.wait()
            collect(layout)

        collector = threading.Thread(target=collect_it)
        collector.start()
        together.wait()
        time.sleep(0.0005 * (number % 5))  # not always at the same moment of the other
        assert put(store, value) == path
        collector.join()
        assert path.exists()


def test_collections_beside_runs_take_none_of_their_values(store):
    """Engines start and workers put what lay there, old and unreferenced, while it is collected."""
    layout = Layout.open(store, create=True)
    write_run(store, "1")
    for number in range(4):
        put(store, b"%02d" % number * 150_000)
    age(store)
    stop = threading.Event()

    def collect_on() -> None:
        while not stop.wait(0.01):
            collect(layout)

    processes = [start("run", FLOW, "--workers", 2, "--quiet") for _ in range(2)]
    collector = threading.Thread(target=collect_on)
    collector.start()
    try:
        statuses = [end(process).status for process in processes]
    finally:
        stop.set()
        collector.join()
    assert statuses == [0, 0]
    assert not verify(layout).damage
    for run in Flow("Collected"):
        seen = [task.data.value[:2] for task in run["work"]]
        assert seen == [b"%02d" % (number % 4) for number in range(40)]


# --- at the command line ------------------------------------------------------------------------


def test_gc_prints_what_it_has_deleted(store):
    """Files and bytes, by kind; what would be, with `--dry-run`."""
    write_run(store, "1", model=b"m" * BLOB)
    put(store, b"x" * BLOB)
    age(store)
    said = here("gc", "--dry-run")
    assert said.stdout.startswith("Would delete 1 file, 293.0 KiB.\n")
    said = here("gc")
    assert said.stdout == (
        "Deleted 1 file, 293.0 KiB.\n"
        "    1 blob that no run refers to, 293.0 KiB\n"
        "Kept 1 blob that runs refer to.\n"
    )
    data = json.loads(here("gc", "--json").stdout)
    assert (data["total"], data["kept"]) == ({"files": 0, "size": 0}, {"files": 1})
