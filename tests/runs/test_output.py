"""What tasks print: whole, in order, by task, and streamed."""

from __future__ import annotations

import asyncio
import sys
import time

from asyncflow import FlowSpec, Parameter, current, events, step
from asyncflow.events.output_lines import PIECE_BYTES
from asyncflow.workers.process.output_capture import LineSink
from tests.support.flows import AsyncPrinting, Printing


class Flooding(FlowSpec):
    """Prints more than anybody wants to hold."""

    lines = Parameter("lines", default=1000)
    width = Parameter("width", default=10)

    @step
    def start(self):
        for _ in range(self.lines):
            sys.stdout.write("x" * self.width + "\n")
        self.next(self.end)

    @step
    def end(self):
        print("after")


class Prompting(FlowSpec):
    """Prints a line without an end, and goes on much later."""

    @step
    def start(self):
        print("working...", end="", flush=True)
        time.sleep(1.0)
        print(" done")
        self.next(self.end)

    @step
    def end(self):
        pass


class Progressing(FlowSpec):
    """Each step prints pieces of a line, and says much later that it is over."""

    @step
    def start(self):
        print("50%", end="", flush=True, file=sys.stderr)
        time.sleep(1.5)
        self.next(self.often)

    @step
    def often(self):
        for percent in range(50):
            print(f"{percent}%", end=" ", flush=True)
            time.sleep(0.03)
        self.next(self.flushed)

    @step
    async def flushed(self):
        print("50%", end="", flush=True)
        await asyncio.sleep(1.5)
        self.next(self.binary)

    @step
    async def binary(self):
        sys.stderr.buffer.write(b"50%")
        sys.stderr.buffer.flush()
        await asyncio.sleep(1.5)
        self.next(self.back)

    @step
    async def back(self):
        print("\r50%", end="")
        await asyncio.sleep(1.5)
        self.next(self.end)

    @step
    def end(self):
        pass


class Numbered(FlowSpec):
    """Many short tasks, each of which prints its number; some are async."""

    @step
    def start(self):
        self.numbers = range(200)
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        print("def", self.input)
        self.next(self.more)

    @step
    async def more(self):
        print("async", self.index)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class InTurns(FlowSpec):
    """Two tasks at once that print many lines."""

    @step
    def start(self):
        self.names = ["a", "b"]
        self.next(self.talk, foreach="names")

    @step
    def talk(self):
        for _ in range(500):
            print(self.input * 50)
        self.task = current.task_id
        self.next(self.join)

    @step
    def join(self, inputs):
        self.tasks = {task.task: task.input for task in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_every_way_of_printing_is_captured_in_order(engine):
    """Python, raw descriptors, subprocesses and bytes are all there, stdout and stderr apart."""
    task = (await engine.run(Printing))["start"].task
    assert task.stdout == (
        "python out\nraw out\nchild out\nnot utf-8: \\xff\n10%\r20%\r30%\nbytes: é\nno line end"
    )
    assert task.stderr == "python err\nchild err\n"


async def test_what_a_task_prints_is_not_in_the_next_ones_log(engine):
    """The border between two tasks of one worker is exact."""
    run = await engine.run(Printing)
    assert run["end"].task.stdout == "the end\n"


async def test_async_tasks_are_told_apart_while_they_print_in_turns(engine):
    """Three tasks side by side on one event loop keep their own lines and their own `current`."""
    run = await engine.run(AsyncPrinting)
    logs = sorted(task.stdout for task in run["talk"])
    assert logs == [f"{name}0\n{name}1\n{name}2\n" for name in "abc"]
    assert sorted(run["join"].task.data.all_seen) == sorted(task.pathspec for task in run["talk"])


async def test_tasks_that_print_at_once_keep_their_lines_whole(engine):
    """No line of one task has a piece of another's."""
    run = await engine.run(InTurns)
    for task in run["talk"]:
        letter = run["join"].task.data.tasks[task.id]
        assert task.stdout == (letter * 50 + "\n") * 500


async def test_output_is_streamed_while_the_task_runs(engine):
    """A line without an end is shown after a moment, long before the task goes on."""
    handle = await engine.start(Prompting)
    seen = [
        (event.line, event.end, event.time)
        async for event in handle.events()
        if isinstance(event, events.TaskLogged)
    ]
    assert [(line, end) for line, end, _ in seen] == [("working...", ""), (" done", "\n")]
    assert (seen[1][2] - seen[0][2]).total_seconds() > 0.3


async def test_pieces_of_a_line_come_while_the_step_still_prints(engine):
    """On either stream, in def and async steps, however fast one follows the other."""
    handle = await engine.start(Progressing)
    first: dict[str, float] = {}
    ends: dict[str, float] = {}
    async for event in handle.events(events.TaskLogged, events.TaskSucceeded):
        times = first if isinstance(event, events.TaskLogged) else ends
        times.setdefault(event.step, event.time.timestamp())
    waits = {step: ends[step] - seen for step, seen in first.items()}
    assert waits.keys() == {"start", "often", "flushed", "binary", "back"}
    assert {step: wait for step, wait in waits.items() if wait < 0.5} == {}
    assert (await handle)["often"].task.stdout == "".join(f"{n}% " for n in range(50))


async def test_a_line_of_megabytes_comes_in_pieces(engine):
    """Ten million characters without an end are read back whole, from pieces of bounded size."""
    handle = await engine.start(Flooding, lines=1, width=10_000_000)
    longest = 0
    async for event in handle.events():
        if isinstance(event, events.TaskLogged):
            longest = max(longest, len(event.line))
    run = await handle
    assert longest <= PIECE_BYTES
    assert run["start"].task.stdout == "x" * 10_000_000 + "\n"


async def test_a_flood_of_lines_arrives_complete_and_in_order(engine):
    """Every line is one event, numbered without gaps."""
    handle = await engine.start(Flooding, lines=30_000)
    seqs, lines = [], 0
    async for event in handle.events():
        seqs.append(event.seq)
        lines += isinstance(event, events.TaskLogged)
    assert lines == 30_001
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_line_sink_passes_on_what_a_line_buffered_file_would():
    """Partial writes wait for their line's end, for a carriage return, a flush or the close."""
    passed = []
    lines = LineSink(lambda stream, data: passed.append((stream, data)))
    lines.write(0, b"a")
    lines.write(0, b"b\n")
    lines.write(1, b"rest")
    assert passed == [(0, b"ab\n")]
    lines.write(0, b"\r5%")
    lines.write(0, b"6%")
    lines.flush(0)
    lines.flush(0)
    assert passed[1:] == [(0, b"\r5%"), (0, b"6%")]
    lines.close()
    assert passed[3:] == [(1, b"rest")]


async def test_a_busy_event_loop_mixes_no_tasks_up(engine):
    """What short tasks print is their own, however late the engine hears that they have ended."""
    handle = await engine.start(Numbered)
    while not handle.status.finished:
        time.sleep(0.07)  # the program holds up the loop for longer than the time between two looks
        await asyncio.sleep(0.001)
    run = await handle
    for name, kind in (("work", "def"), ("more", "async")):
        printed = {task.index: task.stdout for task in run[name]}
        assert printed == {number: f"{kind} {number}\n" for number in range(200)}
