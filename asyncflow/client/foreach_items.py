"""The foreachs around a task, and the item that it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.errors import NotFoundError
from asyncflow.events.manifests import unpack_ref
from asyncflow.values import TaskKey, indexes_of

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import ArtifactRef


def input_of(record: RunRecord, number: int, key: TaskKey) -> Any:
    """The item of the innermost foreach around a task; None outside of any.

    In a gang it is the number of the node, as for the step.

    Raises:
        NotFoundError: The task that has fanned out is not in the journal.
        ArtifactError: The item cannot be read, or not be unpickled here.
    """
    indexes, graph = indexes_of(key.path), record.tasks.graph
    if not indexes:
        return None
    found = splitters_of(record, number, key)
    pathspec = f"{record.pathspec}/{key.step}/{number}"
    if len(found) < len(indexes):
        message = f"the task that has fanned out to {pathspec} is not in its run"
        raise NotFoundError(message)
    entry = record.tasks.entry(found[-1])
    step = record.tasks.step_of(entry) if entry is not None else ""
    if graph[step].num_parallel is not None:
        return indexes[-1]
    ref, first = _items(record, found[-1], indexes[-1])
    called = f"{record.pathspec}/{step}/{found[-1]}/{graph[step].foreach or ''}"
    return record.place.artifacts.load_item(ref, indexes[-1] - first, called)


def _items(record: RunRecord, splitter: int, index: int) -> tuple[ArtifactRef, int]:
    """What has the item with this index, and which index its first item has."""
    outcome = record.tasks.outcome_of(splitter)
    if outcome is not None and outcome.items:
        return unpack_ref(outcome.items), 0
    for event in record.journal.yielded(splitter):  # its generator has not ended
        if event.index <= index < event.index + event.count:
            return unpack_ref(event.items), event.index
    message = f"task {splitter} of {record.pathspec} has stored no item {index}"
    raise NotFoundError(message)


def splitters_of(record: RunRecord, number: int, key: TaskKey) -> list[int]:
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
