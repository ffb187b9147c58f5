"""The records of what tasks print.

Lines are journalled by the chunk, as the bytes that the task wrote: one record
`[3, first_seq, time, step, task_id, attempt, stream, pid, data, previous]` stands for as many
TaskLogged as `data` has pieces. `previous` is the journal offset of the same task's record before
it (0 for none), so that a task's output is read without reading the run's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.events.records import LOGGED

if TYPE_CHECKING:
    from collections.abc import Sequence


class LoggedOutput(NamedTuple):
    """One record of a task's output."""

    seq: int
    time: int
    step: str
    task: int
    attempt: int
    stream: int
    """An index into `STREAMS`."""
    pid: int
    data: bytes
    previous: int


def output_of(values: Sequence[Any]) -> LoggedOutput:
    """The fields of a record of output.

    Raises:
        RecordError: It is another kind of record.
    """
    if values[0] != LOGGED:
        raise RecordError(f"a record of kind {values[0]} is not output of a task")
    return LoggedOutput._make(values[1 : 1 + len(LoggedOutput._fields)])
