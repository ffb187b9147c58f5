"""Tasks that need two limits of one place each: engines take turns, and take both in one order."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from functools import partial
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling.named_limits import Grant, Limits, needs_of
from asyncflow.store.limit_files import FolderLimits, LimitFile
from asyncflow.testing import InlineExecutor
from tests.support.overlap import most_at_once
from tests.support.raising_handler import RaisingHandler, SignalError

SECONDS = 120  # that nothing here needs
ENGINES, TASKS = 3, 6

PROGRAM = """
    import asyncio, json, sys, time

    from asyncflow import Engine, FlowSpec, limit, step

    class Both(FlowSpec):
        @step
        def start(self):
            self.items = range(6)
            self.next(self.call, foreach="items")

        @limit("first", 1)
        @limit("second", 1)
        @step
        async def call(self):
            import asyncio, time
            self.began = time.time()
            await asyncio.sleep(0.15)
            self.ended = time.time()
            self.next(self.join)

        @step
        def join(self, inputs):
            self.spans = [(task.began, task.ended) for task in inputs]
            self.next(self.end)

        @step
        def end(self):
            pass

    async def main():
        async with Engine(workers=1) as engine:
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)  # all engines begin together
            run = await engine.run(Both)
            print(json.dumps(run.data.spans))

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_three_engines_of_their_own_processes_take_turns_at_two_limits(store, tmp_path):
    """One task at a time has both, all are run, and no engine goes on while others wait."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "program.py"]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "cwd": tmp_path,
    }
    engines: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(ENGINES)]
    try:
        for engine in engines:
            assert engine.stdout.readline() == "ready\n"
        for engine in engines:
            engine.stdin.write("go\n")
            engine.stdin.flush()
        told = [json.loads(engine.communicate(timeout=SECONDS)[0]) for engine in engines]
    finally:
        for engine in engines:
            engine.kill()
            engine.communicate()
    spans = [span for each in told for span in each]
    assert len(spans) == ENGINES * TASKS
    assert most_at_once(spans) == 1
    order = sorted((began, number) for number, each in enumerate(told) for began, _ in each)
    turns = [(number, len(list(some))) for number, some in groupby(order, key=lambda each: each[1])]
    left = dict.fromkeys(range(ENGINES), TASKS)
    begun: set[int] = set()
    for number, count in turns:
        others_wait = all(left[each] for each in left if each != number)
        if len(begun) == ENGINES and others_wait:  # the first ones begin while others still start
            assert count <= 2, turns
        begun.add(number)
        left[number] -= count


class Waiting:
    """A run that waits."""

    def __init__(self, number):
        self.number, self.pathspec = number, f"F/{number}"
        self.orders: Any = SimpleNamespace(ready=1)

    def abandon(self, error):
        """It has nothing that could be lost."""
        raise AssertionError(error)


NEEDS = needs_of([("second", 1, None), ("first", 1, None)])


@pytest.fixture
def calls(monkeypatch):
    """What is asked of limits, in order: the call, and the limit's name."""
    asked: list[tuple[str, str]] = []

    def noting(name, before):
        def call(file, *arguments, **options):
            asked.append((name, file.name))
            return before(file, *arguments, **options)

        return call

    for name in ("take_below", "free_place", "expect", "let_others"):
        monkeypatch.setattr(LimitFile, name, noting(name, getattr(LimitFile, name)))
    return asked


@pytest.fixture
async def limits(tmp_path):
    """Those of an engine, open."""
    opened = Limits(FolderLimits(tmp_path), InlineExecutor(), lambda _: None)
    options = {"limit": [(each.name, 1, None) for each in NEEDS]}
    opened.open(Graph("Flow", [Node("start", ("end",), options=options), Node("end")]))
    await asyncio.sleep(0)
    yield opened
    opened.close()


