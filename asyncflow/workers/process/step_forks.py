"""Processes that a step forks: they are not workers, and end where the step's own code ends."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from asyncflow._support.tracebacks import past_own_frames

_pid = os.getpid()


def _note_fork() -> None:
    global _pid  # noqa: PLW0603 - each process has its own
    _pid = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class EndingForks:
    """A process that the user's code forks within the block ends where it would leave the block.

    It is not a worker: it stores nothing and reports nothing.
    """

    __slots__ = ("_pid",)

    def __enter__(self) -> None:
        self._pid = _pid  # asking the kernel is needed only where a process may be another one

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if os.getpid() != self._pid:
            _end_fork(error or SystemExit())


def _end_fork(error: BaseException) -> NoReturn:
    """End a process that a step has forked as the interpreter would, without touching our state."""
    code = error.code if isinstance(error, SystemExit) else 1
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        code = 1
    elif not isinstance(error, SystemExit):
        trace = past_own_frames(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)
