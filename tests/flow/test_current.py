from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asyncflow import Engine, FlowSpec, Run, Task, current, step
from asyncflow.flow.current import EnteredTask, TaskContext
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.workers.process.thread_context import thread_propagation

GRAPH = Graph("F", [Node("start", ("end",)), Node("end")])


def context(task_id: str = "3", **more) -> TaskContext:
    """What is known of a task."""
    return TaskContext(
        flow_name="F",
        run_id="1795",
        step_name="start",
        task_id=task_id,
        attempt=1,
        graph=GRAPH,
        **more,
    )


def test_current_tells_of_the_task():
    """Under Metaflow's names, and `attempt`."""
    with EnteredTask(context(tags=("nightly",), origin_run_id="1700"), solo=False):
        assert current.is_running_flow
        assert (current.flow_name, current.run_id, current.step_name) == ("F", "1795", "start")
        assert (current.task_id, current.attempt, current.retry_count) == ("3", 1, 1)
        assert current.pathspec == "F/1795/start/3"
        assert current.tags == {"nightly"}
        assert current.origin_run_id == "1700"
        assert current.trigger is None
        assert current.namespace == f"user:{current.username}"
        assert repr(current) == "<current F/1795/start/3>"


def test_tasks_that_end_in_another_order_than_they_began_leave_nothing():
    """In a test's process workers are threads, and async tasks of a worker end as they like."""
    for order in [(True, False), (False, True), (True, True)]:
        first, second = (EnteredTask(context(str(at)), solo=solo) for at, solo in enumerate(order))
        turns = [threading.Event(), threading.Event()]

        def overlap(first=first, second_is_in=turns[0], first_is_in=turns[1]):
            with first:
                first_is_in.set()
                assert second_is_in.wait(180)

        thread = threading.Thread(target=overlap)
        thread.start()
        assert turns[1].wait(180)
        with second:
            turns[0].set()
            thread.join()
        assert not current.is_running_flow


