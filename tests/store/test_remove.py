"""`rm`: runs are removed at once and whole, and nothing goes that another run needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from shutil import which
from typing import TYPE_CHECKING

import msgpack
import pytest
from blake3 import blake3

from asyncflow import Engine, Flow, FlowSpec, Run, step
from asyncflow._support import commit_points
from asyncflow.errors import JournalError, NotFoundError, RemoveError, ResumeError, RunFailedError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.frames import frame
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import Amount, collect
from asyncflow.store.maintenance.remove import choose, remove
from asyncflow.store.maintenance.verify import verify
from asyncflow.values import Status
from tests.support.command_line import here, without_rights
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = Graph("F", [Node("start", ("end",)), Node("end")])
SEGMENT = 5_000
BLOB = 300_000
COMMANDS = (
    "runs",
    "runs F",
    "show F",
    "show F/1",
    "events F/1",
    "verify",
    "verify F",
    "gc",
    "rm F/1",
)


def write_run(store, run_id, *, end=True, origin=None, flow="F", **values):
    """A run whose first task printed something and has these values."""
    writer = RunWriter(store, flow, run_id, GRAPH, origin=origin)
    if origin is None:
        task = writer.start("start")
        writer.log(task, b"hello\n")
        writer.succeed(task, values)
    else:
        first = Run(f"{flow}/{origin}")["start"].task
        refs = {artifact.id: artifact._ref for artifact in first}
        writer.clone("start", (), int(first.id), refs)
    writer.run("end")
    if end:
        writer.finish(Status.FAILED if origin is None and values else Status.SUCCEEDED)
    else:
        writer.flush()
    return writer


def layout_of(store):
    """The store, as a command opens it."""
    return Layout.open(store, create=False)


def rm(store, *run_ids, **options):
    """Remove runs of F."""
    return remove(layout_of(store), [("F", run_id) for run_id in run_ids], **options)


def ids():
    """The runs of F that are listed."""
    return [run.id for run in Flow("F")]


# --- what is removed ----------------------------------------------------------------------------


def test_a_removed_run_is_gone_with_its_files(store):
    """What it took is counted; its blobs are left to the garbage collection."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2")
    Run("F/1").add_tag("changed")
    [removed] = rm(store, "1")
    assert removed.pathspec == "F/1"
    assert removed.freed.files == 5
    assert removed.freed.size > SEGMENT
    assert not removed.kept
    assert ids() == ["2"]
    assert not (store / "flows" / "F" / ".removed").exists()
    with pytest.raises(NotFoundError):
        Run("F/1")


def test_a_dry_run_tells_the_same_and_removes_nothing(store):
    """Bytes, and what would be kept for others."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2", origin="1")
    for name in ("times", ".times"):  # the second was being written when the engine was killed
        (store / "flows" / "F" / "1" / name).write_bytes(b"")
    [dry] = rm(store, "1", dry_run=True)
    assert ids() == ["2", "1"]
    [real] = rm(store, "1")
    assert dry == real
    assert real.kept == ("index", "journal", "summary", "times", "w1.seg")
    assert not real.strange


def test_a_dry_run_knows_what_is_needed_by_way_of_a_run_that_was_removed(store):
    """The third run's output lies in the first one, and only the second one's journal says so."""
    for run_id, origin in (("1", None), ("2", "1"), ("3", "2")):
        write_run(store, run_id, origin=origin)
    rm(store, "2")
    [dry] = rm(store, "1", dry_run=True)
    [real] = rm(store, "1")
    assert dry == real
    assert real.kept == ("index", "journal", "summary")
    assert Run("F/3")["start"].task.stdout == "hello\n"


def test_what_a_resume_took_over_stays_as_long_as_the_resume(store):
    """Values in segments, and what tasks printed; then the garbage collection has it."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2", origin="1")
    rm(store, "1")
    assert ids() == ["2"]
    task = Run("F/2")["start"].task
    assert (task.data.middling, task.stdout) == (b"s" * SEGMENT, "hello\n")
    assert not verify(layout_of(store)).damage
    assert collect(layout_of(store)).total == Amount()
    rm(store, "2")
    assert collect(layout_of(store)).removed.files == 4
    assert not (store / "flows" / "F" / ".removed").exists()


