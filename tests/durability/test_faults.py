"""The n-th operation on the store fails: nothing announced is lost, and a resume completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import Flow, Run, events
from asyncflow.values import Status
from tests.support.command_line import own_frames
from tests.support.file_faults import MODES

FLOW = Path(__file__).parents[1] / "support" / "faulty_flow.py"
TOTAL = sum(5000 * n for n in range(3))
MOST = 60  # operations of a run in one process; a run has fewer

SAMPLED = [
    *[("engine", mode, nth) for mode in MODES for nth in (2, 5, 8)],
    *[("worker", mode, nth) for mode in MODES for nth in (1, 3)],
]


def command(*arguments, **environ):
    """Run the command line in the store of this test; no output is ever our own traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "asyncflow", *map(str, arguments)],
        env={**os.environ, **environ, "PYTHONPATH": str(FLOW.parent.parent)},
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert not own_frames(done.stderr + done.stdout), done.stderr + done.stdout
    return done


def spoil(store, log, role, mode, nth, words="", **environ):
    """One run with one fault, and then all the promises."""
    for old in store.glob("flows/Faulty/*"):
        old.rename(store.parent / f"old-{old.name}")
    log.unlink(missing_ok=True)
    fault = {"FAULT_ROLE": role, "FAULT_MODE": mode, "FAULT_NTH": str(nth)}
    fault |= {"FAULT_STORE": str(store), "FAULT_LOG": str(log)}
    run = command("run", FLOW, **fault, **environ)
    came = log.exists()
    context = f"{role} {mode} {nth}: {run.stdout}{run.stderr}"
    assert run.returncode in ({0, 1} if came else {0}), context
    if words:
        assert came, context
        assert words in run.stderr, context
    announced = set(re.findall(r"/(\w+/\d+) \(pid \d+\)\] Task finished", run.stdout))
    latest = Flow("Faulty").latest_run if (store / "flows" / "Faulty").exists() else None
    if latest is not None:
        check(latest, announced, context)
    return came


def check(latest, announced, context):
    """What was announced is there, and a resume completes with the right answer."""
    assert latest.status is not Status.RUNNING, context
    kept = {
        f"{event.step}/{event.task_id}"
        for event in latest.events()
        if isinstance(event, events.TaskSucceeded)
    }
    assert announced <= kept, context
    for step in latest:
        for task in step:
            if task.successful and step.id == "work":
                assert task.stdout.startswith("working"), context
            assert all(artifact.data is not None for artifact in task), context
    resumed = command("resume", FLOW, "--origin-run-id", latest.id)
    assert resumed.returncode == 0, context + resumed.stdout + resumed.stderr
    again = Flow("Faulty").latest_run
    assert isinstance(again, Run)
    assert (again.data.total, again.data.check) == (TOTAL, 512_000), context


@pytest.fixture(scope="module")
def module_store(tmp_path_factory):
    """A store for the whole file: a fault must not depend on what was there before."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCFLOW_STORE", str(folder / "store"))
        yield folder / "store"


@pytest.mark.parametrize(("role", "mode", "nth"), SAMPLED)
def test_a_fault_loses_nothing_that_was_announced(module_store, tmp_path, role, mode, nth):
    """Whatever write it hits, the store opens, announced tasks are kept, and a resume completes."""
    spoil(module_store, tmp_path / "fault.log", role, mode, nth)


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
def test_each_reason_comes_with_what_to_do(module_store, tmp_path, role, reason, words):
    """One message, whoever meets it; and then all the promises."""
    spoil(module_store, tmp_path / "fault.log", role, reason, 8 if role == "engine" else 1, words)


@pytest.mark.parametrize("role", ["engine", "worker"])
def test_a_disk_that_cannot_sync_fails_the_run(module_store, tmp_path, role):
    """With `durability = "power"`: nobody is told of what a power cut could take."""
    log, words = tmp_path / "fault.log", "Input/output error"
    spoil(module_store, log, role, "unsynced", 2, words, ASYNCFLOW_DURABILITY="power")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["engine", "worker"])
@pytest.mark.parametrize("mode", MODES)
def test_every_fault_there_can_be(module_store, tmp_path, role, mode):
    """N counts up until a run passes without the fault."""
    for nth in range(1, MOST):
        if not spoil(module_store, tmp_path / "fault.log", role, mode, nth):
            return
    pytest.fail(f"a run has more than {MOST} operations")
