"""What a task of a wide foreach costs, counted: messages, writes, bytes, reads and calls.

Times differ from machine to machine and from minute to minute; these numbers do not. Each bound is
some way above what was counted, and far below what it was before the cost was looked at.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import Engine, FlowSpec, Parameter, step
from asyncflow.events.records import SUCCEEDED, code_of
from asyncflow.store.artifacts import ArtifactReader
from asyncflow.store.journal import JournalReader, JournalWriter
from asyncflow.store.manifests import RecordedManifest
from asyncflow.testing import Loopback, run_flow
from asyncflow.testing.loopback import SocketLink
from asyncflow.workers.cluster.remote_worker import RemoteWorker
from asyncflow.workers.cluster.shipped_records import RunRecords
from asyncflow.workers.local.worker_process import WorkerProcess
from asyncflow.workers.messages import StartItems, StartTask
from asyncflow.workers.process.run import Inherited
from asyncflow.workers.process.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncflow.client import Run

TASKS = 1500


class Typical(FlowSpec):
    """Each task reads three parameters and its item, and makes two artifacts."""

    width = Parameter("width", default=TASKS)
    rate = Parameter("rate", default=0.5)
    title = Parameter("title", default="some words")

    @step
    def start(self):
        self.numbers = list(range(self.width))
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        number: int = self.input
        self.score = number * self.rate + self.width
        self.label = f"{self.title} {number}"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.score for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, note: Callable[..., object]
) -> None:
    """Have `note` called with the arguments of each call of a method."""
    method = getattr(owner, name)

    def noting(self: Any, *args: Any, **more: Any) -> Any:
        note(*args)
        return method(self, *args, **more)

    monkeypatch.setattr(owner, name, noting)


@pytest.fixture(scope="module")
async def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Counter[str], Path]:
    """One run in worker processes, and how often its engine did what."""
    counts: Counter[str] = Counter()

    def sent(order: object) -> None:
        counts[type(order).__name__] += 1
        counts["sent together"] += order.number if isinstance(order, StartItems) else 0

    store = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, WorkerProcess, "send", sent)
        counted(patch, JournalWriter, "write", lambda frames: counts.update(writes=1))
        async with Engine(store=store, workers=2) as engine:
            run = await engine.run(Typical)
    return run, counts, store


async def test_tasks_that_are_short_go_to_workers_in_few_packets(wide):
    """A packet for each task would be two system calls, a wake-up, and a look for a worker.

    Tasks that were taken back from a worker that the machine lets wait go alone, and do not count.
    """
    _, counts, _ = wide
    again = counts["sent together"] + counts["StartTask"] - (TASKS + 3)
    assert counts["StartItems"] + counts["StartTask"] - again < TASKS / 8
    assert counts["sent together"] > TASKS * 0.8


async def test_a_write_to_the_journal_has_the_events_of_many_tasks(wide):
    """Each write is handed to a thread and back, which takes as long as ten events."""
    _, counts, _ = wide
    assert counts["writes"] < TASKS / 4


@pytest.fixture(scope="module")
async def wide_on_nodes(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often the engine of such a run did what, with workers on two nodes."""
    counts: Counter[str] = Counter()

    def heard(data: bytes) -> None:
        counts.update(reports=1, report_bytes=len(data))

    with pytest.MonkeyPatch.context() as patch:
        counted(patch, RemoteWorker, "unpack", heard)
        counted(patch, RemoteWorker, "send", lambda _: counts.update(orders=1))
        counted(patch, RunRecords, "parts", lambda *_: counts.update(records=1))
        counted(patch, SocketLink, "push", lambda _: counts.update(requests=1))
        counted(patch, SocketLink, "poll", lambda _: counts.update(requests=1))
        store, executor = tmp_path_factory.mktemp("nodes"), Loopback(workers=2, nodes=2)
        async with Engine(store=store, executor=executor) as engine:
            await engine.run(Typical)  # nobody knows in the first how long its tasks take
            counts.clear()
            await engine.run(Typical)
    return counts


