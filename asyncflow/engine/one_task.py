"""Finds a task of an earlier run, so that its step can be run again alone, in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncflow.client import Flow, Run
from asyncflow.client.foreach_items import splitters_of
from asyncflow.client.namespaces import store_to_read, without_namespace
from asyncflow.client.run_names import whole_name
from asyncflow.engine.new_run import variables_of
from asyncflow.errors import NotFoundError
from asyncflow.events.manifests import ref_of
from asyncflow.flow import loader
from asyncflow.flow.delayed_values import has_configs
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.scheduling.input_offsets import InputOffsets
from asyncflow.store import open_store
from asyncflow.values import Status, TaskKey, indexes_of
from asyncflow.workers.messages import AttemptKey, Opening, StartTask
from asyncflow.workers.process.single_task import SingleTask
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client import Step, Task
    from asyncflow.client.run_files import RunRecord
    from asyncflow.flow.spec import FlowSpec

_MOST_PARTS = 3


def find_task(
    flow: type[FlowSpec], pathspec: str, store: Path | str | None, origin: str | None = None
) -> Task:
    """The task that STEP, RUN/STEP or RUN/STEP/TASK names; the flow's name may stand before it.

    Without a run it is the latest one, and without a task the first that has failed, else the
    first. RUN may be short, see `asyncflow.client.run_names`. `origin` names the run in front of
    the pathspec.

    Raises:
        NotFoundError: There is no such task.
    """
    name = flow.__name__
    parts = pathspec.strip("/").split("/")
    if origin is not None:
        parts = [*origin.strip("/").split("/"), *parts]
    if len(parts) > 1 and parts[0] == name:
        parts = parts[1:]
    if not all(parts) or len(parts) > _MOST_PARTS:
        told = pathspec if origin is None else f"{pathspec} --from {origin}"
        message = f"{told!r} names no task: give STEP, RUN/STEP or RUN/STEP/TASK"
        raise NotFoundError(message)
    if len(parts) == 1:
        latest = _latest(name, store)
        if latest is None:
            message = f"{name} has no run whose inputs the step could have"
            raise NotFoundError(message)
        parts = [latest.id, *parts]
    return _task_at([name, *parts], store)


def named_task(pathspec: str, store: Path | str | None) -> Task:
    """The task that RUN/STEP or RUN/STEP/TASK names, of whatever flow; RUN may be short.

    Raises:
        NotFoundError: There is no such task.
    """
    whole = whole_name(open_store(store_to_read(store)), pathspec.strip("/"))
    parts = whole.split("/")
    if not all(parts) or len(parts) not in {_MOST_PARTS, _MOST_PARTS + 1}:
        message = f"{pathspec!r} names no task: give RUN/STEP or RUN/STEP/TASK, as latest/train"
        raise NotFoundError(message)
    return _task_at(parts, store)


def _latest(flow: str, store: Path | str | None) -> Run | None:
    with without_namespace():
        return Flow(flow, store=store).latest_run


def _task_at(parts: list[str], store: Path | str | None) -> Task:
    """The task of a flow, a run, a step and perhaps a task."""
    name = whole_name(open_store(store_to_read(store)), "/".join(parts[:2]))
    with without_namespace():
        step: Step = Run(name, store=store)[parts[2]]
        if len(parts) > _MOST_PARTS:
            return step[parts[3]]
        return next(step.tasks(status=Status.FAILED), None) or next(step.tasks())


def flow_of_task(task: Task) -> type[FlowSpec]:
    """The flow of the task's run, imported from its file as that is now.

    Raises:
        NotFoundError: The file is gone.
        FlowError: The file no longer has the flow.
        Exception: The user's module raised it when it was imported.
    """
    record = task._attempts.record  # noqa: SLF001 - the view of it
    source, reader = record.started.source, record.place.artifacts

    def unpickle(ref: Sequence[Any]) -> Any:
        return reader.load(ref_of(ref), name="the flow class").value

    file = source.get("file")
    if file and not os.path.isfile(file):  # noqa: PTH113 - text that another machine may have written
        message = (
            f"the flow of {record.pathspec} was in {file}, which is not there: name the file, "
            f"asyncflow spin FILE {task.key.step} --from {record.run_id}"
        )
        raise NotFoundError(message)
    if file and source["kind"] == "module":  # found by its file, wherever this process stands
        loader.load_file(Path(file))
    return loader.load(source, unpickle)


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
    before = list(record.lineage.parents(number, key))
    parents = [parent for _, parent in before]
    table = record.tasks.table()
    inputs = parents or ([] if graph[key.step].is_join else [0])
    stack = table.all_ended_at([*splitters_of(record, *_innermost(record, number, key, before))])
    order = StartTask(
        AttemptKey(0, number, 0),
        key.step,
        indexes_of(key.path),
        stack,
        InputOffsets(record.stored, table).offsets(inputs),
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


def _innermost(
    record: RunRecord, number: int, key: TaskKey, before: Sequence[tuple[str, int]]
) -> tuple[int, TaskKey]:
    """The task whose foreaches a task knows of: for a join of a foreach, one of its inputs."""
    if record.tasks.graph[key.step].is_join and before:
        step, parent = before[0]
        path = record.tasks.path_of(parent)
        if len(indexes_of(path)) > len(indexes_of(key.path)):
            return parent, TaskKey(step, path)
    return number, key
