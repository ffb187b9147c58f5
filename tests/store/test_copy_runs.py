"""`copy`: a run with all that it needs is in the other store, at once or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from asyncflow import Engine, FlowSpec, Run, copy_runs, step
from asyncflow.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    CopyError,
    JournalError,
    NotFoundError,
    RunFailedError,
    StoreError,
)
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store import open_store
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import DRAFT_SECONDS, collect
from asyncflow.store.maintenance.remove import remove
from asyncflow.store.maintenance.verify import verify
from asyncflow.values import Status
from tests.support.command_line import here
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = Graph("F", [Node("start", ("end",)), Node("end")])
SEGMENT = b"s" * 5_000
BLOB = b"b" * 300_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where runs are copied from."""
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where they are copied to."""
    return tmp_path / "target"


def write(store, run_id, *, origin=None, over=True, tags=(), **values):
    """A run whose first task has printed something and has these values."""
    writer = RunWriter(store, "F", run_id, GRAPH, origin=origin, tags=tags)
    if origin is None:
        task = writer.start("start")
        writer.log(task, b"hello\n")
        writer.succeed(task, values)
    else:
        first = Run(f"F/{origin}", store=store)["start"].task
        refs = {artifact.id: artifact._ref for artifact in first}
        writer.clone("start", (), int(first.id), refs)
    end = writer.start("end")
    writer.succeed(end, values if origin else {})
    if over:
        writer.finish(Status.SUCCEEDED)
    else:
        writer.flush()
    return writer


def kept(store, run_id):
    """What a run's tasks have, and have printed."""
    tasks = [task for each in Run(f"F/{run_id}", store=store) for task in each]
    return [({each.id: each.data for each in task}, task.stdout) for task in tasks]


def check(store):
    """The store has no damage, and nothing lies about."""
    verified = verify(Layout.open(store, create=False))
    assert not verified.damage
    assert not verified.notes
    return verified


def test_a_run_is_copied_with_its_values_and_output(source, target):
    """And the source can go."""
    write(source, "100", segment=SEGMENT, blob=BLOB, inline=1).close()
    before = kept(source, "100")
    (done,) = copy_runs(source, target, "F/100")
    source.rename(source.with_name("gone"))
    assert kept(target, "100") == before
    assert (done.was_there, done.values, done.needed_by) == (False, 2, "")
    assert check(target).runs == 1
    with Run("F/100", store=target)._record.stored.open_journal() as journal:
        assert journal.size() > 0


def test_all_runs_are_copied_and_running_ones_are_not(source, target):
    """Without names; a running one that is named is refused."""
    for run_id in ("100", "200"):
        write(source, run_id, blob=BLOB).close()
    running = write(source, "300", over=False)
    try:
        done = copy_runs(source, target)
        assert [each.pathspec for each in done] == ["F/100", "F/200"]
        assert [each.known for each in done] == [0, 1]
        with pytest.raises(CopyError, match="F/300 is running"):
            copy_runs(source, target, "F/300")
    finally:
        running.journal.close()
    assert [each.was_there for each in copy_runs(source, target)] == [True, True, False]
    assert Run("F/300", store=target).status == "interrupted"


def test_what_a_run_has_taken_over_comes_with_it(source, target):
    """The whole chain of origins, each as the run that it is."""
    write(source, "100", segment=SEGMENT, blob=BLOB).close()
    write(source, "200", origin="100", more=SEGMENT * 2).close()
    write(source, "300", origin="200").close()
    before = [kept(source, run_id) for run_id in ("100", "200", "300")]
    done = copy_runs(source, target, "F/300")
    source.rename(source.with_name("gone"))
    assert [(each.run_id, each.needed_by) for each in done] == [
        ("100", "F/200") if done[0].needed_by == "F/200" else ("100", "F/300"),
        ("200", "F/300"),
        ("300", ""),
    ]
    assert [kept(target, run_id) for run_id in ("100", "200", "300")] == before
    check(target)


