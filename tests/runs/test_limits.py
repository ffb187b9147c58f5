"""Limits with names: the file, the engine's side of it, and the command."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow import Engine, FlowSpec, Parameter, concurrency, current, events, limit, retry, step
from asyncflow.cli.command_table import invoke
from asyncflow.errors import FlowError, LimitError, RunCancelledError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling import named_limits
from asyncflow.scheduling.named_limits import Limits, needs_of
from asyncflow.store.layout import Layout
from asyncflow.store.limit_files import (
    FILE_BYTES,
    Bounds,
    FolderLimits,
    LimitFile,
    names_in,
    pack_bounds,
    unpack_bounds,
)
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.verify import verify
from asyncflow.testing import InlineExecutor
from tests.support.flows import Linear
from tests.support.overlap import most_at_once, most_in_any
from tests.support.waiting import until


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


@pytest.fixture
def pair(tmp_path):
    """The same limit, as two engines have it."""
    with LimitFile.open(tmp_path, "api") as one, LimitFile.open(tmp_path, "api") as other:
        yield one, other


class Limited(FlowSpec):
    """Async tasks under a limit."""

    width = Parameter("width", default=8)
    seconds = Parameter("seconds", default=0.03)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.call, foreach="items")

    @limit("api", 2)
    @step
    async def call(self):
        self.began = time.time()
        await asyncio.sleep(self.seconds)
        self.ended = time.time()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.spans = [(task.began, task.ended) for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Rated(FlowSpec):
    """Tasks of which so many may begin in a second."""

    width = Parameter("width", default=10)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.call, foreach="items")

    @limit("rate", per_second=20)
    @step
    async def call(self):
        self.began = time.time()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_began = sorted(task.began for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Twofold(FlowSpec):
    """Branches that need two limits, named in different orders."""

    width = Parameter("width", default=6)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.one, self.other)

    @step
    def one(self):
        self.next(self.first, foreach="items")

    @step
    def other(self):
        self.next(self.second, foreach="items")

    @limit("a")
    @limit("b", 1)
    @step
    async def first(self):
        self.began = time.time()
        await asyncio.sleep(0.005)
        self.ended = time.time()
        self.next(self.join_first)

    @limit("b")
    @limit("a")
    @step
    async def second(self):
        self.began = time.time()
        await asyncio.sleep(0.005)
        self.ended = time.time()
        self.next(self.join_second)

    @step
    def join_first(self, inputs):
        self.spans = [(task.began, task.ended) for task in inputs]
        self.next(self.meet)

    @step
    def join_second(self, inputs):
        self.spans = [(task.began, task.ended) for task in inputs]
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.spans = [span for task in inputs for span in task.spans]
        self.next(self.end)

    @step
    def end(self):
        pass


class Chained(FlowSpec):
    """Each task of a foreach is followed by a limited one, which comes to stand before the rest."""

    @step
    def start(self):
        self.items = range(60)
        self.next(self.free, foreach="items")

    @concurrency(1)
    @step
    async def free(self):
        self.next(self.limited)

    @limit("api", 2)
    @step
    async def limited(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Retried(FlowSpec):
    """A limited task that fails at first and waits for its retry, beside one that passes."""

    @step
    def start(self):
        self.items = ["fails", "passes"]
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=1)
    @limit("gpu")
    @step
    def work(self):
        self.began = time.time()
        if self.input == "fails" and current.retry_count == 0:
            raise ValueError
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_began = [task.began for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def started(handle, name):
    """Wait for the first task of a step to have begun."""
    async for event in handle.events():
        if isinstance(event, events.TaskStarted) and event.step == name:
            return


# --- the file -----------------------------------------------------------------------------------


def test_a_place_is_had_by_one_at_a_time(pair):
    """Also by engines of one process; who closes the file gives up what it had."""
    one, other = pair
    assert one.take_place(0)
    assert not other.take_place(0)
    assert other.take_place(1)
    assert (one.in_use(), other.in_use()) == (1, 1)
    one.free_place(0)
    assert other.take_place(0)
    other.close()
    assert one.in_use() == 0
    assert one.take_place(0)


def test_tickets_tell_who_came_first(pair):
    """Who waits without a ticket comes after all who have one."""
    one, other = pair
    first, second = one.join_line(), other.join_line()
    assert not one.is_preceded(first)
    assert other.is_preceded(second)
    assert (one.in_line(), other.in_line()) == (1, 1)
    one.leave_line(first)
    assert not other.is_preceded(second)
    assert one.is_preceded(None)
    other.leave_line(second)
    assert not one.is_preceded(None)


def test_places_in_use_are_counted_wherever_they_lie(pair):
    """With holes, and many."""
    one, other = pair
    taken = [0, 1, 2, 7, 9, 500, 501]
    assert all(one.take_place(place) for place in taken)
    assert other.in_use() == len(taken)


def test_a_rate_gives_even_distances_whoever_asks(pair):
    """Both count in the same file; who may not begin is told how long to wait."""
    one, other = pair
    now = 1000.0
    assert one.begin_one(10, 0.0, now) == 0
    assert other.begin_one(10, 0.0, now) == pytest.approx(0.1, abs=1e-4)
    assert other.begin_one(10, 0.0, now + 0.1001) == 0
    assert one.begin_one(10, 0.0, now + 0.15) == pytest.approx(0.05, abs=1e-3)
    one.undo_one(10)
    assert one.begin_one(10, 0.0, now + 0.15) == 0


def test_a_clock_that_was_put_back_does_not_hold_anybody_up_for_long(pair):
    """What lies more than an hour ahead cannot be meant."""
    one, other = pair
    assert one.begin_one(10, 0.0, 1_000_000.0) == 0
    assert other.begin_one(10, 0.0, 1000.0) == 0


def test_what_was_set_is_seen_by_who_has_the_file_open(pair):
    """And taken back."""
    one, other = pair
    one.set_bounds(Bounds(20, 2.5))
    assert other.bounds() == Bounds(20, 2.5)
    one.set_bounds(Bounds(at_once=0))
    assert other.bounds() == Bounds(0, None)
    one.set_bounds(Bounds())
    assert other.bounds() == Bounds()


def test_every_flipped_byte_and_every_cut_of_what_was_set_is_found(tmp_path):
    """An error that names the file and the command that mends it, or the right answer."""
    store = Layout.open(tmp_path / "store", create=True)
    with LimitFile.open(store.limits, "api") as file:
        file.set_bounds(Bounds(7, 3.0))
        file.begin_one(10, 0.0, time.time())
    path = store.limits / "api"
    whole = path.read_bytes()
    assert len(whole) == FILE_BYTES
    for position in range(FILE_BYTES):
        for damaged in (
            whole[:position],
            whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :],
        ):
            path.write_bytes(damaged)
            if verify(store).damage:
                assert [each.file for each in verify(store).damage] == ["limits/api"]
                with pytest.raises(LimitError, match="asyncflow limit set api"):
                    LimitFile.open(store.limits, "api")
            else:
                with LimitFile.open(store.limits, "api") as file:
                    assert file.bounds() == Bounds(7, 3.0)
                    assert file.begin_one(10, 0.0, time.time() + 7200) == 0
    with LimitFile.open(store.limits, "api", mend=True) as file:
        file.set_bounds(Bounds(7))
        assert file.bounds() == Bounds(7)


def test_a_store_with_limits_can_be_copied_verified_and_collected(tmp_path):
    """What a crash left of a limit that was being made is deleted once it is old."""
    layout = Layout.open(tmp_path / "store", create=True)
    with LimitFile.open(layout.limits, "api") as file:
        file.set_bounds(Bounds(7))
        file.take_place(0)
        draft = layout.limits / ".gpu.0123456789abcdef"
        draft.touch()
        os.utime(draft, (0, 0))
        assert not verify(layout).damage
        assert collect(layout).leftovers.files == 1
        shutil.copytree(tmp_path / "store", tmp_path / "copy")
        copy = Layout.open(tmp_path / "copy", create=False)
        with LimitFile.open(copy.limits, "api") as other:
            assert (other.bounds(), other.in_use()) == (Bounds(7), 0)
    assert names_in(layout.limits) == ["api"]


# --- the language -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", "", ".hidden", "n" * 101])
def test_a_name_that_no_limit_can_have_makes_no_file(tmp_path, name):
    """A journal may say any name: nothing outside of the folder is made or opened."""
    (tmp_path / "limits").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LimitError, match="cannot be the name of a limit"):
        LimitFile.open(tmp_path / "limits", name)
    assert sorted(tmp_path.rglob("*")) == before


def test_who_only_looks_makes_no_limit(tmp_path):
    """Where nobody has used a limit yet there is nothing to look at."""
    with pytest.raises(LimitError, match="cannot use the limit 'api': No such file"):
        LimitFile.open(tmp_path / "limits", "api", make=False)
    assert not list(tmp_path.iterdir())


def test_limits_are_taken_in_the_order_of_their_names():
    """However they stand on the step."""
    needs = needs_of([["gpu", 1, None], ["api", 5, 2.0]])
    assert [(need.name, need.bounds) for need in needs] == [
        ("api", Bounds(5, 2.0)),
        ("gpu", Bounds(1, None)),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "takes a name"),
        (("a/b",), "takes a name"),
        ((".hidden",), "takes a name"),
        ((print,), "takes a name"),
        (("api", 0), "at_once"),
        (("api", 1.5), "at_once"),
        (("api", 2**31 + 1), "at_once"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(arguments, words):
    """The error shows what it was given."""
    with pytest.raises(FlowError, match=words):
        limit(*arguments)


@pytest.mark.parametrize("rate", [0, 1e-300, -1, 1e7, float("nan"), float("inf"), "often"])
def test_a_rate_that_makes_no_sense_is_refused(rate, tmp_path, capsys):
    """By the decorator and by the command line; what cannot be in a file is told, not obeyed."""
    with pytest.raises(FlowError, match="per_second"):
        limit("api", per_second=rate)
    arguments = ["limit", "set", "api", f"--per-second={rate}", "--store", str(tmp_path)]
    assert invoke(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--per-second" in said.err
    if isinstance(rate, float):
        written = pack_bounds(Bounds(1, rate))
        with pytest.raises(LimitError, match="impossible values"):
            unpack_bounds(written, tmp_path / "api")


def test_a_number_that_no_file_holds_is_refused(tmp_path, capsys):
    """With the largest that can be."""
    arguments = ["limit", "set", "gpu", "99999999999999999999999", "--store", str(tmp_path)]
    assert invoke(arguments) == 2
    assert "2147483648" in capsys.readouterr().err


def test_the_same_limit_twice_on_a_step_is_refused():
    """Two of different names are one step's business."""

    def method(self):
        """The user's."""

    limit("gpu")(method)
    limit("api", 5)(method)
    with pytest.raises(FlowError, match="is used twice"):
        limit("api", 3)(method)


