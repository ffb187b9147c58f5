"""All inputs of a join's task: where they are, and how the step sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from asyncflow.errors import JournalError
from asyncflow.events.records import MAX_TASK
from asyncflow.flow.join_inputs import ArrivingInputs, Inputs, InputView
from asyncflow.flow.node import Fanout
from asyncflow.workers.packed_numbers import unpack_numbers
from asyncflow.workers.process.join_input import JoinInput

if TYPE_CHECKING:
    from array import array

    from asyncflow.store.value_interface import Later
    from asyncflow.workers.messages import StartTask
    from asyncflow.workers.process.arrivals import Arrivals
    from asyncflow.workers.process.run import OpenRun


def inputs_of(run: OpenRun, order: StartTask, task: str, later: Later | None) -> Inputs:
    """The inputs of a task that has begun after the last of them; `task` is its pathspec.

    Raises:
        JournalError: What the order names is damaged.
    """
    offsets = _offsets(run, order, task)
    names = None
    if run.graph[str(run.graph[order.step].joins)].fanout is Fanout.BRANCH:
        names = [run.result(offset, "an input of {}", task).step for offset in offsets]

    last = max(offsets, default=0)

    def view(index: int) -> InputView:
        inherited = run.result(
            offsets[index], f"the artifacts of input {index} of {{}}", task, last
        )
        return InputView(JoinInput(run, order, inherited, later))

    return Inputs(names, len(offsets), view)


def arriving_inputs(
    run: OpenRun, order: StartTask, task: str, later: Later | None, arrivals: Arrivals
) -> Inputs:
    """The inputs of a task that has begun before the last of them."""

    def view(number: int) -> InputView:
        offset, item_at = arrivals.place(number)
        placed = order._replace(stack=[*order.stack[:-1], item_at])
        inherited = run.result(offset, "an input of {}", task)
        return InputView(JoinInput(run, placed, inherited, later))

    return ArrivingInputs(arrivals, view)


def _offsets(run: OpenRun, order: StartTask, task: str) -> array[int]:
    """Where the results of the inputs are in the journal."""
    data = order.inputs
    if order.inputs_at:
        file, checksum = order.inputs_at
        with run.reading(f"which tasks lead to {task}"):
            data = run.read_inputs(file, most=MAX_TASK * 8)  # an offset for each task
            if crc32(data) != checksum:
                message = f"{run.stored.place}/{file} is damaged: it is not what was written"
                raise JournalError(message)
    return unpack_numbers(data)
