"""Finds a task of an earlier run, so that its step can be run again alone, in this process."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any

from asyncflow.client import Flow, Run
from asyncflow.client.namespaces import without_namespace
from asyncflow.engine.new_run import variables_of
from asyncflow.errors import NotFoundError
from asyncflow.flow.delayed_values import has_configs
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.scheduling.input_offsets import InputOffsets
from asyncflow.values import Status, TaskKey, indexes_of
from asyncflow.workers.messages import AttemptKey, Opening, StartTask
from asyncflow.workers.process.single_task import SingleTask
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.client import Step, Task
    from asyncflow.client.run_files import RunRecord
    from asyncflow.flow.spec import FlowSpec

_MOST_PARTS = 3


def find_task(flow: type[FlowSpec], pathspec: str, store: Path | str | None) -> Task:
    """The task that STEP, RUN/STEP or RUN/STEP/TASK names; the flow's name may stand before it.

    Without a run it is the latest one, and without a task the first that has failed, else the
    first.

    Raises:
        NotFoundError: There is no such task.
    """
    name = flow.__name__
    parts = pathspec.strip("/").split("/")
    if len(parts) > 1 and parts[0] == name:
        parts = parts[1:]
    if not all(parts) or len(parts) > _MOST_PARTS:
        message = f"{pathspec!r} names no task: give STEP, RUN/STEP or RUN/STEP/TASK"
        raise NotFoundError(message)
    with without_namespace():
        if len(parts) == 1:
            latest = Flow(name, store=store).latest_run
            if latest is None:
                message = f"{name} has no run whose inputs the step could have"
                raise NotFoundError(message)
            step: Step = latest[parts[0]]
        else:
            step = Run(f"{name}/{parts[0]}", store=store)[parts[1]]
        if len(parts) == _MOST_PARTS:
            return step[parts[2]]
        return next(step.tasks(status=Status.FAILED), None) or next(step.tasks())


def prepare_task(flow: type[FlowSpec], task: Task) -> SingleTask:
    """The task with its inputs, and with the flow as it is now.

    Raises:
        GraphError: The flow's steps form no graph that can be run.
        NotFoundError: The flow no longer has the step.
    """
    record, key = task._attempts.record, task.key  # noqa: SLF001 - the view of it
    flow = _configured(flow, record)
    graph = read_graph(flow)
    placed = record.tasks.graph.options.get("project")
    if placed is not None:
        graph = graph.with_options({**graph.options, "project": placed})
    if key.step not in graph.nodes:
        message = f"{flow.__name__} no longer has the step {key.step!r}"
        raise NotFoundError(message)
    number = int(task.id)
    parents = [parent for _, parent in record.lineage.parents(number, key)]
    ended_at = record.tasks.table().ended_at
    inputs = parents or ([] if graph[key.step].is_join else [0])
    stack = array("Q", map(ended_at, _splitters(record, number, key)))
    order = StartTask(
        AttemptKey(0, number, 0),
        key.step,
        indexes_of(key.path),
        stack,
        InputOffsets(record.stored, ended_at).offsets(inputs),
        (),
    )
    opening = Opening(
        0,
        str(task.store),
        flow.__name__,
        record.run_id,
        look_around(os.environ),
        variables=variables_of(flow, graph, os.environ),
    )
    return SingleTask(opening, order, flow, graph)


def _configured(flow: type[FlowSpec], record: RunRecord) -> type[FlowSpec]:
    """The flow with the configurations of the run."""
    if has_configs(flow):
        from asyncflow.flow.configuration import configured_from

        refs, reader = record.started.artifacts, record.place.artifacts

        def load(name: str) -> Any:
            return reader.load(refs[name], f"{record.pathspec}/parameters/{name}").value

        flow = configured_from(flow, load, refs, os.environ)
    return prepare(flow)


def _splitters(record: RunRecord, number: int, key: TaskKey) -> list[int]:
    """The tasks that have fanned out around a task, outermost first."""
    graph, found = record.tasks.graph, []
    depth = wanted = len(indexes_of(key.path))
    while wanted:
        node = graph[key.step]
        before = next(record.lineage.parents(number, key), None)
        if before is None and node.joins is not None:  # the join of a foreach over nothing
            before = _with_path(record, node.joins, key)
        if before is None:
            break
        step, number = before
        key = TaskKey(step, record.tasks.path_of(number))
        around = len(indexes_of(key.path))
        if around < depth == wanted:  # not of a foreach that was joined again before the task
            found.append(number)
            wanted -= 1
        depth = around
    return found[::-1]


def _with_path(record: RunRecord, step: str, key: TaskKey) -> tuple[str, int] | None:
    tasks = record.tasks
    numbers = tasks.table().tasks_of(tasks.step_number(step))
    return next(((step, each) for each in numbers if tasks.path_of(each) == key.path), None)
