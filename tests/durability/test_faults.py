"""A write that fails, a disk that is full or gone: one clear message, nothing lost, resumable."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from asyncflow import Flow, Run
from asyncflow.errors import StoreError
from asyncflow.store import blobs, journal, local_store, segments
from asyncflow.values import Status
from tests.client.test_client import linear
from tests.durability.chaos.spoiling import MODES, Fault, Spoiler, count_up
from tests.support.command_line import (
    Said,
    asyncflow,
    damage,
    end,
    latest,
    read_until,
    start,
    succeeded,
)
from tests.support.file_faults import Faults

slow = pytest.mark.slow

# --- the n-th operation on the store -------------------------------------------------------------

SAMPLED = [
    Fault("engine", "fail", "power", 12),
    Fault("engine", "full", "crash", 5),
    Fault("engine", "torn", "crash", 8),
    Fault("engine", "late", "crash", 7),
    Fault("worker", "fail", "crash", 2),
    Fault("worker", "full", "crash", 1),
    Fault("worker", "torn", "power", 5),
    Fault("worker", "late", "power", 3),
]


@pytest.fixture(scope="module")
def spoiler(tmp_path_factory):
    """One store for the whole file: a fault must not depend on what was there before."""
    return Spoiler(tmp_path_factory.mktemp("spoilt"))


@pytest.mark.parametrize("fault", SAMPLED, ids=str)
def test_a_spoilt_operation_loses_nothing_that_was_announced(spoiler, fault):
    """Opening, writing, syncing, renaming, deleting: the store is whole, and a resume completes."""
    assert spoiler.spoil(fault)


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["crash", "power"])
@pytest.mark.parametrize("role", ["engine", "worker"])
@pytest.mark.parametrize("mode", MODES)
def test_every_spoilt_operation_loses_nothing(role, mode, durability):
    """N counts up until a run passes without the fault."""
    assert count_up(role, mode, durability) >= 3


@pytest.mark.parametrize("mode", MODES)
def test_a_spoilt_change_of_tags_is_made_whole_or_not_at_all(store, monkeypatch, mode):
    """What was reported as done is done, and the next change is not hindered."""
    before, after = frozenset({"a", "b"}), frozenset({"b", "c"})
    linear(store, tags=tuple(before))
    run, log = Run("F/100"), store.parent / "fault.log"
    for nth in range(1, 20):
        run.replace_tags(run.user_tags, before)
        with monkeypatch.context() as patch:
            faults = Faults(str(store), nth, mode, log)
            for owner, name in [(os, name) for name in faults.real] + [(Path, "open")]:
                patch.setattr(owner, name, getattr(owner, name))
            for module in (journal, segments, blobs, local_store):
                patch.setattr(module, "sync_file", module.sync_file)
            patch.setattr(Path, "write_bytes", Path.write_bytes)
            faults.install_wide()
            failed = False
            try:
                run.replace_tag("a", "c")
            except StoreError:
                failed = True
        assert run.user_tags in ((before, after) if failed else (after,)), nth
        assert not damage(store)
        if not log.exists():
            break
        log.unlink()
    assert 4 < nth < 19


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("EDQUOT", "Disk quota exceeded; make room there, or have the quota raised, or choose"),
        ("EIO", "Input/output error; look the disk up in the system's log, or choose"),
        pytest.param("EROFS", "; make that file system writable, or", marks=pytest.mark.slow),
        pytest.param("ESTALE", "; put back what was deleted or moved, or", marks=pytest.mark.slow),
        pytest.param("EACCES", "Permission denied; change its rights, or", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("role", ["engine", "worker"])
def test_each_reason_comes_with_what_to_do(spoiler, role, reason, words):
    """One message, whether the engine meets it or a worker; and then all the promises."""
    fault = Fault(role, reason, "crash", 8 if role == "engine" else 1)
    assert spoiler.spoil(fault, words)


@pytest.mark.parametrize("role", ["engine", "worker"])
def test_a_disk_that_cannot_sync_fails_the_run(spoiler, role):
    """With `durability = "power"`: nobody is told of what a power cut could take."""
    assert spoiler.spoil(Fault(role, "unsynced", "power", 2), "Input/output error")


# --- a disk, a file system, a folder -------------------------------------------------------------

FLOW = Path(__file__).parents[1] / "support" / "storing_flow.py"
_PRCTL = ctypes.CDLL(None).prctl
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


class Disk:
    """A small file system of its own, whose size and rights can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        """Mount it, or change how it is mounted."""
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder],
            check=True,
            capture_output=True,
        )


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk of 2 MB, with the store of this test on it."""
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    try:
        disk.mount("size=2m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    monkeypatch.setenv("ASYNCFLOW_STORE", str(disk.folder / "store"))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk.folder], check=True)


def begin(folder: Path, size: int) -> tuple[subprocess.Popen[str], str, Path]:
    """A run of six tasks, of which three are done; what it has said, and what the others await."""
    go = folder / "go"
    process = start("run", FLOW, "--size", size, "--width", 6, "--workers", 2, GO=str(go))
    return process, read_until(process, "Task finished", 4), go


def check_kept(said: Said, answer: int) -> None:
    """What was announced is there, the store is sound, and a resume comes to the right answer."""
    run = latest("Storing")
    assert run.status in {Status.FAILED, Status.INTERRUPTED}, said
    assert said.announced, said
    assert said.announced <= succeeded(run), said
    assert not damage(Path(run.store))
    resumed = asyncflow("resume", FLOW, "--origin-run-id", run.id)
    assert resumed.status == 0, resumed
    assert f"answer {answer}" in resumed.stdout


@pytest.mark.parametrize(
    ("place", "size", "width"),
    [
        ("blobs", 300_000, 12),
        pytest.param("segments", 30_000, 100, marks=slow),  # as below, with other files
        ("journal", 1000, 2400),
    ],
)
def test_a_disk_that_is_full_fails_the_run_and_loses_nothing(disk, place, size, width):
    """Wherever the values lie; and once there is room, a resume completes."""
    said = asyncflow("run", FLOW, "--size", size, "--width", width, "--workers", 2)
    assert said.status == 1, place
    assert "No space left on device; make room there, or choose another" in said.stderr
    assert said.stderr.count("No space left") == 1
    assert "asyncflow resume" in said.stderr
    disk.mount("remount,size=50m")
    check_kept(said, size * width)


def test_a_disk_that_is_full_from_the_start_starts_nothing(disk):
    """The error says so, and no half of a run is left behind."""
    assert asyncflow("run", FLOW, "--width", 1).status == 0
    with suppress(OSError), (disk.folder / "rest").open("wb") as rest:
        while True:
            rest.write(bytes(4096))
            rest.flush()
    said = asyncflow("run", FLOW, "--width", 1)
    assert said.status == 1
    assert "No space left on device" in said.stderr
    runs = disk.folder / "store" / "flows" / "Storing"
    assert [path.name for path in runs.glob("[0-9]*")] == [latest("Storing").id]


def test_a_read_only_store_can_be_looked_at_and_says_what_it_is(disk):
    """Nothing that only reads is refused; what would write says why it cannot."""
    assert asyncflow("run", FLOW, "--width", 1).status == 0
    run = latest("Storing").pathspec
    disk.mount("remount,ro")
    for command in (["run", FLOW], ["rm", run]):
        said = asyncflow(*command)
        assert said.status == 1, said
        assert said.stderr.startswith("Error: "), said
        assert "Read-only file system" in said.stderr, said
    assert asyncflow("verify").status == 0
    assert asyncflow("gc", "--dry-run").status == 0
    disk.mount("remount,rw")
    assert asyncflow("rm", run).status == 0


def test_a_store_that_is_moved_under_a_run_fails_it(store, tmp_path):
    """The run says that its journal is gone; where the store is now, it can be resumed."""
    process, seen, go = begin(tmp_path, 2000)
    store.rename(tmp_path / "moved")
    go.touch()
    said = end(process, seen)
    assert said.status == 1, said
    assert str(store) in said.stderr
    assert "put back what was deleted or moved" in said.stderr
    (tmp_path / "moved").rename(store)
    check_kept(said, 2000 * 6)


def test_a_store_that_is_deleted_under_a_run_fails_it(store, tmp_path):
    """No success is announced of which nothing is left."""
    process, seen, go = begin(tmp_path, 10)
    shutil.rmtree(store)
    go.touch()
    said = end(process, seen)
    assert said.status == 1, said
    assert "put back what was deleted or moved" in said.stderr


# --- rights and limits --------------------------------------------------------------------------


def obey_rights() -> None:
    """Have this process, root's or not, obey the rights of files, once it executes a program."""
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        _PRCTL(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize("command", ["run", pytest.param("resume", marks=slow)])
def test_a_store_that_may_not_be_written_says_so(store, command):
    """Which folder, and what to do; once it may, all goes on."""
    assert asyncflow("run", FLOW, "--width", 1).status == 0
    run = latest("Storing").id
    flows = store / "flows" / "Storing"
    flows.chmod(0o500)
    arguments = ["run", FLOW] if command == "run" else ["resume", FLOW, "--origin-run-id", run]
    said = asyncflow(*arguments, preexec=obey_rights)
    assert said.status == 1, said
    assert f"{flows} may not be used: " in said.stderr
    assert "change its rights" in said.stderr
    flows.chmod(0o700)
    assert asyncflow(*arguments, preexec=obey_rights).status == 0


@pytest.mark.parametrize("name", ["journal", pytest.param("summary", marks=slow), "index"])
def test_a_run_that_may_not_be_read_says_so(store, name):
    """Reading it is an error that names it, or right all the same; never our traceback."""
    assert asyncflow("run", FLOW, "--width", 1).status == 0
    run = latest("Storing").pathspec
    (store / "flows" / run / name).chmod(0)
    for command in (["logs", f"{run}/end/4"], ["dump", run]):
        said = asyncflow(*command, preexec=obey_rights)
        if name == "journal":
            assert said.status == 1, said
            assert run in said.stderr
            assert "Permission denied" in said.stderr
        else:
            assert said.status == 0, said
    found = asyncflow("verify", preexec=obey_rights)
    assert found.status == 1
    assert f"{run}/{name}: it cannot be read: Permission denied" in found.stdout
    if name == "journal":
        assert "nothing was deleted" in asyncflow("gc", preexec=obey_rights).stderr


@pytest.mark.parametrize(
    "limit",
    [10, pytest.param(14, marks=slow), 20, pytest.param(24, marks=slow)],
)
def test_descriptors_that_are_used_up_are_a_clear_error(store, limit):
    """Wherever the engine runs out of them: no traceback, and nothing is lost."""

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    said = asyncflow("run", FLOW, "--workers", 2, preexec=few_files)
    if said.status:
        assert said.status == 1, said
        assert "Too many open files" in said.stderr, said
        assert "ulimit -n" in said.stderr, said
    if said.announced:
        assert not damage(store)
        assert said.announced <= succeeded(latest("Storing"))


@pytest.mark.parametrize("megabytes", [130, 200, 260])
def test_memory_that_is_too_little_for_a_thread_is_a_clear_error(store, megabytes):
    """In the engine's process; the run ends well, or one line says what is short."""

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 1000 * 1024,) * 2)

    said = asyncflow("run", FLOW, "--workers", 1, preexec=little_memory)
    assert "Traceback" not in said.stderr, said
    if said.status:
        assert said.status == 1, said
        assert "memory" in said.stderr, said


