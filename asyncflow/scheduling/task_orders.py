"""The ready tasks of one run, as orders that a worker can carry out.

An order has the journal offsets of the results of the tasks before it. For a join of thousands of
tasks, a thread writes the offsets to a file first. Such an order is prepared before it can be
taken, and is then taken before all others.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.conditions import SureTimer
from asyncflow.errors import JournalError
from asyncflow.scheduling.gangs import Gangs
from asyncflow.scheduling.input_offsets import InputOffsets
from asyncflow.scheduling.item_streams import offsets_of_stack
from asyncflow.values import indexes_of
from asyncflow.workers.messages import (
    MAX_INPUTS_IN_ORDER,
    AttemptKey,
    MoreInputs,
    StartItems,
    StartTask,
)
from asyncflow.workers.packed_numbers import pack_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from concurrent.futures import Future

    from asyncflow.scheduling.commands import BeginTask, Command
    from asyncflow.scheduling.facts import Lost
    from asyncflow.scheduling.facts_to_events import Recorder
    from asyncflow.scheduling.plan import Plan
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.scheduling.run_services import RunServices

_LOOK_SECONDS: Final = 0.25  # until it is looked whether the call that tells of a join was lost


class TaskOrders:
    """Gives the tasks of a run to the dispatcher, and takes them back."""

    def __init__(
        self,
        identity: RunIdentity,
        plan: Plan,
        recorder: Recorder,
        services: RunServices,
        *,
        on_prepared: Callable[[], None],
        on_commands: Callable[[list[Command]], None],
        on_failed: Callable[[JournalError], None],
        on_lost: Callable[[Lost], None],
    ) -> None:
        """Give out nothing yet.

        Args:
            identity: The run.
            plan: Decides which tasks are ready.
            recorder: Records each task that is taken or given back.
            services: The threads that prepare wide joins.
            on_prepared: Called when a wide join can be taken.
            on_commands: Called with what the plan decides when a task is given back.
            on_failed: Called when a wide join cannot be prepared.
            on_lost: Called when a node of a gang has ended without having begun.
        """
        self._number = identity.number
        self._plan, self._recorder = plan, recorder
        self._ended_at, self._index_of = recorder.table.ended_at, recorder.table.index_of
        self._streams = recorder.streams
        self._inputs = InputOffsets(identity.stored, recorder.table)
        self._disk = services.disk
        self._on_prepared, self._on_commands = on_prepared, on_commands
        self._on_failed, self._on_lost = on_failed, on_lost
        self._loop = asyncio.get_running_loop()
        self._prepared: deque[StartTask] = deque()
        self._preparing: dict[int, Future[StartTask]] = {}  # wide joins, by the id of their task
        self._looking: SureTimer | None = None  # while some are being prepared
        self.gangs = Gangs()
        """The gangs that were taken, until they have ended."""
        self.held = False
        """Whether no further task is given out for now."""

    @property
    def ready(self) -> int:
        """How many tasks could be taken now."""
        return len(self._prepared) + self._plan.ready

    def next_step(self) -> str | None:
        """The step of the next task; None if none may be taken."""
        if self.held:
            return None
        return self._prepared[0].step if self._prepared else self._plan.next_step()

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of another step first; False if none is ready."""
        return not self._prepared and self._plan.postpone(steps)

    def take(self) -> StartTask | None:
        """The next ready task as an order; None if it has to be prepared first."""
        if self._prepared:
            order = self._prepared.popleft()
            self._preparing.pop(order.key.task, None)
            return order
        for task in self._plan.take(1):
            self._recorder.open(task)
            if task.caught is not None:
                self.gangs.begin_stand_in(AttemptKey(self._number, task.task_id, task.attempt))
            if self._streams:
                self._streams.on_taken()
                at = self._yielded_at(task)
                if at is not None:
                    return self._order(task, at.to_bytes(8, "little"), ())
            if task.awaits:
                inputs = self._arrivals(task.stack[-1], task.inputs)
                return self._order(task, inputs, ())._replace(awaits=True)
            if len(task.inputs) <= MAX_INPUTS_IN_ORDER:
                return self._order(task, self._inputs.offsets(task.inputs), ())
            preparing = self._preparing[task.task_id] = self._disk.submit(self._spill, task)
            preparing.add_done_callback(self._look_soon)
            if self._looking is None:
                self._looking = SureTimer(self._loop, _LOOK_SECONDS, self._look_at_prepared)
        return None

    def take_items(self, most: int) -> StartItems | None:
        """Up to `most` ready tasks for consecutive items of a foreach; None if others are next."""
        if self._prepared or self.held or self._streams:
            return None
        items = self._plan.take_items(most)
        if items is None:
            return None
        self._recorder.open_items(items)
        path = (*items.outer, items.item)
        stack = offsets_of_stack(self._streams, items.stack, path, self._ended_at)
        inputs = self._inputs.offsets((items.splitter,))
        step, first, number, outer, index, _, _ = items
        return StartItems(self._number, first, number, step, outer, index, stack, inputs)

    def more_inputs(self) -> Iterator[MoreInputs]:
        """The orders that tell running joins which inputs have arrived."""
        for told in self._plan.arrivals():
            splitter = self._plan.splitter_of(told.task_id)
            key = AttemptKey(self._number, told.task_id, told.attempt)
            yield MoreInputs(key, self._arrivals(splitter, told.inputs), told.are_last)

    def _arrivals(self, splitter: int, inputs: Sequence[int]) -> bytes:
        """Where the inputs of a join are, as in `MoreInputs`."""
        places = array("Q")
        for task in inputs:
            index = self._index_of(task)
            at = self._streams.item_at(splitter, index) if self._streams else None
            item_at = self._ended_at(splitter) if at is None else at
            places.extend((self._ended_at(task), item_at, index))
        return pack_numbers(places)

    def next_gang(self) -> int:
        """How many nodes of a gang are next, to be taken together; 0 if the next is no node."""
        return 0 if self._prepared or self.held else self._plan.next_gang()

    def take_gang(self) -> list[StartTask]:
        """The nodes of the gang that is next."""
        tasks = self._plan.take(1)
        for task in tasks:
            self._recorder.open(task)
        orders = [self._order(task, self._inputs.offsets(task.inputs), ()) for task in tasks]
        self.gangs.begin(tasks, orders)
        return orders

    def again(self, task_id: int) -> StartTask | None:
        """The order of a task that has not begun, if it is a node of a gang that goes on."""
        return None if self._plan.stopping or not self.gangs else self.gangs.again(task_id)

    def give_back(self, task_id: int) -> None:
        """Take back a task that has not begun: it is ready again, unless the run is ending.

        A node of a gang that does not go on has ended instead.
        """
        if self.gangs:
            lost = self.gangs.given_back(task_id, stopping=self._plan.stopping)
            if lost is not None:
                self._on_lost(lost)
                return
        self._recorder.drop(task_id)
        self._on_commands(self._plan.give_back(task_id))

    def drop_prepared(self) -> None:
        """Give back the prepared orders that nobody has taken."""
        while self._prepared:
            task_id = self._prepared.popleft().key.task
            self._preparing.pop(task_id, None)
            self.give_back(task_id)

    def close(self) -> None:
        """The run has ended: drop joins that are still being prepared."""
        self._preparing.clear()
        if self._looking is not None:
            self._looking.cancel()

    def _order(self, task: BeginTask, inputs: bytes, inputs_at: Sequence[Any]) -> StartTask:
        path = indexes_of(task.path) if self._plan.graph.has_conditions else task.path
        stack = offsets_of_stack(self._streams, task.stack, path, self._ended_at)
        key = AttemptKey(self._number, task.task_id, task.attempt)
        caught = task.caught
        told = (caught.attempt, caught.type, caught.message, caught.traceback) if caught else ()
        return StartTask(key, task.step, path, stack, inputs, inputs_at, told)

    def _yielded_at(self, task: BeginTask) -> int | None:
        """Where the journal has what a task for an item inherits from one that still yields."""
        if task.stack and len(task.inputs) == 1 and task.inputs[0] == task.stack[-1]:
            return self._streams.inherited_at(task.stack[-1])
        return None

    def _spill(self, task: BeginTask) -> StartTask:
        """Write a wide join's inputs to a file, in a thread."""
        return self._order(task, b"", self._inputs.spill(task.task_id, task.inputs))

    def _look_soon(self, _: object) -> None:
        """A wide join is prepared; called in the thread that did it."""
        with suppress(RuntimeError):  # the program closed the event loop without waiting
            self._loop.call_soon_threadsafe(self._look_at_prepared)

    def _look_at_prepared(self) -> None:
        """Have the wide joins taken that are prepared by now."""
        for task_id, preparing in list(self._preparing.items()):
            if preparing.done():
                if all(order.key.task != task_id for order in self._prepared):
                    self._on_spilled(task_id, preparing)
                self._preparing.pop(task_id, None)  # last: an exception must not lose the join
        if self._looking is not None and not self._preparing:
            self._looking.cancel()
            self._looking = None

    def _on_spilled(self, task_id: int, spilled: Future[StartTask]) -> None:
        error = spilled.exception()
        if error is not None:
            self._on_failed(JournalError(f"cannot write the inputs of a join: {error}"))
        if self._plan.stopping:
            self.give_back(task_id)
        else:
            self._prepared.append(spilled.result())
            self._on_prepared()

    def __repr__(self) -> str:
        return f"<TaskOrders of run {self._number}: {self.ready} ready>"