class Waiting:
    """A run that waits."""

    def __init__(self, number):
        self.number, self.pathspec = number, f"F/{number}"
        self.orders: Any = SimpleNamespace(ready=1)

    def abandon(self, error):
        """It has nothing that could be lost."""
        raise AssertionError(error)


# --- in engines ---------------------------------------------------------------------------------


async def test_no_more_tasks_run_at_a_time_than_the_limit_says_over_all_runs(engine):
    """Two runs in one engine share it."""

    async def spans():
        runs = await asyncio.gather(engine.run(Limited), engine.run(Limited))
        found = [span for run in runs for span in run.data.spans]
        assert len(found) == 16
        return found

    assert await most_in_any(spans, 2) == 2


async def test_who_is_woken_and_gets_nothing_is_the_first_to_be_woken_again(tmp_path):
    """Another engine may have taken the place in that moment: that is nobody's fault."""
    woken: list[Waiting] = []
    one = [("api", 1, None)]
    graph = Graph("Flow", [Node("start", ("end",), options={"limit": one}), Node("end")])
    limits = Limits(FolderLimits(tmp_path), InlineExecutor(), woken.append)
    limits.open(graph)
    await asyncio.sleep(0)
    needs = needs_of(one)
    first, second = Waiting(1), Waiting(2)

    def ask(run):
        return limits.take(run, needs) if limits.may_take(run, needs) else None

    with LimitFile.open(tmp_path, "api") as other:
        assert other.take_place(0)
        assert ask(first) is None
        assert ask(second) is None
        for turn in range(1, 4):
            await until(lambda turn=turn: len(woken) == turn)
            assert ask(woken[-1]) is None
            limits.settle()
        assert woken == [first] * 3
        other.free_place(0)
        await until(lambda: len(woken) == 4)
        grant = ask(woken[-1])
    assert grant is not None
    grant.release()
    assert woken[3:] == [first, second]
    limits.close()