# --- no locks -----------------------------------------------------------------------------------

WITHOUT_LOCKS = """
import errno, fcntl, os, sys

def flock(descriptor, operation):
    raise OSError({number}, os.strerror({number}))

fcntl.flock = flock
from asyncflow.cli import main
main()
"""


def without_locks(number: int, *arguments: object) -> Said:
    """Run a command where no file system has locks, as some network file systems have none."""
    code = WITHOUT_LOCKS.format(number=number)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(FLOW.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return end(process)


@pytest.mark.parametrize("number", [errno.ENOLCK, pytest.param(errno.ENOTSUP, marks=slow)])
def test_a_store_without_file_locks_is_detected(store, number):
    """What has to know who is running is refused, and leaves nothing; what only reads is not."""
    assert asyncflow("run", FLOW, "--width", 1).status == 0
    run = latest("Storing")
    resume = ["resume", FLOW, "--origin-run-id", run.id]
    for command in (["run", FLOW, "--width", 1], resume, ["gc"], ["rm", run.pathspec]):
        said = without_locks(number, *command)
        assert said.status == 1, said
        assert "has no file locks" in said.stderr, said
        assert "on a local disk" in said.stderr, said
    assert without_locks(number, "dump", run.pathspec).status == 0
    assert without_locks(number, "verify").status == 0
    assert [each.id for each in Flow("Storing")] == [run.id]
    assert len(list((store / "flows" / "Storing").glob("[0-9]*"))) == 1


# --- many at once -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=slow)])
def test_processes_that_start_at_once_in_a_fresh_store_each_have_a_run(store, count):
    """They make the store together, and none is in another's way."""
    processes = [start("run", FLOW, "--width", 2, "--size", 2000) for _ in range(count)]
    said = [end(process) for process in processes]
    assert [each.status for each in said] == [0] * count, said
    assert len(list(Flow("Storing"))) == count
    assert not damage(store)


def test_processes_that_resume_the_same_run_at_once_each_have_a_run(store, tmp_path):
    """Both take over what had finished and come to the right answer; the origin stays as it is."""
    process, _, _ = begin(tmp_path, 2000)
    process.kill()
    process.communicate()
    origin = latest("Storing")
    assert origin.status is Status.INTERRUPTED
    resume = ["resume", FLOW, "--origin-run-id", origin.id]
    said = [end(process) for process in [start(*resume), start(*resume)]]
    assert [each.status for each in said] == [0, 0], said
    assert all("answer 12000" in each.stdout for each in said)
    runs = list(Flow("Storing"))
    assert [run.origin_run_id for run in runs] == [origin.id, origin.id, None]
    assert not damage(store)


def test_a_run_that_is_running_cannot_be_resumed_by_another_process(store, tmp_path):
    """The reason is told, and the run goes on."""
    process, seen, go = begin(tmp_path, 10)
    said = asyncflow("resume", FLOW, "--origin-run-id", latest("Storing").id)
    assert said.status == 2, said
    assert "is still running: wait for its end, or cancel it" in said.stderr
    go.touch()
    assert end(process, seen).status == 0
    assert len(list(Flow("Storing"))) == 1