async def test_what_tasks_on_nodes_report_comes_in_few_messages(wide_on_nodes):
    """Each is handled by itself. It was one for 13 tasks."""
    counts = wide_on_nodes
    assert counts["reports"] < TASKS / 20
    assert counts["report_bytes"] / TASKS < 400


async def test_tasks_on_nodes_take_few_requests(wide_on_nodes):
    """Each takes the engine as long as several tasks: some hundred microseconds."""
    counts = wide_on_nodes
    assert counts["requests"] < TASKS / 10
    assert counts["orders"] < TASKS / 8


async def test_a_join_on_a_node_is_sent_its_inputs_together(wide_on_nodes):
    """None of their records is looked at by itself. They all were, which took as long as a read."""
    assert wide_on_nodes["records"] < TASKS / 20


class Chain(FlowSpec):
    """Two hundred steps, one after the other."""

    @step
    def start(self):
        self.done = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.done += 1
        self.again = self.done < 200
        self.next({True: self.turn, False: self.end}, condition="again")

    @step
    def end(self):
        pass


async def test_a_short_step_of_a_chain_is_one_write_to_the_journal(tmp_path, monkeypatch):
    """Its start waits for its end. It was two where the engine is awake before the step has ended.

    On a busy machine some take much longer than others of their step, so the best of three counts.
    """
    writes: list[int] = []
    counted(monkeypatch, JournalWriter, "write", lambda _: writes.append(writes.pop() + 1))
    async with Engine(store=tmp_path, workers=1) as engine:
        for _ in range(4):  # nobody knows in the first how long the step takes
            writes.append(0)
            await engine.run(Chain)
    assert 200 < min(writes) < 215  # it was 223 to 236


async def test_a_task_is_two_events_of_some_four_hundred_bytes(wide):
    """Its start, and its end with its artifacts; nothing else is told of a task that does well."""
    run, _, store = wide
    names = Counter(type(event).__name__ for event in run.events())
    assert names["TaskStarted"] == names["TaskSucceeded"] == TASKS + 3
    assert names.total() == 2 * (TASKS + 3) + 2
    size = (store / "flows" / run.pathspec / "journal").stat().st_size
    assert size / TASKS < 450


def in_one_process(patch: pytest.MonkeyPatch, width: int) -> Counter[str]:
    """One run whose worker is a thread: how often it did what, and how many calls that were."""
    counts: Counter[str] = Counter()
    profile, serve = cProfile.Profile(), Worker.serve

    def profiled(self: Worker) -> None:
        profile.enable()
        try:
            serve(self)
        finally:
            profile.disable()

    with patch.context() as within:
        within.setattr(Worker, "serve", profiled)
        counted(within, ArtifactReader, "_read", lambda *_: counts.update(reads=1))
        counted(within, Inherited, "load", lambda *_: counts.update(loads=1))
        total = run_flow(Typical, width=width).data.total
    assert total == sum(number * 0.5 + width for number in range(width))
    stats: Any = pstats.Stats(profile)
    counts["calls"] = stats.total_calls
    return counts


def test_what_a_worker_does_for_each_task(monkeypatch):
    """The items are read many at a time, parameters that cannot change are decoded once.

    Python's own calls are most of what a short task costs. With what the join does for each input,
    they were 526, with two reads and four values decoded; then they were 351, 387 with the facts
    that tasks report since, and then 328.
    """
    for _ in range(3):
        few, many = in_one_process(monkeypatch, 100), in_one_process(monkeypatch, 500)
        more = {name: (many[name] - few[name]) / 400 for name in many}
        if more["reads"] < 1 / 8:  # where the engine gets no time, tasks come one by one
            break
    assert more["reads"] < 1 / 8
    assert more["loads"] == 1.0  # what the join reads of each input
    if sys.version_info < (3, 12):  # since then, cProfile counts what other threads call as well
        assert more["calls"] < 350