async def test_a_task_takes_its_limits_in_the_order_of_their_names(limits, calls):
    """Whatever their order on the step: two engines never hold one each and wait for the other."""
    grant = limits.take(Waiting(1), NEEDS)
    assert calls == [("take_below", "first"), ("take_below", "second")]
    grant.release()


async def test_who_lacks_the_last_of_its_limits_wants_those_before_it(limits, calls, tmp_path):
    """It has none of them meanwhile, and goes on to ask for what it had taken."""
    with LimitFile.open(tmp_path, "second") as other:
        assert other.take_place(0)
        assert limits.take(Waiting(1), NEEDS) is None
    assert calls == [
        ("take_below", "first"),
        ("take_below", "second"),
        ("expect", "second"),
        ("free_place", "first"),
        ("expect", "first"),
    ]


async def test_who_lacks_the_first_of_its_limits_lets_others_have_those_behind_it(
    limits, calls, tmp_path
):
    """They are not even tried."""
    with LimitFile.open(tmp_path, "first") as other:
        assert other.take_place(0)
        assert limits.take(Waiting(1), NEEDS) is None
    assert calls == [("take_below", "first"), ("expect", "first"), ("let_others", "second")]


async def test_a_place_of_a_broken_off_release_is_freed_once_more_and_no_other_one(
    limits, calls, monkeypatch
):
    """An exception came between the two limits of a task: the next call frees what is left."""
    grant, free = limits.take(Waiting(1), NEEDS), LimitFile.free_place

    def break_off(file, number, *, unused=False):
        if file.name == "first":
            raise KeyboardInterrupt
        free(file, number, unused=unused)

    with monkeypatch.context() as patch:
        patch.setattr(LimitFile, "free_place", break_off)
        with pytest.raises(KeyboardInterrupt):
            grant.release()
    grant.release()
    grant.release()
    assert [each for each in calls if each[0] == "free_place"] == [
        ("free_place", "second"),
        ("free_place", "first"),
    ]


def places_passed(limits, take):
    """Raise at each place that `take` passes, one after the other, until it passes them all."""
    for at in range(1, 10_000):
        handler, grant = RaisingHandler(at), Grant()
        try:
            with handler.at_work():
                take(grant)
        except SignalError:
            pass
        grant.release()
        yield at
        if not handler.has_raised:
            return
    raise AssertionError("it does not end")


async def test_a_signal_handler_that_raises_while_a_task_takes_its_limits_loses_no_place(
    limits, tmp_path
):
    """Wherever it does so: the places are free for another engine at once."""
    passed = 0
    with LimitFile.open(tmp_path, "first") as first, LimitFile.open(tmp_path, "second") as second:
        for at in places_passed(limits, partial(limits.take, Waiting(1), NEEDS)):
            for file in (first, second):
                assert file.take_place(0), at
                file.free_place(0)
            passed = at
    assert passed > 20


async def test_a_signal_handler_that_raises_while_a_run_joins_a_queue_leaves_no_ticket(
    limits, tmp_path
):
    """Another engine would wait behind it for as long as this one is open."""
    passed = 0
    with LimitFile.open(tmp_path, "second") as second:
        assert second.take_place(0)
        for at in places_passed(limits, partial(limits.take, Waiting(1), NEEDS)):
            limits.settle()
            limits.forget(Waiting(1))
            assert not second.is_preceded(None), at
            passed = at
    assert passed > 20


async def test_what_nobody_has_noted_is_given_back(limits, tmp_path):
    """The places and the ticket that are known stay."""
    with LimitFile.open(tmp_path, "first") as file, LimitFile.open(tmp_path, "first") as other:
        assert [file.take_place(number) for number in range(6)] == [True] * 6
        tickets = [file.join_line(), file.join_line()]
        file.keep_only({1, 4}, tickets[1])
        assert [number for number in range(6) if not other.take_place(number)] == [1, 4]
        assert other.is_preceded(None)
        assert not other.is_preceded(tickets[1])
