"""What follows a task that has succeeded, or whose generator has yielded items.

Splits open here, and their joins are found by counting down unmet inputs, never by scanning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.flow.node import Fanout
from asyncflow.scheduling.arrived_inputs import ArrivedInputs
from asyncflow.scheduling.planned_tasks import (
    GangTasks,
    IllegalEventError,
    ItemTasks,
    OpenSplit,
    PlannedTask,
)
from asyncflow.values import repetitions_of, with_repetitions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node
    from asyncflow.scheduling.planned_tasks import TakenItems
    from asyncflow.scheduling.ready_queue import ReadyQueue


class Successors:
    """Makes the tasks that follow ready, as the graph says."""

    def __init__(
        self,
        graph: Graph,
        queue: ReadyQueue,
        finished: Collection[tuple[str, tuple[int, ...]]],
    ) -> None:
        """Push ready tasks to the queue; `finished` is that of the plan."""
        self._graph, self._queue, self._finished = graph, queue, finished
        plain = () if graph.has_conditions else graph.nodes.values()  # these may repeat steps
        self._last = frozenset(
            node.name
            for node in plain
            if node.fanout is Fanout.NONE and node.next and graph[node.next[0]].is_join
        )
        """The last steps of branches and of foreaches: their tasks' paths are those of splits."""

    def begin(self) -> None:
        """Make the first task of the run ready."""
        start = PlannedTask(self._graph.start, (), ())
        start.inputs = (0,)
        self._queue.push(start)

    def follow(self, task: PlannedTask, node: Node, fanout: int | None, choice: str) -> None:
        """Make ready what follows a task of this node, which is not the last."""
        if task.step in self._last:
            self._meet(task, task.path)
            return
        match node.fanout:
            case Fanout.FOREACH:
                self._fan_out(task, node, fanout or 0)
            case Fanout.BRANCH:
                self._branch(task, node)
            case Fanout.CONDITION:
                if choice not in node.next:
                    message = f"task {task.id} of {task.step} has chosen no next step: {choice!r}"
                    raise IllegalEventError(message)
                self._go_on(task, choice)
            case _:
                self._go_on(task, node.next[0])

    def _go_on(self, task: PlannedTask, step: str) -> None:
        node = self._graph[step]
        path = self._graph.onward(task.step, step, task.path)
        if node.is_join:
            self._meet(task, path)
            return
        following = PlannedTask(step, path, task.stack[: node.depth])
        following.inputs = (task.id,)
        following.scope, following.slot = task.scope, task.slot
        self._queue.push(following)

    # --- splits ---

    def _branch(self, task: PlannedTask, node: Node) -> None:
        scope = OpenSplit(task, node, len(node.next))
        for slot, step in reversed(list(enumerate(node.next))):
            path = self._graph.onward(task.step, step, task.path)
            branch = PlannedTask(step, path, scope.stack)
            branch.inputs = (task.id,)
            branch.scope, branch.slot = scope, slot
            self._queue.push(branch)

    def _fan_out(self, task: PlannedTask, node: Node, count: int) -> None:
        if task.stream is not None:
            self._end_stream(task, task.stream, count)
            return
        scope = OpenSplit(task, node, count)
        scope.stack = (*scope.stack, task.id)
        if node.num_parallel is None:
            self._tell_arrivals(scope)
        if count:
            items = ItemTasks(node.next[0], task, scope, count)
            self._queue.push(items if node.num_parallel is None else GangTasks(items))
        else:
            self._join(scope)

    def on_yielded(self, task: PlannedTask, node: Node, count: int) -> None:
        """A task's generator has yielded so many items in all."""
        if task.stream is None:
            scope = OpenSplit(task, node, 0)
            scope.stack = (*scope.stack, task.id)
            scope.yielder, scope.unmet = task.id, 1  # its own end
            self._tell_arrivals(scope)
            task.stream = ItemTasks(node.next[0], task, scope, 0)
        more = count - task.stream.count
        if more > 0:
            scope = task.stream.scope
            scope.inputs.frombytes(bytes(4 * more))
            scope.unmet += more
            self._queue.push_more(task.stream, more)

    def _tell_arrivals(self, scope: OpenSplit) -> None:
        """Note what arrives if the join reads its inputs as they do, and is not taken over."""
        join = scope.join
        if join is None or not self._graph[join].reads_arrivals:
            return
        if (join, scope.path) not in self._finished:
            scope.arrived = ArrivedInputs()

    def _end_stream(self, task: PlannedTask, stream: ItemTasks, count: int) -> None:
        if count != stream.count:
            message = f"task {task.id} has {count} items, but has yielded {stream.count}"
            raise IllegalEventError(message)
        scope = stream.scope
        scope.yielder = 0
        scope.unmet -= 1
        if not scope.unmet and scope.arrived is None:
            self._join(scope)

    # --- joins ---

    def _meet(self, task: PlannedTask, path: tuple[int, ...]) -> None:
        scope = task.scope
        if scope is None:
            message = f"{task.step} leads to a join, but no split is open"
            raise IllegalEventError(message)
        scope.inputs[task.slot] = task.id
        scope.unmet -= 1
        if path and path[-1] < 0 and self._closes_branches(scope):
            # A loop around the split goes on within a branch. The join goes on with the highest
            # number of repetitions, so that no step has the same path twice.
            count = max(repetitions_of(path), repetitions_of(scope.path))
            scope.path = with_repetitions(scope.path, count)
        is_ready = not scope.unmet if scope.arrived is None else scope.arrived.add(task.id)
        if is_ready:
            self._join(scope)

    def meet_items(self, taken: TakenItems, tasks: Sequence[int]) -> bool:
        """Note that these tasks of a foreach have succeeded, if nothing but its join follows them.

        False if something else does, or if the join reads its inputs as they arrive.
        """
        scope = taken.items.scope
        if taken.items.step not in self._last or scope.arrived is not None:
            return False
        before = taken.index - taken.first
        for task_id in tasks:
            scope.inputs[task_id + before] = task_id
        scope.unmet -= len(tasks)
        if not scope.unmet:
            self._join(scope)
        return True

    def _closes_branches(self, scope: OpenSplit) -> bool:
        split = self._graph[scope.join].joins if scope.join is not None else None
        return split is not None and self._graph[split].fanout is Fanout.BRANCH

    def _join(self, scope: OpenSplit) -> None:
        if scope.join is None:
            message = "a split without a join was passed as a graph"
            raise IllegalEventError(message)
        join = PlannedTask(scope.join, scope.path, scope.stack)
        join.inputs = scope.inputs
        join.scope, join.slot = scope.parent, scope.slot
        if scope.arrived is not None:
            join.reads = scope
        self._queue.push(join)