async def test_engines_share_a_limit_and_each_has_its_share(store):
    """Neither waits until the other has done all."""
    async with Engine(store=store, workers=1) as one, Engine(store=store, workers=1) as other:
        with LimitFile.open(Layout.open(store, create=True).limits, "api") as file:
            file.set_bounds(Bounds(0))
            handles = [await each.start(Limited, width=16, seconds=0.1) for each in (one, other)]
            await until(lambda: all(each._limits._limits["api"]._waiting for each in (one, other)))
            file.set_bounds(Bounds())
        runs = await asyncio.gather(*handles)
    first, second = (sorted(run.data.spans) for run in runs)
    assert most_at_once(first + second) == 2
    assert first[0][0] < second[-1][0]
    assert second[0][0] < first[-1][0]


async def test_a_rate_is_kept_whatever_the_workers_could_do(engine):
    """Twenty at twenty a second begin over 0.95 s; to begin may take a moment more or less."""
    run = await engine.run(Rated, width=20)
    began = run.data.all_began
    assert began[-1] - began[0] > 0.5


async def test_what_two_limits_are_needed_for_waits_for_both_and_never_for_ever(store):
    """Named in opposite orders on two steps and in two engines, they do not lock each other."""
    async with Engine(store=store, workers=1) as one, Engine(store=store, workers=1) as other:
        runs = await asyncio.gather(one.run(Twofold), other.run(Twofold))
    assert most_at_once([span for run in runs for span in run.data.spans]) == 1