class LooksItselfUp(FlowSpec):
    """Its tasks look themselves up, and the last one the task before it."""

    @step
    def start(self):
        self.items = list(range(12))
        self.next(self.each, self.also)

    @step
    def each(self):
        self.next(self.one, foreach="items")

    @step
    def one(self):
        self.found = Task(current.pathspec).index == self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.found = all(each.found for each in inputs)
        self.next(self.both)

    @step
    def also(self):
        self.next(self.other, foreach="items")

    @step
    async def other(self):
        self.found = Task(current.pathspec).index == self.input
        self.next(self.joined)

    @step
    def joined(self, inputs):
        self.found = all(each.found for each in inputs)
        self.next(self.both)

    @step
    def both(self, inputs):
        self.found = [each.found for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        self.finished = Run(f"{current.flow_name}/{current.run_id}")["both"].task.successful


@pytest.mark.usefixtures("store")
async def test_every_task_finds_itself_in_the_store():
    """From its first line on, be it `def` or `async def`; and those before it have ended."""
    async with Engine(workers=2) as engine:
        data = (await engine.run(LooksItselfUp)).data
    assert (data.found, data.finished) == ([True, True], True)


def test_parameters_are_read_when_asked_for():
    """As attributes and as a mapping."""
    asked = []

    def load(name):
        asked.append(name)
        return 0.1

    with EnteredTask(context(parameter_names=("alpha",), load_parameter=load), solo=False):
        assert current.parameter_names == ["alpha"]
        parameters = current.parameters
        assert repr(parameters) == "<parameters alpha>"
        assert asked == []
        assert parameters.alpha == 0.1
        assert dict(parameters) == {"alpha": 0.1}
        assert len(parameters) == 1
        with pytest.raises(AttributeError, match="flow 'F' has no parameter 'beta'"):
            _ = parameters.beta
        with pytest.raises(KeyError):
            parameters["beta"]
    assert asked == ["alpha", "alpha"]


def test_outside_a_task_current_says_so():
    """As an AttributeError, so that `hasattr` and `get` can ask."""
    assert not current.is_running_flow
    with pytest.raises(AttributeError, match="no task runs here"):
        _ = current.run_id
    assert not hasattr(current, "step_name")
    assert current.get("run_id", "none") == "none"
    assert "run_id" not in current
    assert repr(current) == "<current: no task>"


def test_a_task_ends_with_its_block():
    """Also when the step failed, and whether or not it was alone."""
    for solo in (True, False):
        with pytest.raises(ValueError, match="of the user"), EnteredTask(context(), solo=solo):
            raise ValueError("of the user")
        assert not current.is_running_flow


async def test_steps_that_run_at_once_see_their_own_task():
    """Each asyncio task has its context."""

    async def run(task_id):
        with EnteredTask(context(task_id), solo=False):
            await asyncio.sleep(0.001)
            return current.task_id, await asyncio.to_thread(lambda: current.task_id)

    answers = await asyncio.gather(*[run(str(number)) for number in range(20)])
    assert answers == [(str(number), str(number)) for number in range(20)]


def test_a_plain_thread_of_a_step_that_runs_alone_sees_its_task():
    """There is only one task that can be meant."""
    seen = []
    with EnteredTask(context(), solo=True):
        thread = threading.Thread(target=lambda: seen.append(current.task_id))
        thread.start()
        thread.join()
    assert seen == ["3"]


THREADS = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor

from asyncflow.flow.current import TaskContext, current, EnteredTask
from asyncflow.workers.process.thread_context import install_thread_propagation
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node

install_thread_propagation()
install_thread_propagation()
graph = Graph("F", [Node("start", ("end",)), Node("end")])
pool = ThreadPoolExecutor(2)

def ask():
    return current.get("task_id")

class Asking(threading.Thread):
    def run(self):
        self.answer = ask()

async def run(task_id):
    context = TaskContext(flow_name="F", run_id="1", step_name="start", task_id=task_id,
                          attempt=0, graph=graph)
    with EnteredTask(context, solo=False):
        await asyncio.sleep(0.001)
        thread = Asking()
        thread.start()
        thread.join()
        inner = pool.submit(lambda: ask()).result()
        loop = asyncio.get_running_loop()
        executor = await loop.run_in_executor(None, ask)
        nested = await loop.run_in_executor(None, lambda: pool.submit(ask).result())
        assert "run" not in vars(thread)
        return {ask(), thread.answer, inner, executor, nested, *pool.map(lambda _: ask(), [1, 2])}

async def main():
    return await asyncio.gather(*[run(str(number)) for number in range(10)])

assert asyncio.run(main()) == [{str(number)} for number in range(10)]
assert pool.submit(ask).result() is None
thread = Asking()
thread.start()
thread.join()
assert thread.answer is None
try:
    thread.start()
except RuntimeError:
    print("good")
"""


def test_threads_inherit_the_task_in_a_worker():
    """Started by hand or by an executor, from within a task or within another of its threads.

    A thread of an executor serves many tasks, and sees the one that it works for.
    """
    answer = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=False
    )
    assert (answer.stdout, answer.stderr) == ("good\n", "")


def test_nobody_else_is_touched():
    """An application's threads are its own affair: only workers install anything."""
    with ThreadPoolExecutor(1) as pool, EnteredTask(context(), solo=False):
        assert pool.submit(lambda: current.is_running_flow).result() is False


def test_a_block_puts_back_what_it_has_replaced():
    """As around a flow that runs in the process of a test, whose threads are its own affair."""
    before = threading.Thread.start, threading.excepthook, ThreadPoolExecutor.submit
    with thread_propagation(), ThreadPoolExecutor(1) as pool, EnteredTask(context(), solo=False):
        pool.submit(int).result()  # the second knows the executor's class
        assert pool.submit(lambda: current.is_running_flow).result() is True
    assert (threading.Thread.start, threading.excepthook, ThreadPoolExecutor.submit) == before


RAISES = """
import threading

from asyncflow.flow.current import TaskContext, EnteredTask
from asyncflow.workers.process.thread_context import install_thread_propagation

def work():
    raise ValueError("in a thread")

context = TaskContext(
    flow_name="F", run_id="1", step_name="start", task_id="1", attempt=0, graph=None
)
with EnteredTask(context, solo=True):
    if {installed}:
        install_thread_propagation()
        install_thread_propagation()
    thread = threading.Thread(target=work, name="one")
    thread.start()
    thread.join()
"""


def test_of_what_a_thread_of_a_step_raises_no_frame_of_ours_is_shown():
    """It is told as in any program."""
    told = [
        subprocess.run(
            [sys.executable, "-c", RAISES.format(installed=installed)],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for installed in (False, True)
    ]
    assert "in a thread" in told[0]
    assert told[0] == told[1]


class Threaded(FlowSpec):
    """Starts threads of many kinds and waits for none."""

    @step
    def start(self):
        forever = threading.Event().wait
        threading.Thread(target=forever, name="uploader").start()
        threading.Thread(target=forever, name="a daemon", daemon=True).start()
        done = threading.Thread(target=int, name="done")
        done.start()
        done.join()
        ThreadPoolExecutor(1, "busy").submit(forever)
        idle = ThreadPoolExecutor(1, "idle")
        idle.submit(int).result()
        self.next(self.end)

    @step
    async def end(self):
        await asyncio.to_thread(int)


async def test_a_thread_that_outlives_its_step_is_told_of_when_its_worker_ends(store, caplog):
    """With its name and the task that started it; a daemon may end so, and so may an idle one."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Threaded)
        task = run["start"].task
    told = [text for text in caplog.messages if "thread" in text]
    assert len(told) == 2
    assert f"thread: uploader, started_by: {task.pathspec})" in told[0]
    assert "thread: busy_0" in told[1]
