"""Processes that a step forks: they are not workers, and end where the step's own code ends."""

from __future__ import annotations

import os
import sys

from asyncflow._support.tracebacks import past_own_frames

present: int = os.getpid()
"""The id of this process. Each fork by Python tells it: asking the kernel takes longer."""


def _note_fork() -> None:
    global present  # noqa: PLW0603 - each process has its own
    present = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class EndingForks:
    """A process that the user's code forks within the block ends where it would leave the block.

    It is not a worker: it stores nothing and reports nothing. A fork behind the interpreter's back,
    by code in C that goes on in Python, is not noticed; Python itself does not survive that.
    """

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = present

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if present != self._pid:
            end_fork(error)


def end_if_forked(process: int) -> None:
    """End a process that a step has forked; `process` is what was present before."""
    if present != process:
        end_fork(None)


def end_fork(error: BaseException | None) -> None:
    """End a process that a step has forked as the interpreter would, without touching our state.

    `error` is what has ended the step's code there. It never returns.
    """
    code = error.code if isinstance(error, SystemExit) else None
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        code = 1
    elif error is not None and not isinstance(error, SystemExit):
        trace = past_own_frames(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)