def test_of_a_removed_origin_what_is_needed_comes_along(source, target):
    """And is a removed run in the other store as well, which a collection keeps."""
    write(source, "100", segment=SEGMENT, blob=BLOB).close()
    write(source, "200", origin="100").close()
    remove(Layout.open(source, create=False), [("F", "100")])
    before = kept(source, "200")
    (done,) = copy_runs(source, target, "F/200")
    source.rename(source.with_name("gone"))
    assert done.removed == ("100",)
    assert Layout.open(target, create=False).runs("F") == ["200"]
    collect(Layout.open(target, create=False))
    assert kept(target, "200") == before
    assert before[0][1] == "hello\n"
    check(target)


def test_a_removed_origin_grows_when_another_run_needs_more_of_it(source, target):
    """Its files there are replaced by longer ones."""
    write(source, "100", first=SEGMENT, last=SEGMENT * 2).close()
    first = Run("F/100", store=source)["start"].task
    for run_id, names in (("200", {"first"}), ("300", {"first", "last"})):
        writer = RunWriter(source, "F", run_id, GRAPH, origin="100")
        refs = {each.id: each._ref for each in first if each.id in names}
        writer.clone("start", (), int(first.id), refs)
        writer.run("end")
        writer.finish(Status.SUCCEEDED)
        writer.close()
    remove(Layout.open(source, create=False), [("F", "100")])
    copy_runs(source, target, "F/200")
    assert copy_runs(source, target, "F/300")[0].removed == ("100",)
    assert kept(target, "200") == kept(source, "200")
    assert kept(target, "300") == kept(source, "300")
    check(target)


def test_a_run_that_was_copied_can_be_resumed_and_new_ones_are_newer(tmp_path):
    """The store goes on as if it had run there."""
    asked = tmp_path / "asked"

    class Fragile(FlowSpec):
        @step
        def start(self):
            self.data = b"x" * 400_000
            self.next(self.work)

        @step
        def work(self):
            if not asked.exists():
                raise ValueError
            self.size = len(self.data)
            self.next(self.end)

        @step
        def end(self):
            pass

    async def first() -> str:
        async with Engine(store=tmp_path / "a", workers=1) as engine:
            with pytest.raises(RunFailedError) as failed:
                await engine.run(Fragile)
            return str(failed.value.run.id)

    async def second(origin: str) -> Run:
        async with Engine(store=tmp_path / "b", workers=1) as engine:
            return await engine.resume(Fragile, origin=origin)

    import asyncio

    origin = asyncio.run(first())
    copy_runs(tmp_path / "a", tmp_path / "b", f"Fragile/{origin}")
    asked.touch()
    run = asyncio.run(second(origin))
    assert run.data.size == 400_000
    assert int(run.id) > int(origin)


