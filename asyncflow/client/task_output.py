"""What the last attempt of a task printed."""

# ruff: noqa: SLF001 - one task asks the other from which it was taken over

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from asyncflow.client.attempt_output import AttemptOutput
from asyncflow.client.task_facts import TaskFacts
from asyncflow.errors import JournalError
from asyncflow.events.types import TaskCloned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class TaskOutput(TaskFacts):
    """A task's standard output and standard error: as text, piece by piece, or line by line."""

    __slots__ = ()

    @property
    def stdout(self) -> str:
        """Everything its last attempt printed to standard output, in memory; see `printed`."""
        return self._output().text("stdout")

    @property
    def stderr(self) -> str:
        """Everything its last attempt printed to standard error, in memory; see `printed`."""
        return self._output().text("stderr")

    def printed(self, stream: str) -> Iterator[str]:
        """What its last attempt printed to `stdout` or `stderr`, piece by piece.

        However long the output is, no more than some hundred kilobytes of it are in memory.
        """
        return self._output().pieces(stream)

    @property
    def stdout_size(self) -> int:
        """How many bytes its last attempt printed to standard output."""
        return self._output().size("stdout")

    @property
    def stderr_size(self) -> int:
        """How many bytes its last attempt printed to standard error."""
        return self._output().size("stderr")

    def tail(self, lines: int = 10, stream: str = "stdout") -> str:
        """The last lines that its last attempt printed; only the end of the output is read."""
        return self._output().tail(stream, lines)

    def _printed_bytes(self, stream: str) -> Iterator[bytes]:
        return self._output().raw(stream)

    @overload
    def loglines(
        self,
        stream: str,
        as_unicode: Literal[True] = True,  # noqa: FBT002 - as in Metaflow
    ) -> Iterator[tuple[datetime, str]]: ...
    @overload
    def loglines(
        self, stream: str, as_unicode: Literal[False]
    ) -> Iterator[tuple[datetime, bytes]]: ...
    def loglines(self, stream: str, as_unicode: bool = True) -> Iterator[tuple[datetime, Any]]:  # noqa: FBT001, FBT002 - as in Metaflow
        """What its last attempt printed to `stdout` or `stderr`, each line with its time.

        The lines are text, or `bytes` without `as_unicode`, and have no line ends.
        """
        lines = self._output().lines(stream)
        if not as_unicode:
            return lines
        return ((time, line.decode("utf-8", "backslashreplace")) for time, line in lines)

    def _output(self) -> AttemptOutput:
        """The last output; of a task that was taken over, that of the task that did the work."""
        task: TaskOutput = self
        runs = {self._record.run_id}
        while isinstance(ended := task._attempts.ended(), TaskCloned):
            if ended.origin_run_id in runs:
                message = f"{task.pathspec} was taken over from a run that took it over from there"
                raise JournalError(message)
            runs.add(ended.origin_run_id)
            task = task._origin(ended)
        told = task._attempts
        if ended is not None:
            return AttemptOutput(told.record, told.number, ended.attempt, ended.log)
        last = told.record.tasks.last_output(told.number, told.entry())
        return AttemptOutput(told.record, told.number, task.attempt, last)

    def _origin(self, cloned: TaskCloned) -> TaskOutput:
        """The task of another run that this one was taken over from."""
        raise NotImplementedError