def test_a_chain_of_resumes_may_be_removed_in_any_order(store):
    """The last one has all that it needs, wherever it came from."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2", origin="1")
    write_run(store, "3", origin="2")
    rm(store, "2")
    rm(store, "1")
    collect(layout_of(store))
    task = Run("F/3")["start"].task
    assert (task.data.middling, task.stdout) == (b"s" * SEGMENT, "hello\n")


def test_what_is_not_the_stores_own_is_not_deleted_with_a_run(store):
    """It is named, and lies beside what is kept of removed runs."""
    write_run(store, "1")
    folder = store / "flows" / "F" / "1"
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    said = here("rm", "F/1")
    assert "left in .removed, because it is not the store's own: more, notes.txt" in said.stdout
    assert not folder.exists()
    kept = folder.parent / ".removed" / "1"
    assert {path.name for path in kept.iterdir()} == {"notes.txt", "more"}
    collect(layout_of(store))
    assert (kept / "notes.txt").read_text() == "mine"


def test_a_damaged_run_can_be_removed(store):
    """Whatever is the matter with it."""
    for number in range(1, 4):
        write_run(store, str(number))
    flows = store / "flows" / "F"
    (flows / "1" / "journal").write_bytes(b"?")
    (flows / "2" / "summary").write_bytes(b"?")
    (flows / "3" / "journal").unlink()
    rm(store, "1")
    rm(store, "2", "3")
    assert not layout_of(store).runs("F")


def test_beside_a_damaged_run_others_are_removed_and_their_files_kept(store):
    """Nobody can tell whether it needs them; once it is gone as well, they go."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2", origin="1")
    (store / "flows" / "F" / "2" / "journal").write_bytes(b"?")
    [removed] = rm(store, "1")
    assert "w1.seg" in removed.kept
    rm(store, "2")
    collect(layout_of(store))
    assert not (store / "flows" / "F" / ".removed").exists()


def test_beside_a_run_that_was_renamed_others_are_removed_and_their_files_kept(store):
    """It may need them."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    write_run(store, "2", origin="1")
    (store / "flows" / "F" / "2").rename(store / "flows" / "F" / "2.bak")
    [removed] = rm(store, "1")
    assert "w1.seg" in removed.kept
    (store / "flows" / "F" / "2.bak").rename(store / "flows" / "F" / "2")
    assert Run("F/2")["start"].task.data.middling == b"s" * SEGMENT


def test_a_run_that_is_removed_while_it_is_verified_is_no_damage(store):
    """Its files go with it, and nobody misses them."""
    write_run(store, "1", blob=b"b" * 300_000, middling=b"s" * SEGMENT)
    write_run(store, "2")
    removed: list[object] = []

    def remove_it(_):
        if not removed:
            removed.extend(rm(store, "1"))

    found = verify(layout_of(store), on_progress=remove_it)
    assert removed
    assert not found.damage


# --- what is refused ----------------------------------------------------------------------------


def test_a_run_of_a_later_format_is_no_damage_and_is_not_removed(store):
    """This version cannot tell whether it is running, nor what it needs; it says to upgrade."""
    write_run(store, "1")
    write_run(store, "2", large=b"l" * BLOB)
    path = store / "flows" / "F" / "2" / "journal"
    path.write_bytes(path.read_bytes().replace(b"JOURNAL 2", b"JOURNAL 3", 1))
    verified = verify(layout_of(store))
    assert not verified.damage
    later = "a later version of asyncflow wrote it, in format 3; not verified: upgrade asyncflow"
    assert any(later in note for note in verified.notes)
    with pytest.raises(RemoveError, match=r"in format 3, and this one cannot tell.*: upgrade"):
        rm(store, "1", "2")
    assert ids() == ["2", "1"]
    said = here("gc")
    assert said.status == 1
    assert "nothing was deleted" in said.stderr
    assert "asyncflow rm" not in said.stderr
    assert here("rm", "F/1").status == 0


def test_a_record_of_a_later_version_stops_a_collection_and_asks_for_an_upgrade(store):
    """It does not ask to remove the run."""
    writer = write_run(store, "1", end=False)
    writer.close()
    path = store / "flows" / "F" / "1" / "journal"
    with path.open("ab") as journal:
        journal.write(frame(msgpack.packb([99, 9, 0])))
    said = here("gc")
    assert said.status == 1
    assert "a later version of asyncflow wrote the record" in said.stderr
    assert "upgrade asyncflow; nothing was deleted" in said.stderr
    assert "asyncflow rm" not in said.stderr


def test_a_running_run_is_refused_and_nothing_is_removed(store):
    """Not even the others that were named."""
    write_run(store, "1")
    writer = write_run(store, "2", end=False)
    with pytest.raises(RemoveError, match="F/2 is running: wait for its end, or cancel it"):
        rm(store, "1", "2")
    assert ids() == ["2", "1"]
    writer.close()
    rm(store, "1", "2")
    assert not ids()


def test_a_run_that_is_not_there_is_refused_and_nothing_is_removed(store):
    """The error tells which."""
    write_run(store, "1")
    with pytest.raises(NotFoundError, match="F has no run '7'"):
        rm(store, "1", "7")
    assert ids() == ["1"]


def test_a_run_that_is_being_resumed_is_refused(store):
    """The resume may come to its tasks later."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    writer = write_run(store, "2", origin="1", end=False)
    with pytest.raises(RemoveError, match="F/1 is needed: F/2 is running and takes"):
        rm(store, "1")
    writer.close()
    rm(store, "1")


