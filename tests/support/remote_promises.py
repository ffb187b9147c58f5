"""What has to hold wherever tasks run: tests for each place, which has an engine there.

A module of tests has a class of its own below `RemotePromises`, and a fixture `distant`: an engine
with two workers at that place. `engine` has its workers here.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncflow import events, otel
from asyncflow.cards import get_cards
from asyncflow.errors import RunCancelledError, RunFailedError
from tests.support.card_flows import Live
from tests.support.remote_flows import (
    SECONDS,
    Apart,
    Carded,
    Hindered,
    Loud,
    Named,
    Packed,
    Sleeping,
    Spanning,
    Talking,
    Waiting,
    printed,
)
from tests.support.waiting import still_running, until


def parts_of(task):
    """What steps have put on the cards of a task, for each card."""
    return [
        [part for part in found.drawing()["parts"] if part["kind"] != "section"]
        for found in get_cards(task)
    ]


async def ended(engine, flow):
    """The run of a flow, whether it fails or not."""
    try:
        return await engine.run(flow)
    except RunFailedError as error:
        return error.run


async def lose_a_node(engine, host_of):
    """The process that holds the agent of a worker is killed while it has tasks.

    `host_of` finds it by the worker's process id.
    """
    handle = await engine.start(Waiting)
    host = host_of((await printed(handle, "waiting")).pid)
    left = host.children(recursive=True)
    assert left
    host.kill()
    run = await handle
    lost = [each for task in run["work"] for each in task.attempts() if each.exception]
    assert {each.exception.type for each in lost} == {"asyncflow.errors.WorkerDiedError"}
    assert all("was lost with its node" in each.exception.message for each in lost)
    assert [each.stdout for each in lost if each.stdout] == ["waiting\n"]
    assert not still_running(left, SECONDS)


async def lose_a_node_within_packets(engine, host_of, folder):
    """The same while its workers have many short tasks, of which some have ended."""
    handle = await engine.start(Packed, folder=str(folder))
    began = 0
    async for event in handle.events():
        if isinstance(event, events.TaskStarted) and event.step == "work":
            began += 1
            if began == 40:
                host_of(event.pid).kill()
    run = await handle
    assert run.data.all == [f"item {number}" for number in range(400)]
    for task in run["work"]:
        *lost, last = task.attempts()
        assert last.exception is None
        assert all("was lost with its node" in each.exception.message for each in lost)
        assert Path(folder, str(task.index)).read_text().count("begun") >= 1


class RemotePromises:
    """The tests."""

    async def test_all_that_tasks_print_comes_from_the_node(self, distant):
        """In order, and between the start and the end of the task."""
        handle = await distant.start(Talking, lines=20_000)
        seen = [event async for event in handle.events()]
        run = await handle
        expected = "".join(f"line {number}\n" for number in range(20_000)) + "half a line"
        assert run["start"].task.stdout == expected
        assert run["start"].task.stderr == "raw\n"
        assert (run["talk"].task.stdout, run["talk"].task.stderr) == ("begins\n", "ends\n")
        of_start = [type(event) for event in seen if getattr(event, "step", "") == "start"]
        assert of_start[0] is events.TaskStarted
        assert of_start[-1] is events.TaskSucceeded

    async def test_a_cancelled_run_ends_its_tasks_on_the_node(self, distant):
        """A `def` task and an async one; and the next run finds the workers free."""
        handle = await distant.start(Sleeping)
        await printed(handle, "still")
        await printed(handle, "turning")
        handle.cancel("enough")
        with pytest.raises(RunCancelledError) as caught:
            await handle
        for name in ("still", "turning"):
            failure = caught.value.run[name].task.exception
            assert (failure.type.rsplit(".", 1)[-1], failure.message) == (
                "TaskCancelledError",
                "enough",
            )
        assert (await distant.run(Talking)).successful

    async def test_slow_attempts_and_killed_workers_cost_one_attempt_each(self, distant):
        """What they had printed is kept, and `@catch` handles what is too slow for good."""
        run = await distant.run(Hindered)
        first = [task.attempts()[0] for task in run["work"]]
        told = [(each.stdout, each.exception and each.exception.type) for each in first]
        assert sorted(told, key=repr) == [
            ("attempt 0\n", "asyncflow.errors.TaskTimeoutError"),
            ("attempt 0\n", "asyncflow.errors.WorkerDiedError"),
            ("attempt 0\n", None),
        ]
        assert run["end"].task["late_by"].data.endswith("TaskTimeoutError")

    async def test_cards_are_those_of_this_machine(self, distant, engine):
        """Also of an async task, of one that is tried again, and of one that fails for good."""
        there, here = await ended(distant, Carded), await ended(engine, Carded)
        for name in ("start", "work", "end"):
            assert parts_of(there[name].task) == parts_of(here[name].task)
            assert parts_of(there[name].task)[0]

    async def test_a_card_is_seen_while_its_step_runs_on_the_node(self, distant, tmp_path):
        """Each refresh, before the step goes on."""
        handle = await distant.start(Live, folder=str(tmp_path))
        number = 0
        async for event in handle.events():
            if isinstance(event, events.CardUpdated):
                number += 1
                (bar,) = parts_of(handle.run["start"].task)[0]
                assert (bar["kind"], bar["value"]) == ("progress", number)
                Path(tmp_path, str(number)).touch()
        assert number >= 3
        assert (await handle).successful

    async def test_a_megabyte_in_one_line_comes_whole(self, distant, engine):
        """And what `logging`, children and odd characters leave."""
        there, here = await distant.run(Loud), await engine.run(Loud)
        for name in ("start", "aloud", "end"):
            assert there[name].task.stdout == here[name].task.stdout
            assert there[name].task.stderr == here[name].task.stderr
        assert len(there["start"].task.stdout) == (1 << 20) + len("\nfrom a child\n")
        assert "a warning" in there["start"].task.stderr

    async def test_items_are_named_and_what_tasks_use_is_told(self, distant):
        """Of tasks that travel together as of others; and on which machine each has run."""
        handle = await distant.start(Named)
        began = [event async for event in handle.events() if isinstance(event, events.TaskStarted)]
        run = await handle
        assert run.data.all == [f"item {number}" for number in range(400)]
        told = {event.path[0]: event.item for event in began if event.step == "work"}
        assert told == {number: f"'item {number}'" for number in range(400)}
        assert all(event.node and event.pid for event in began)
        (large,) = [task for task in run["work"] if task.index == 7]
        assert large.peak_memory > 64 << 20
        assert all(task.cpu_seconds is not None for task in run["work"])

    async def test_isolated_tasks_have_a_process_each_and_a_limit_holds(self, distant):
        """Processes and places are those of the node, the limit is counted here."""
        run = await distant.run(Apart)
        assert len(run["gather"].task.data.pids) == 3
        times = run["join"].task.data.times
        assert all(ended <= began for (_, ended), (began, _) in pairwise(times))

    async def test_steps_on_the_node_are_within_the_spans_of_their_attempts(self, distant):
        """So what they make belongs to the run's trace."""
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with otel.instrument(distant, tracer_provider=provider):
            run = await distant.run(Spanning)
            await until(
                lambda: any(span.name == "run Spanning" for span in exporter.get_finished_spans())
            )
        finished = exporter.get_finished_spans()
        expected = {span.context.span_id for span in finished if span.name == "each"}
        assert run["join"].task.data.spans == expected