def test_a_new_run_is_above_a_copied_one_with_a_clock_ahead(source, target):
    """The newest run is the one that was started last."""
    ahead = str(time.time_ns() // 1000 + 10**12)
    write(source, ahead).close()
    open_store(target, create=True).make_run("F").discard()
    copy_runs(source, target, f"F/{ahead}")
    assert int(open_store(target).make_run("F").run_id) > int(ahead)


def test_tags_are_copied(source, target):
    """Those of the start, and those that were changed afterwards."""
    write(source, "100", tags=("a",)).close()
    Run("F/100", store=source).add_tag("b")
    copy_runs(source, target, "F/100")
    assert Run("F/100", store=target).user_tags == {"a", "b"}


# --- what is wrong ------------------------------------------------------------------------------


def test_a_run_that_is_not_there(source, target):
    """The error says which are."""
    write(source, "100").close()
    with pytest.raises(NotFoundError, match="its latest: 100"):
        copy_runs(source, target, "F/7")
    with pytest.raises(ValueError, match="Flow/run"):
        copy_runs(source, target, "F")
    with pytest.raises(StoreError, match="there is no store"):
        copy_runs(target / "nothing", target, "F/1")
    with pytest.raises(CopyError, match="same store"):
        copy_runs(source, source, "F/100")


def test_another_run_with_the_same_id_is_left_alone(source, target):
    """Nothing is mixed."""
    write(source, "100", x=1).close()
    write(target, "100", x=2).close()
    with pytest.raises(CopyError, match="another run F/100"):
        copy_runs(source, target, "F/100")
    assert kept(target, "100")[0][0] == {"x": 2}


@pytest.mark.parametrize("pattern", ["flows/F/100/*.seg", "blobs/[0-9a-f]*/*"])
@pytest.mark.parametrize("gone", [True, False])
def test_a_value_that_is_damaged_or_gone_stops_the_copy(source, target, pattern, gone):
    """The run does not appear; after the repair, the copy goes on."""
    write(source, "100", segment=SEGMENT, blob=BLOB).close()
    (path,) = source.glob(pattern)
    data = path.read_bytes()
    path.unlink()
    if not gone:
        path.write_bytes(data[:100] + b"?" + data[101:])
    with pytest.raises(ArtifactMissingError if gone else ArtifactCorruptError):
        copy_runs(source, target, "F/100")
    assert open_store(target).runs("F") == []
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    copy_runs(source, target, "F/100")
    assert kept(target, "100") == kept(source, "100")


def test_a_damaged_journal_stops_the_copy(source, target):
    """Wherever the damage is; a torn end of an interrupted run is left out."""
    write(source, "100", segment=SEGMENT).close()
    path = source / "flows/F/100/journal"
    data = path.read_bytes()
    for damaged in (data[:60] + b"?" + data[61:], data[:-1] + b"?", data[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(JournalError):
            copy_runs(source, target, "F/100")
    path.write_bytes(data[:-20])
    for name in ("summary", "index"):
        (source / "flows/F/100" / name).unlink()
    copy_runs(source, target, "F/100")
    assert copy_runs(source, target, "F/100")[0].was_there
    assert Run("F/100", store=target).status == "interrupted"
    check(target)


def test_a_damaged_summary_is_left_out(source, target):
    """The journal has the same information."""
    write(source, "100", segment=SEGMENT).close()
    path = source / "flows/F/100/summary"
    path.write_bytes(path.read_bytes()[:20] + b"??" + path.read_bytes()[22:])
    copy_runs(source, target, "F/100")
    assert not (target / "flows/F/100/summary").exists()
    assert kept(target, "100") == [({"segment": SEGMENT}, "hello\n"), ({}, "")]


def test_two_that_copy_the_same_run(source, target):
    """The second is told to wait."""
    write(source, "100").close()
    store = open_store(target, create=True)
    with store.receive("F", "100"), pytest.raises(StoreError, match="is copying the run"):
        copy_runs(source, target, "F/100")
    copy_runs(source, target, "F/100")


# --- crashes ------------------------------------------------------------------------------------

KILLING = """
import os, sys
from asyncflow import copy_runs
from asyncflow._support import commit_points
from asyncflow.store import open_store
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.verify import verify

source, target = sys.argv[1:]

def copy_until(point):
    left = point
    def die(name):
        nonlocal left
        left -= 1
        if not left:
            os._exit(9)
    commit_points.watcher = die
    copy_runs(source, target, "F/200")
    os._exit(0)

point, killed = 0, []
while True:
    point += 1
    pid = os.fork()
    if not pid:
        copy_until(point)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    layout = Layout.open(target, create=False)
    verified = verify(layout)
    assert not verified.damage, (point, verified.damage)
    runs = layout.runs("F")
    assert runs in ([], ["200"]), (point, runs)
    if code == 9:
        killed.append(bool(runs))
    else:
        assert code == 0, (point, code)
        assert runs == ["200"]
        break
print(len(killed), sum(killed))
"""


def test_killed_at_any_commit_point_there_is_no_half_run(source, target):
    """Each attempt is killed one point later than the one before, and goes on from its files."""
    write(source, "100", segment=SEGMENT, blob=BLOB).close()
    write(source, "200", origin="100", more=SEGMENT, large=BLOB * 2).close()
    remove(Layout.open(source, create=False), [("F", "100")])
    before = kept(source, "200")
    open_store(target, create=True)
    done = subprocess.run(
        [sys.executable, "-c", KILLING, source, target],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, whole = map(int, done.stdout.split())
    assert killed >= 10
    assert whole <= 2  # after the last rename
    source.rename(source.with_name("gone"))
    assert kept(target, "200") == before
    collect(Layout.open(target, create=False))
    assert kept(target, "200") == before


def test_what_a_killed_copy_has_left_is_collected_after_a_day(source, target):
    """Not before, and not while it goes on."""
    write(source, "100", segment=SEGMENT).close()
    store = open_store(target, create=True)
    layout = Layout.open(target, create=False)
    with store.receive("F", "100") as incoming:
        incoming.put_file("tags", b"x")
        path = target / "copying/F/100/tags"
        collect(layout)
        os.utime(path, (time.time() - DRAFT_SECONDS - 10,) * 2)
        collect(layout)
        assert path.exists()
    collect(layout, dry_run=True)
    assert path.exists()
    assert verify(layout).notes
    assert collect(layout).leftovers.files == 1
    assert not path.parent.exists()
    copy_runs(source, target, "F/100")
    check(target)


# --- the command --------------------------------------------------------------------------------


def asyncflow(*arguments):
    """Run a command."""
    command = [sys.executable, "-m", "asyncflow", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_the_command(source, target):
    """For people, and as JSON for programs."""
    write(source, "100", segment=SEGMENT, blob=BLOB).close()
    write(source, "200", origin="100").close()
    done = asyncflow("copy", source, target, "F/200")
    assert done.returncode == 0, done.stderr
    assert "Copied F/100: " in done.stdout
    assert "because F/200 has taken tasks over from it" in done.stdout
    assert "Copied 2 runs, " in done.stdout
    again = asyncflow("copy", source, target, "--json")
    data = json.loads(again.stdout)
    assert [each["was_there"] for each in data["copied"]] == [True, True]
    assert asyncflow("copy", source, target, "F/7").returncode == 2
    assert asyncflow("copy", source, target, "7").returncode == 2
    assert asyncflow("copy", source, source).returncode == 2


def test_a_run_has_its_key_in_the_other_store_too(source, target):
    """So that nobody starts a second one there; also if a copy was killed before it gave it."""
    engine_run(source, key="order-42")
    (copied,) = copy_runs(source, target)
    assert copied.key == "order-42"
    there = open_store(target)
    assert there.run_of_key("Keyed", "order-42") == copied.run_id
    with there.holding_key("Keyed", "order-42") as holder:
        holder.give_to("1")  # a run that has not begun
    (again,) = copy_runs(source, target)
    assert again.was_there
    assert there.run_of_key("Keyed", "order-42") == copied.run_id
    assert engine_run(target, key="order-42").id == copied.run_id


def test_a_key_that_has_another_run_in_the_other_store_keeps_it(source, target):
    """And the command says so."""
    engine_run(source, key="order-42")
    other = engine_run(target, key="order-42")
    (copied,) = copy_runs(source, target)
    assert (copied.key, copied.key_has) == ("order-42", other.id)
    assert open_store(target).run_of_key("Keyed", "order-42") == other.id
    said = here("copy", str(source), str(target))
    assert f"The key 'order-42' of {copied.pathspec} stays with Keyed/{other.id}" in said.stdout


def test_a_run_that_gave_its_key_to_another_one_has_none(source, target):
    """`again` starts another run of the key, and that one has it from then on."""
    first = engine_run(source, key="order-42")
    second = engine_run(source, key="order-42", again=True)
    copied = {each.run_id: each.key for each in copy_runs(source, target)}
    assert copied == {first.id: "", second.id: "order-42"}
    assert open_store(target).run_of_key("Keyed", "order-42") == second.id


class Keyed(FlowSpec):
    """Does nothing."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def engine_run(store, **options):
    """A run in this store, or the one that has its key."""

    async def run():
        async with Engine(store=store, workers=1) as engine:
            return await (await engine.options(**options).start(Keyed)).wait()

    return asyncio.run(run())
