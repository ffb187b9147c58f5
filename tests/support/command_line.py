"""Running the command line in a store, as a user does, and what has to be true of what it says."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import threading
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import asyncflow as package
from asyncflow import Flow, Run, events
from asyncflow.cli.command_table import invoke
from asyncflow.store.blobs import verified
from asyncflow.store.files import open_file
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
    """Run a command to its end, with no right of root's to read and write anything.

    In a forked process: a fresh one would import everything anew. The command starts none.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this process has threads; the child needs none
        child = os.fork()
    if child == 0:
        try:
            obey_rights()
            verified.clear()
            open_file.cache_clear()
            said = here(*arguments)
            answer = [said.status, said.stdout, said.stderr]
        except BaseException:  # noqa: BLE001 - whatever it is, the test is told
            answer = [-1, "", traceback.format_exc()]
        with os.fdopen(sending, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as file:
        status, stdout, stderr = json.load(file)
    os.waitpid(child, 0)
    return Said(status, stdout, stderr)


def obey_rights() -> None:
    """Have this process obey the rights of files, even if it is root's."""
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 of each
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(version, nothing):
        raise OSError(ctypes.get_errno(), "capset")


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
