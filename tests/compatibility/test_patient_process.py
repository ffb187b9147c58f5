"""A command that tests run has a limit of processor time, and not of time."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from tests.support.patient_process import run_patiently


def python(text):
    """A command that runs this."""
    return [sys.executable, "-c", text]


def test_a_command_that_ends_is_told_with_all_that_it_has_printed():
    """More than a pipe holds, and its exit status."""
    text = "import sys; print('x' * 200_000); print('no', file=sys.stderr); sys.exit(3)"
    done = run_patiently(python(text), cpu_seconds=60)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 200_001, "no\n")


def test_a_command_that_waits_for_longer_than_it_may_compute_goes_on():
    """As on a machine that is busy with other work."""
    text = "import time; time.sleep(1); print('done')"
    assert run_patiently(python(text), cpu_seconds=0.9).stdout == "done\n"


def is_alive(pid):
    """Whether a process runs; one that has ended may be there until its parent asks."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {does!r}])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(
    ("does", "idle_seconds"), [("while True: pass", 60), ("import time; time.sleep(600)", 1)]
)
def test_a_command_that_computes_for_ever_or_hangs_ends_with_its_children(does, idle_seconds):
    """It is the child that does so."""
    command = python(CHILD.format(does=does))
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run_patiently(command, cpu_seconds=1.5, idle_seconds=idle_seconds)
    assert not is_alive(int(str(caught.value.stdout)))