async def test_other_steps_and_runs_pass_what_waits_for_a_limit(store, engine):
    """It costs no worker: a run without a limit goes through while the other waits."""
    layout = Layout.open(store, create=True)
    with LimitFile.open(layout.limits, "api") as held:
        assert held.take_place(0)
        assert held.take_place(1)
        waiting = await engine.start(Limited, width=2)
        await until(lambda: held.in_line() == 1)
        assert (await engine.run(Linear)).successful
        assert engine.statistics().workers_busy == 0
        assert not waiting.status.finished
        held.free_place(1)
        assert (await waiting).successful


async def test_however_many_wait_for_a_limit_other_tasks_of_the_run_go_on(store, engine):
    """All sixty tasks without a limit end, while those that follow them are held back."""
    with LimitFile.open(Layout.open(store, create=True).limits, "api") as file:
        file.set_bounds(Bounds(0))
        handle = await engine.start(Chained)
        ended = 0
        async for event in handle.events(events.TaskSucceeded):
            ended += event.step == "free"
            if ended == 60:
                break
        file.set_bounds(Bounds())
        assert (await handle).data.count == 60


async def test_a_limit_is_not_held_while_a_retry_waits(engine):
    """The other task has it meanwhile."""
    run = await engine.run(Retried)
    failed, passed = run.data.all_began
    assert passed < failed


async def test_a_limit_can_be_changed_while_a_run_goes_on(store, engine):
    """Held back by 0, it goes on as soon as something is set, and as many run as that says."""
    layout = Layout.open(store, create=True)
    with LimitFile.open(layout.limits, "api") as file:
        file.set_bounds(Bounds(0))
        handle = await engine.start(Limited, width=20, seconds=0.3)
        await until(lambda: engine._limits._limits["api"]._waiting)
        assert engine.statistics().tasks_running == 0
        assert (file.in_use(), file.in_line()) == (0, 1)
        file.set_bounds(Bounds(20))
        spans = (await handle).data.spans
    assert most_at_once(spans) > 2


async def test_a_rate_that_was_too_slow_holds_nobody_up_once_it_is_changed(store, engine):
    """The next start does not wait as long as the former rate says, which is 1,000 s here."""
    layout = Layout.open(store, create=True)
    with LimitFile.open(layout.limits, "rate") as file:
        file.set_bounds(Bounds(per_second=0.001))
        handle = await engine.start(Rated)
        await until(lambda: engine._limits._limits["rate"]._waiting)
        file.set_bounds(Bounds(per_second=1000.0))
        async with asyncio.timeout(60):
            await handle