def test_so_is_one_that_the_origin_had_not_taken_over_all_of(store):
    """A resume was broken off early; the next one takes the rest from where it would have."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    RunWriter(store, "F", "2", GRAPH, origin="1").close()
    writer = RunWriter(store, "F", "3", GRAPH, origin="2")
    writer.flush()
    for needed in ("1", "2"):
        with pytest.raises(RemoveError, match=f"F/{needed} is needed: F/3 is running"):
            rm(store, needed)
    writer.close()
    rm(store, "1", "2")


def test_a_resume_that_begins_while_its_origin_is_removed_keeps_it(store, monkeypatch):
    """Its first event is on disk when the removal looks again: the origin is put back."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    begun = []

    def watch(name):
        if name == "rm.renamed":
            begun.append(RunWriter(store, "F", "2", GRAPH, origin="1"))
            begun[0].flush()

    monkeypatch.setattr(commit_points, "watcher", watch)
    with pytest.raises(RemoveError, match="F/1 is needed"):
        rm(store, "1")
    monkeypatch.setattr(commit_points, "watcher", None)
    assert Run("F/1")["start"].task.data.middling == b"s" * SEGMENT
    begun[0].close()


class Fails(FlowSpec):
    """Its last step fails."""

    @step
    def start(self):
        self.middling = b"s" * SEGMENT
        self.next(self.end)

    @step
    def end(self):
        raise ValueError


async def test_a_resume_whose_origin_goes_before_it_has_begun_is_refused(store, monkeypatch):
    """The error says so, and there is no run that would refer to what is gone."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Fails)
        origin = handle.run_id
        async for _ in handle.events():
            pass

        def watch(name):
            if name == "run.begin":
                remove(layout_of(store), [("Fails", origin)])

        monkeypatch.setattr(commit_points, "watcher", watch)
        with pytest.raises(ResumeError, match=f"Fails/{origin} has just been removed: start"):
            await engine.resume(Fails, origin=origin)
        monkeypatch.setattr(commit_points, "watcher", None)
    assert not layout_of(store).runs("Fails")


# --- which runs ---------------------------------------------------------------------------------


def ago(days):
    """The id of a run that was started so many days ago."""
    return str(int((time.time() - days * 86_400) * 1e6))


def test_filters_choose_the_old_ones_but_the_last_few_of_each_flow(store):
    """A running one is left, and told of."""
    runs = [ago(days) for days in (1, 10, 20, 30)]
    for run_id in runs[:3]:
        write_run(store, run_id)
    writer = write_run(store, runs[3], end=False)
    write_run(store, ago(40), flow="G")
    layout = layout_of(store)
    chosen = choose(layout, ["F", "G"], older_than=15 * 86_400, keep_last=1)
    assert chosen.runs == (("F", runs[2]),)
    assert chosen.running == (("F", runs[3]),)
    assert len(choose(layout, ["F", "G"], older_than=15 * 86_400, keep_last=0).runs) == 2
    assert choose(layout, ["F"], older_than=None, keep_last=2).runs == (("F", runs[2]),)
    writer.close()


def test_rm_at_the_command_line_removes_what_the_filters_choose(store):
    """And says what; `--dry-run` only says it."""
    old, young = ago(40), ago(1)
    for run_id in (old, young):
        write_run(store, run_id)
    write_run(store, old, flow="G")
    said = here("rm", "--flow", "F", "--older-than", "30d", "--dry-run")
    assert said.stdout.startswith(f"Would remove F/{old}: 3 files, ")
    said = here("rm", "--flow", "F", "--older-than", "30d")
    assert said.stdout.startswith(f"Removed F/{old}: 3 files, ")
    assert "`asyncflow gc` frees their blobs" in said.stdout
    assert ids() == [young]
    assert [run.id for run in Flow("G")] == [old]
    data = json.loads(here("rm", "--all-flows", "--keep-last", "0", "--json").stdout)
    assert {each["pathspec"] for each in data["removed"]} == {f"F/{young}", f"G/{old}"}
    assert not ids()


NOT_YET = (
    "blobs: 1 blob is referred to by nothing that can be read: mend the damage, then asyncflow gc"
)


@pytest.mark.parametrize("place", ["journal", "summary", "index", "times"])
def test_no_command_waits_for_a_pipe_in_the_place_of_a_file(store, place):
    """It is damage, or the file is one that need not be read."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    path = store / "flows" / "F" / "1" / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert "not a regular file" in here("verify").stdout
    statuses = [
        here(*command.split()).status
        for command in ("show F/1", "logs F/1", "events F/1", "dump F/1/start", "gc")
    ]
    assert statuses == ([1] * 5 if place == "journal" else [0] * 5)
    assert here("runs").status == 0
    assert here("rm", "F/1").status == 0
    assert not path.exists()


