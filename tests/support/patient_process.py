"""Runs a command that is given up for want of progress, and not by the clock.

A machine that is busy with other work gives a command little of its time, so a limit in seconds
says nothing about the command. One that hangs uses no processor time, and one that goes on for ever
uses more than it should.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOOK_SECONDS: Final = 0.2
_IDLE_CPU_SECONDS: Final = 0.05
"""Less than that, within the time of `idle_seconds`, is what polling alone takes."""


def run_patiently(
    command: Sequence[str], *, cpu_seconds: float, idle_seconds: float = 120.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it was and what it printed, as `subprocess.run` tells.

    Args:
        command: The program and its arguments.
        cpu_seconds: How much processor time it and its children may take.
        idle_seconds: For how long they may take next to none.
        options: Those of `subprocess.Popen`.

    Raises:
        subprocess.TimeoutExpired: It has taken more, or has hung; it and its children are killed.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        watched = psutil.Process(process.pid)
        spent: dict[int, float] = {}
        at_work, idle_since = 0.0, time.monotonic()
        while True:
            try:
                stdout, stderr = process.communicate(timeout=_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                used = _used(watched, spent)
                if used - at_work > _IDLE_CPU_SECONDS:
                    at_work, idle_since = used, time.monotonic()
                if used <= cpu_seconds and time.monotonic() - idle_since <= idle_seconds:
                    continue
                _kill(watched)
                stdout, stderr = process.communicate()
                raise subprocess.TimeoutExpired(command, used, stdout, stderr) from None
            return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _used(process: psutil.Process, spent: dict[int, float]) -> float:
    """The processor time in seconds of a process and its descendants, also of those that ended."""
    for each in _family(process):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent[each.pid] = max(spent.get(each.pid, 0.0), times.user + times.system)
    return sum(spent.values())


def _kill(process: psutil.Process) -> None:
    family = _family(process)
    for each in reversed(family):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family[1:], timeout=10)
