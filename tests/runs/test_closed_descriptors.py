"""A step closes descriptors of its process, or leads them elsewhere: what others notice of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, current, events, retry, step
from asyncflow.errors import RunFailedError


def close_output():
    """The standard output and error, as daemons do."""
    os.close(1)
    os.close(2)


def reopen_output():
    """Something else in their place."""
    for number in (1, 2):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


def close_streams():
    """Python's objects; what is below them, too."""
    sys.stdout.close()
    sys.stderr.close()
    close_output()


def replace():
    """Descriptors that are the worker's, with a file of one's own in the place of each."""
    for number in range(3, 256):
        with suppress(OSError):
            os.fstat(number)
            os.dup2(0, number)


def close_input():
    """The object, and the descriptor below: what is opened next would be in its place."""
    sys.stdin.close()
    os.close(0)


def delete_streams():
    """The names, which whatever prints looks up."""
    del sys.stdin, sys.stdout, sys.stderr


HARMLESS = {
    "output": close_output,
    "null": reopen_output,
    "streams": close_streams,
    "input": close_input,
    "names": delete_streams,
}
HARMFUL = {
    "from 3": lambda: os.closerange(3, 256),
    "all": lambda: os.closerange(0, 256),
    "replaced": replace,
}


class Harmless(FlowSpec):
    """Prints, does harm to its output, and prints in the next task."""

    way = Parameter("way", default="")

    @step
    def start(self):
        print("before")
        HARMLESS[self.way]()
        self.value = b"v" * 10_000
        self.next(self.middle)

    @step
    async def middle(self):
        print("between")
        HARMLESS[self.way]()
        await asyncio.sleep(0)
        self.next(self.end)

    @step
    def end(self):
        print("after" + sys.stdin.read())
        print("error", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo child; cat"], check=True)


@pytest.mark.parametrize("way", HARMLESS)
async def test_the_next_task_has_its_streams_again(store, way):
    """And the one that closed its own has ended well."""
    async with Engine(workers=1) as engine:
        run = await engine.run(Harmless, way=way)
    assert run["start"].task.stdout == "before\n"
    assert run["middle"].task.stdout == "between\n"
    assert run["end"].task.stdout == "after\nchild\n"
    assert run["end"].task.stderr == "error\n"
    assert {event.pid for event in run.events(events.TaskStarted)} == {run_pid(run)}


def run_pid(run):
    """The worker of its first task."""
    return next(iter(run.events(events.TaskStarted))).pid


class Harmful(FlowSpec):
    """One of many tasks closes what its worker needs, and is tried again."""

    way = Parameter("way", default="")

    @step
    def start(self):
        self.items = list(range(30))
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def work(self):
        self.value = bytes([self.input]) * 3_000  # lies in a segment
        if self.input == 10 and current.retry_count == 0:
            HARMFUL[self.way]()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.values = [each.value[0] for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class HarmfulAsync(FlowSpec):
    """The same in an async step."""

    way = Parameter("way", default="")

    @step
    async def start(self):
        HARMFUL[self.way]()
        await asyncio.sleep(0)
        self.next(self.end)

    @step
    def end(self):
        pass


WHY = "its step has closed file descriptors that are the worker's"


@pytest.mark.parametrize("way", HARMFUL)
async def test_a_step_that_closes_what_is_the_workers_loses_one_attempt(store, way):
    """The error says what it has done; no neighbour loses an attempt or a value."""
    async with Engine(workers=1) as engine:
        run = await engine.run(Harmful, way=way)
    assert run.data.values == list(range(30))
    [failed] = run.events(events.TaskFailed)
    assert failed.path == (10,)
    assert failed.exception_type == "asyncflow.errors.WorkerDiedError"
    assert WHY in failed.message


@pytest.mark.parametrize("way", HARMFUL)
async def test_an_async_step_that_closes_what_is_the_workers_fails(store, way):
    """With the same words, though its event loop cannot go on either."""
    async with Engine(workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(HarmfulAsync, way=way)
    assert WHY in caught.value.failure.message


def segments_being_read():
    """The descriptors under which this process has segments open for reading."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            is_read = fcntl.fcntl(int(link.name), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            if is_read and link.readlink().suffix == ".seg":
                found.append(int(link.name))
    return found


class ClosesWhatItHasRead(FlowSpec):
    """A step closes the file of an artifact that it has read, or puts its own in the place."""

    replaces = Parameter("replaces", default=False)

    @step
    def start(self):
        self.value = b"A" * 20_000
        self.next(self.read)

    @step
    def read(self):
        assert len(self.value) == 20_000
        self.numbers = segments_being_read()
        with Path(os.devnull).open() as other:
            for number in self.numbers:
                if self.replaces:
                    os.dup2(other.fileno(), number)
                else:
                    os.close(number)
        self.next(self.read_again)

    @step
    def read_again(self):
        self.is_same = self.value == b"A" * 20_000
        links = [Path(f"/proc/self/fd/{number}") for number in self.numbers]
        self.are_kept = [self.replaces and link.samefile(os.devnull) for link in links]
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are listed by Linux")
@pytest.mark.parametrize("replaces", [False, True])
async def test_a_step_that_closes_a_file_of_values_spoils_no_later_read(store, replaces):
    """The file is opened again, and what the step has put in its place stays the step's."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(ClosesWhatItHasRead, replaces=replaces)
    assert run.data.numbers
    assert run.data.is_same
    assert set(run.data.are_kept) == {replaces}
