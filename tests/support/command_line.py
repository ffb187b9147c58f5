"""Running the command line in a store, as a user does, and what has to be true of what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import asyncflow as package
from asyncflow import Flow, Run, events
from asyncflow.cli.command_table import invoke
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.verify import verify

ROOT = Path(__file__).parents[2]
SECONDS = 180  # nothing here takes a tenth of it on an idle machine

FINISHED = re.compile(r"/(\w+/\d+) \(pid \d+\)\] Task finished")
_OWN_FRAME = re.compile(rf'File "{re.escape(str(Path(package.__file__).parent))}/[^"]*"')


def own_frames(text: str) -> list[str]:
    """The frames of this library that a text shows; what has only such a name does not count."""
    return _OWN_FRAME.findall(text)


def start(*arguments: object, preexec: Any = None, **environ: str) -> subprocess.Popen[str]:
    """Start `asyncflow` with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "asyncflow", *map(str, arguments)],
        env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,  # noqa: PLW1509 - the tests that give one have no threads
    )


class Said:
    """What a command has said, and the status with which it ended."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def __repr__(self) -> str:
        return f"status {self.status}\n{self.stdout}\n{self.stderr}"

    @property
    def announced(self) -> set[str]:
        """The tasks that it said were done, as `step/task`."""
        return set(FINISHED.findall(self.stdout))


def end(process: subprocess.Popen[str], before: str = "") -> Said:
    """Wait for the end of a command. Whatever went wrong, our own traceback is never shown."""
    stdout, stderr = process.communicate(timeout=SECONDS)
    said = Said(process.returncode, before + stdout, stderr)
    assert not own_frames(said.stdout + said.stderr), said
    return said


def asyncflow(*arguments: object, preexec: Any = None, **environ: str) -> Said:
    """Run a command to its end."""
    return end(start(*arguments, preexec=preexec, **environ))


def without_rights(*arguments: object) -> Said:
    """Run a command to its end, with no right of root's to read and write anything."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-m", "asyncflow", *map(str, arguments)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def here(*arguments: object) -> Said:
    """Carry out a command that starts no process, in this one: that takes no time."""
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        status = invoke(list(map(str, arguments)))
    return Said(status, stdout.getvalue(), stderr.getvalue())


def read_until(process: subprocess.Popen[str], text: str, times: int = 1) -> str:
    """What a command says until it has said this text so many times."""
    assert process.stdout is not None
    lines = []
    timer = threading.Timer(SECONDS, process.kill)  # then the test fails, and does not hang
    timer.start()
    try:
        while times and (line := process.stdout.readline()):
            lines.append(line)
            times -= text in line
    finally:
        timer.cancel()
    assert not times, "".join(lines)
    return "".join(lines)


def latest(flow: str) -> Run:
    """The newest run of a flow."""
    run = Flow(flow).latest_run
    assert run is not None
    return run


def succeeded(run: Run) -> set[str]:
    """The tasks of a run that its journal knows as finished, as `step/task`."""
    seen = (event for event in run.events() if isinstance(event, events.TaskSucceeded))
    return {f"{event.step}/{event.task_id}" for event in seen}


def damage(store: Path) -> list[str]:
    """What `verify` finds in a store."""
    return [str(found) for found in verify(Layout.open(store, create=False)).damage]