async def test_a_run_that_gets_nothing_of_a_limit_is_told_of_and_shown(
    store, engine, caplog, capsys, monkeypatch
):
    """In the library's log, with the limit and how it stands, once; and by `asyncflow show`."""
    monkeypatch.setattr(named_limits, "PATIENCE_SECONDS", 0.01)
    with LimitFile.open(Layout.open(store, create=True).limits, "api") as file:
        file.set_bounds(Bounds(0))
        handle = await engine.start(Limited)
        await until(lambda: caplog.messages)
        assert invoke(["show", handle.pathspec, "--json"]) == 0
        (limit,) = json.loads(capsys.readouterr().out)["limits"]
        assert limit == {
            "name": "api",
            "step": "call",
            "at_once": 0,
            "per_second": None,
            "in_use": 0,
            "engines_waiting": 1,
        }
        assert invoke(["show", handle.pathspec]) == 0
        shown = capsys.readouterr().out
        assert "limit       api of step call: 0 at a time; 0 in use, 1 engine waiting\n" in shown
        file.set_bounds(Bounds())
        await handle
    what = f"a run waits for limit api (run: {handle.pathspec}, allowed: 0 at a time, in_use: 0)"
    assert caplog.messages[0] == what
    assert invoke(["show", handle.pathspec]) == 0
    assert "limit" not in capsys.readouterr().out


class Shifted:
    """An event loop whose time is put forward by hand."""

    def __init__(self, loop):
        self._loop, self.ahead = loop, 0.0

    def time(self):
        """The loop's time, and what was added."""
        return self._loop.time() + self.ahead

    def __getattr__(self, name):
        return getattr(self._loop, name)


@pytest.fixture
async def contended(tmp_path):
    """A limit of one at a time, whose only place another engine has, on a clock of its own."""
    one = [("api", 1, None)]
    limits = Limits(FolderLimits(tmp_path), InlineExecutor(), lambda _: None)
    limits.open(Graph("Flow", [Node("start", ("end",), options={"limit": one}), Node("end")]))
    await asyncio.sleep(0)
    limit = limits._limits["api"]
    clock: Any = Shifted(asyncio.get_running_loop())
    limit._loop = clock

    def told(runs_that_ask, caplog):
        """Which runs the log tells of, when these have asked, and further 1.5 s have passed."""
        caplog.clear()
        for number in runs_that_ask:
            assert limits.take(Waiting(number), needs_of(one)) is None
        clock.ahead += 1.5
        limit.warn_of_long_waits()
        return [int(each.partition("run: F/")[2].partition(",")[0]) for each in caplog.messages]

    with LimitFile.open(tmp_path, "api") as other:
        assert other.take_place(0)
        yield limits, needs_of(one), other, told
    limits.close()


async def test_who_waits_long_is_told_of_once_and_anew_when_the_limit_is_another(contended, caplog):
    """Each run for itself; to get something meanwhile does not bring the warning again."""
    limits, needs, other, told = contended
    assert told([1], caplog) == []
    assert told([1, 2], caplog) == [1]
    assert told([], caplog) == [2]
    assert told([], caplog) == []
    other.free_place(0)
    limits.take(Waiting(1), needs).release()
    assert other.take_place(0)
    assert told([1], caplog) == []
    assert told([1], caplog) == []
    limits.forget(Waiting(2))
    limits._limits["api"].set(Bounds(1, 5.0))
    assert told([1], caplog) == []
    assert told([1], caplog) == [1]


async def test_who_has_something_of_the_limit_or_gets_it_now_and_then_is_not_told_of(
    contended, caplog
):
    """It does move."""
    limits, needs, other, told = contended
    other.free_place(0)
    grant = limits.take(Waiting(1), needs)
    assert told([1], caplog) == []
    assert told([1], caplog) == []
    grant.release()
    for _ in range(3):
        limits.take(Waiting(1), needs).release()
        assert other.take_place(0)
        assert told([1], caplog) == []
        other.free_place(0)
    assert other.take_place(0)
    assert told([], caplog) == [1]


async def test_a_run_keeps_a_place_only_while_it_waits_for_another_limit(tmp_path, monkeypatch):
    """Its tasks may be gone while it goes on: then it wants nothing of either limit."""
    wanted = {}

    def expect(file, _, at_once, ready):
        wanted[file.name] = ready if at_once else 0

    monkeypatch.setattr(LimitFile, "expect", expect)
    two = [("a", 1, None), ("b", 1, None)]
    woken: list[Any] = []
    limits = Limits(FolderLimits(tmp_path), InlineExecutor(), woken.append)
    limits.open(Graph("Flow", [Node("start", ("end",), options={"limit": two}), Node("end")]))
    await asyncio.sleep(0)
    with LimitFile.open(tmp_path, "b") as other:
        assert other.take_place(0)
        run = Waiting(1)
        for _ in range(2):
            assert limits.take(run, needs_of(two)) is None
            limits.settle()
            assert wanted == {"a": 1, "b": 1}
            limits._limits["b"].look()
        assert woken == [run, run]
        limits.settle()
        assert wanted == {"a": 0, "b": 0}
    limits.close()