def test_no_command_waits_for_a_pipe_in_the_place_of_the_format(store):
    """The error names the file."""
    write_run(store, "1")
    (store / "format").unlink()
    os.mkfifo(store / "format")
    for command in ("verify", "gc", "runs", "show F/1", "rm F/1"):
        said = here(*command.split())
        assert said.status == 1
        assert f"{store / 'format'}: not a regular file" in said.stderr


async def test_a_resume_waits_for_no_pipe(store):
    """In the place of the origin's journal it ends with an error, as any other damage does."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Fails)
        with pytest.raises(RunFailedError):
            await handle
        journal = store / "flows" / "Fails" / handle.run_id / "journal"
        journal.unlink()
        os.mkfifo(journal)
        with pytest.raises(JournalError, match=r"cannot be resumed: .*not a regular file"):
            await engine.resume(Fails, origin=handle.run_id)


def stray_blob(store: Path) -> None:
    """A blob that no run refers to."""
    digest = blake3(b"?").hexdigest()
    shard = store / "blobs" / digest[:2]
    shard.mkdir(parents=True, exist_ok=True)
    (shard / digest).write_bytes(b"?")


def test_verify_sends_nobody_to_gc_that_would_refuse(store):
    """Beside a journal that is damaged, nobody can tell what is unreferenced."""
    write_run(store, "1")
    stray_blob(store)
    assert "blobs: 1 blob is unreferenced: asyncflow gc\n" in here("verify").stdout
    (store / "flows" / "F" / "1" / "journal").write_bytes(b"no journal")
    assert f"{NOT_YET}\n" in here("verify").stdout
    assert here("gc").status == 1


def test_a_flow_whose_folder_may_not_be_read_hides_no_other(store):
    """`runs` and `rm` pass over it and say so, `verify` tells of it, and `gc` says why not."""
    for flow in ("F", "Secret"):
        for run_id in ("1", "2"):
            write_run(store, run_id, flow=flow)
    stray_blob(store)
    secret = store / "flows" / "Secret"
    secret.chmod(0)
    try:
        runs = without_rights("runs")
        verified = without_rights("verify")
        collected = without_rights("gc")
        removed = without_rights("rm", "--all-flows", "--keep-last", "1")
    finally:
        secret.chmod(0o700)
    why = f"cannot read the folder {secret}: Permission denied; change its rights"
    for said in (runs, removed):
        assert said.status == 0, said
        assert said.stderr == f"Skipped: {why}\n"
    assert "F/1" in runs.stdout
    assert "F/2" in runs.stdout
    assert removed.stdout.startswith("Removed F/1: ")
    assert (ids(), [run.id for run in Flow("Secret")]) == (["2"], ["2", "1"])
    assert verified.status == 1
    assert f"Damaged: flows/Secret: {why}\n    affects Secret\n" in verified.stdout
    assert "Read 2 runs" in verified.stdout
    assert NOT_YET in verified.stdout
    assert collected.status == 1
    assert f"it is unknown what the runs of Secret need: {why}" in collected.stderr
    assert "nothing was deleted" in collected.stderr


@pytest.mark.parametrize("place", ["flows/F/1", "flows/F", "flows", "blobs", "blobs/{shard}"])
def test_a_folder_that_may_not_be_read_is_told_of_by_name(store, place):
    """With what to do about it: a number of the system's alone is no answer."""
    write_run(store, "1", model=b"m" * BLOB)
    write_run(store, "2")
    [shard] = [path.name for path in (store / "blobs").iterdir() if path.name != "new"]
    folder = store / place.format(shard=shard)
    folder.chmod(0)
    try:
        said = {name: without_rights(*name.split()) for name in COMMANDS}
    finally:
        folder.chmod(0o700)
    for name, each in said.items():
        assert "Errno" not in each.stderr, name
        assert "Traceback" not in each.stderr, name
    assert said["verify"].status == 1
    assert f"Damaged: {folder.relative_to(store)}" in said["verify"].stdout
    assert said["gc"].status == 1
    assert "Permission denied; change its rights" in said["gc"].stderr
    if place.startswith("flows"):
        assert "nothing was deleted" in said["gc"].stderr
        assert str(folder) in said["runs"].stderr
        assert [said[name].status for name in ("show F/1", "rm F/1")] != [0, 0]
    if place == "flows/F/1":
        assert "F/2" in said["runs"].stdout
        assert said["runs"].status == said["runs F"].status == 0
        assert said["runs"].stderr.startswith("Skipped: the journal of F/1 cannot be read")