SYSTEM_CALLS = ("getpid", "getrusage", "pthread_sigmask", "lseek", "umask", "alarm", "getcwd")
_calls: Counter[str] = Counter()


def count_calls(frame: object, event: str, called: Any) -> None:
    """A profile function that counts calls, and some of functions in C by their names."""
    if event in {"call", "c_call"}:
        _calls["calls"] += 1
    if event == "c_call" and called.__name__ in SYSTEM_CALLS:
        _calls[called.__name__] += 1


class CountingItself(FlowSpec):
    """One worker counts what it does from the first task of the foreach to its join."""

    width = Parameter("width", default=400)

    @step
    def start(self):
        self.numbers = list(range(self.width))
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        number: int = self.input
        if number == 100:  # by then they come in packets
            sys.setprofile(count_calls)
        if number == 300:
            sys.setprofile(None)
            self.counts = dict(_calls)
        self.score = number * 0.5
        self.next(self.join)

    @step
    def join(self, inputs):
        (self.counts,) = (each.counts for each in inputs if hasattr(each, "counts"))
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_a_worker_process_asks_of_the_kernel_for_each_task(tmp_path):
    """Each is a system call. They were 4, 3, 2, 2, 1, 1 and 1, in this order.

    While they are counted, a task takes so long that the kernel is asked what it has used; a worker
    that has to wait for its next task reads that once more.
    """
    async with Engine(store=tmp_path, workers=1) as engine:
        run = await engine.run(CountingItself)
    for_each = {name: number / 200 for name, number in run.data.counts.items()}
    assert for_each.pop("getrusage") <= 3
    assert {name: round(number) for name, number in for_each.items() if name in SYSTEM_CALLS} == {
        "pthread_sigmask": 1,
        "lseek": 2,
        "umask": 1,
        "alarm": 1,
        "getcwd": 1,
    }
    assert for_each["calls"] < 195


async def test_tasks_of_unknown_length_are_not_bound_to_a_worker(tmp_path, monkeypatch):
    """The first of a step go one by one: they may take an hour each."""
    orders: list[object] = []
    counted(monkeypatch, WorkerProcess, "send", orders.append)
    async with Engine(store=tmp_path, workers=2) as engine:
        await engine.run(Typical, width=3)
    together = [order for order in orders if isinstance(order, StartItems)]
    assert not together or isinstance(
        next(each for each in orders if getattr(each, "step", "") == "work"), StartTask
    )


class PassingOn(FlowSpec):
    """Tasks that pass on what the start has made, and make one artifact each."""

    made = Parameter("made", default=0)

    @step
    def start(self):
        for number in range(self.made):
            setattr(self, f"made_{number}", number)
        self.done = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.done += 1
        self.again = self.done < 50
        self.next({True: self.turn, False: self.split}, condition="again")

    @step
    def split(self):
        self.numbers = list(range(100))
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        self.found = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.found for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def test_a_task_costs_nothing_for_each_artifact_that_it_passes_on(tmp_path, monkeypatch):
    """Its record is as long as what it makes, and no ref is checked that it does not use.

    Of 1,000 artifacts, each such record had 36 kB, and 150 tasks checked some 100,000 refs.
    """
    checked: Counter[str] = Counter()
    counted(monkeypatch, RecordedManifest, "_own", lambda name, *_: checked.update([name]))
    run = run_flow(PassingOn, made=1000, store=tmp_path)
    assert run.data.total == sum(range(100))
    with JournalReader(tmp_path / "flows" / run.pathspec / "journal") as journal:
        records = [record for _, record, _ in journal.read_from()]
    of_tasks = [each for each in records if code_of(each) == SUCCEEDED][1:]  # the first is long
    assert len(of_tasks) > 150
    assert sum(map(len, of_tasks)) / len(of_tasks) < 400
    assert checked.total() < 5 * 150
