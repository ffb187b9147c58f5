"""Flows that several tests run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

from asyncflow import FlowSpec, Parameter, current, step


class Linear(FlowSpec):
    """Three steps in a row."""

    alpha = Parameter("alpha", default=0.5)
    constant = (1, 2)

    @step
    def start(self):
        self.x = self.alpha * 2
        self.next(self.middle)

    @step
    def middle(self):
        self.y = self.x + 1
        self.next(self.end)

    @step
    def end(self):
        print(f"y is {self.y}")


class Branches(FlowSpec):
    """A split into two branches, and their join."""

    @step
    def start(self):
        self.common = "common"
        self.next(self.left, self.right)

    @step
    def left(self):
        self.value = 1
        self.next(self.join)

    @step
    def right(self):
        self.value = 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.by_name = inputs.left.value, inputs.right.value
        self.by_index = inputs[0].value, inputs[1].value
        self.by_turn = [branch.value for branch in inputs]
        self.count = len(inputs)
        self.merge_artifacts(inputs, exclude=["value"])
        self.next(self.end)

    @step
    def end(self):
        pass


class Nested(FlowSpec):
    """A foreach in a foreach, with a branch inside."""

    outer = Parameter("outer", default=2)
    inner = Parameter("inner", default=3)

    @step
    def start(self):
        self.letters = [chr(ord("a") + index) for index in range(self.outer)]
        self.next(self.spread, foreach="letters")

    @step
    def spread(self):
        self.letter = self.input
        self.numbers = range(self.inner)
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        self.stack = self.foreach_stack()
        self.cell = f"{self.letter}{self.input}"
        self.next(self.upper, self.double)

    @step
    def upper(self):
        self.result = self.cell.upper()
        self.next(self.meet)

    @step
    def double(self):
        self.result = self.cell * 2
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.pair = inputs.upper.result, inputs.double.result
        self.merge_artifacts(inputs, include=["stack"])
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.row = [task.pair for task in inputs]
        self.stacks = [task.stack for task in inputs]
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.rows = [task.row for task in inputs]
        self.stacks = [stack for task in inputs for stack in task.stacks]
        self.next(self.end)

    @step
    def end(self):
        pass


class Wide(FlowSpec):
    """One foreach, as wide as you like."""

    width = Parameter("width", default=10)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.square = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.total = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Misbehaving(FlowSpec):
    """Ends its second step in the way that is asked for, beside neighbours that behave."""

    how = Parameter("how", default="well")

    @step
    def start(self):
        self.ways = [self.how, "well", "well"]
        self.next(self.work, foreach="ways")

    @step
    def work(self):
        misbehave(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class UnprintableError(Exception):
    """An exception that cannot even be shown."""

    def __str__(self):
        raise RuntimeError


RAISED = {
    "raise": ValueError("as asked"),
    "system-exit": SystemExit(4),
    "interrupt": KeyboardInterrupt(),
    "unprintable": UnprintableError(),
    "surrogate": OSError("caf\udce9"),
    "group": ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
}


class Hiding(type):
    """Tells nobody how its classes are called."""

    def __getattribute__(cls, name):
        if name in {"__module__", "__name__", "__qualname__"}:
            raise RuntimeError(name)
        return super().__getattribute__(name)


def misbehave(how):
    """Do what the word says."""
    if how in RAISED:
        raise RAISED[how]
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), 9)
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    if how == "hang":
        time.sleep(60)
    if how == "recurse":
        misbehave(how)


class Printing(FlowSpec):
    """Prints in every way there is."""

    @step
    def start(self):
        print("python out")
        print("python err", file=sys.stderr)
        sys.stdout.flush()
        os.write(1, b"raw out\n")
        subprocess.run(["sh", "-c", "echo child out; echo child err >&2"], check=True)
        os.write(1, b"not utf-8: \xff\n")
        print("10%\r20%\r30%")
        sys.stdout.buffer.write("bytes: é\n".encode())
        print("no line end", end="")
        self.next(self.end)

    @step
    def end(self):
        print("the end")


class AsyncPrinting(FlowSpec):
    """Async tasks that print in turns."""

    @step
    def start(self):
        self.letters = ["a", "b", "c"]
        self.next(self.talk, foreach="letters")

    @step
    async def talk(self):
        for turn in range(3):
            print(f"{self.input}{turn}")
            await asyncio.sleep(0.01)
        self.seen = current.pathspec
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_seen = [task.seen for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Waiting(FlowSpec):
    """Async tasks that wait."""

    width = Parameter("width", default=100)
    seconds = Parameter("seconds", default=0.2)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.wait, foreach="items")

    @step
    async def wait(self):
        await asyncio.sleep(self.seconds)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Sleeping(FlowSpec):
    """One step that sleeps, and a process of its own that sleeps longer."""

    seconds = Parameter("seconds", default=60.0)

    @step
    def start(self):
        self.child = subprocess.Popen(["sleep", "300"]).pid
        print(f"child {self.child}", flush=True)
        self.next(self.sleep)

    @step
    def sleep(self):
        subprocess.Popen(["sleep", "300"])
        print("sleeping", flush=True)
        time.sleep(self.seconds)
        self.next(self.end)

    @step
    def end(self):
        pass


class Fails(FlowSpec):
    """Its last item fails, once the others have ended."""

    @step
    def start(self):
        self.items = list(range(5))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("item", self.input)
        if self.input == 4:
            raise ValueError
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