def test_a_link_that_leads_to_itself_is_told_of_by_name(store):
    """It hides no other flow."""
    write_run(store, "1")
    loop = store / "flows" / "Loop"
    loop.symlink_to("Loop")
    said = {
        name: here(*name.split()) for name in ("runs", "verify", "runs Loop", "show Loop", "gc")
    }
    reason = "it cannot be reached: Too many levels of symbolic links; restore it"
    assert said["runs"].status == 0
    assert "F/1" in said["runs"].stdout
    assert f"Skipped: {loop}: {reason}" in said["runs"].stderr
    assert f"Damaged: flows/Loop: {reason}" in said["verify"].stdout
    for name in ("runs Loop", "show Loop", "gc"):
        assert said[name].status == 1
        assert f"{loop}: {reason}" in said[name].stderr


@pytest.mark.skipif(os.geteuid() != 0 or which("unshare") is None, reason="only root can mount")
def test_on_a_read_only_file_system_rm_and_gc_say_what_it_is(store):
    """No change of rights would help."""
    write_run(store, "1", middling=b"s" * SEGMENT)
    (store / "flows" / "F" / "1" / "w9.seg").touch()
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    for command in (["rm", "F/1"], ["gc"]):
        asked = ["unshare", "-m", "sh", "-c", mount, str(store)]
        asked += [sys.executable, "-m", "asyncflow", *command, "--store", str(store)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=180, check=False)
        if "mount" in done.stderr and "permitted" in done.stderr:
            pytest.skip("no mount is permitted here")
        assert done.returncode == 1
        assert "Read-only file system; make that file system writable" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name runs as FLOW/RUN, or choose them"),
        (["F/1", "--keep-last", "1"], "name runs as FLOW/RUN, or choose them"),
        (["F"], "'F' is not of the form Flow/run"),
        (["--older-than", "soon"], "'soon' is not an age: write 30d"),
        (["--keep-last", "0"], "choose a flow with --flow F, or give --all-flows"),
        (["--older-than", "0s"], "choose a flow with --flow F, or give --all-flows"),
        (["--all-flows", "--flow", "F", "--keep-last", "0"], "excludes --flow"),
        (["--all-flows", "F/1"], "--all-flows needs --older-than or --keep-last"),
        (["F/7"], "; its latest: 1"),
        (["--flow", "H", "--keep-last", "1"], "has no flow 'H'; it has F"),
    ],
)
def test_rm_refuses_what_is_not_clear(store, arguments, words):
    """Wrong usage: exit status 2, and nothing is removed."""
    write_run(store, "1")
    said = here("rm", *arguments)
    assert said.status == 2
    assert words in said.stderr
    assert ids() == ["1"]