async def test_a_cancelled_run_gives_up_what_it_has_and_its_place_in_line(store, engine):
    """Nothing is held for it any more."""
    async with engine.subscribe(events.TaskStarted) as stream:
        handles = [await engine.start(Limited, width=5, seconds=60.0) for _ in range(2)]
        async for event in stream:
            if event.step == "call":  # of the one or the other
                break
    for handle in handles:
        handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle
    with LimitFile.open(Layout(store).limits, "api") as file:
        assert (file.in_use(), file.in_line()) == (0, 0)


HOLDER = """
import asyncio, sys
from asyncflow import Engine
from tests.runs.test_limits import Limited, started

async def main():
    async with Engine(store=sys.argv[1], workers=1) as engine:
        handle = await engine.start(Limited, width=2, seconds=600.0)
        await started(handle, "call")
        await started(handle, "call")
        print("held", flush=True)
        await handle

asyncio.run(main())
"""


async def test_what_a_killed_engine_held_is_free_at_once(store, engine):
    """Its locks die with it, and whoever waits goes on."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLDER, str(store)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        handle = await engine.start(Limited, width=2)
        with LimitFile.open(Layout(store).limits, "api") as file:
            await until(lambda: file.in_line() == 1)
        child.send_signal(signal.SIGKILL)
        assert (await handle).successful


async def test_a_damaged_limit_starts_no_run_and_says_how_to_mend_it(store, engine):
    """The error is there before anything of the run is."""
    layout = Layout.open(store, create=True)
    layout.limits.mkdir()
    (layout.limits / "api").write_bytes(b"nonsense")
    with pytest.raises(LimitError, match="asyncflow limit unset api"):
        await engine.start(Limited)
    assert not (store / "flows").exists()


# --- the command --------------------------------------------------------------------------------


def test_a_damaged_limit_does_not_hide_the_others(store, capsys):
    """They are listed, then the error says what to do; a program gets only the error."""
    assert invoke(["limit", "set", "b", "2"]) == 0
    (Layout(store).limits / "a").write_bytes(b"nonsense")
    capsys.readouterr()
    assert invoke(["limit", "list"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "b: 2 at a time; 0 in use\n"
    assert "asyncflow limit set a N" in shown.err
    assert invoke(["limit", "list", "--json"]) == 1
    assert not capsys.readouterr().out


def test_the_command_sets_lists_and_unsets(store, capsys):
    """As text and as JSON."""
    assert invoke(["limit", "set", "api", "20", "--per-second", "2.5"]) == 0
    with LimitFile.open(Layout(store).limits, "api") as file:
        assert file.bounds() == Bounds(20, 2.5)
        file.take_place(3)
        assert invoke(["limit", "list"]) == 0
        assert invoke(["limit", "list", "--json"]) == 0
        assert invoke(["limit", "unset", "api"]) == 0
        assert file.bounds() == Bounds()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "api: 20 at a time, 2.5 per second",
        "api: 20 at a time, 2.5 per second; 1 in use",
    ]
    (listed,) = json.loads("\n".join(lines[2:-1]))
    assert listed == {
        "name": "api",
        "at_once": 20,
        "per_second": 2.5,
        "in_use": 1,
        "engines_waiting": 0,
    }
    assert lines[-1] == "api: as the steps say"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "api"], "give a value for api"),
        (["set", "../api", "3"], "cannot name a limit"),
        (["set", "api", "-1"], "-1"),
        (["set", "api", "--per-second", "0"], "0"),
        (["unset", "gpu"], "has no limit 'gpu'; it has none"),
    ],
)
def test_wrong_usage_is_told_apart_and_changes_nothing(store, capsys, arguments, words):
    """Exit status 2, and what to do instead."""
    Layout.open(store, create=True)
    assert invoke(["limit", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert names_in(Layout(store).limits) == []
