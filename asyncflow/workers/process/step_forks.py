"""Processes that a step forks: they are no workers, and end where the step's own code ends."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from asyncflow._support.tracebacks import past_own_frames

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def ending_forks() -> Iterator[None]:
    """A process that the user's code forks within the block ends where it would leave the block.

    It is no worker, and has nothing to store and nothing to tell.
    """
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            _end_fork(error)
        raise
    if os.getpid() != pid:
        _end_fork(SystemExit())


def _end_fork(error: BaseException) -> NoReturn:
    """End a process that a step has forked as the interpreter would, and touch nothing of ours."""
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
