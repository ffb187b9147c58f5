"""The environment of the program that starts a run, as the engine sends it to its workers.

A worker adopts it with `workers/process/environment.py`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.paths import import_path, working_directory
from asyncflow.errors import PoolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_BYTES: Final = 1 << 16  # they travel in one packet, of at most `messages.MAX_ORDER_BYTES`


class ProgramEnvironment(NamedTuple):
    """The working directory, import path and variables of a program, for its workers to adopt."""

    cwd: str
    """The working directory; empty if it was deleted."""
    path: Sequence[str]
    """`sys.path`."""
    changes: Mapping[str, str | None]
    """Variables that changed since the fork server was started; None for a deleted one."""


def look_around(
    initial: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    directory: str | None = None,
) -> ProgramEnvironment:
    """The environment of this program now; `initial` are the variables of its workers.

    `environ` and `directory` stand for this program's own.

    Raises:
        PoolError: It is too large to be sent to a worker.
    """
    now = dict(os.environ if environ is None else environ)
    changes: dict[str, str | None] = {
        name: value for name, value in now.items() if initial.get(name) != value
    }
    changes.update(dict.fromkeys(initial.keys() - now.keys()))
    here = working_directory() if directory is None else directory
    found = ProgramEnvironment(here, import_path(), changes)
    _refuse_flood(found)
    return found


def _refuse_flood(found: ProgramEnvironment) -> None:
    sizes = {name: len(os.fsencode(name + (value or ""))) for name, value in found.changes.items()}
    if sum(sizes.values()) > _MOST_BYTES:
        message = (
            f"the environment variables that were set since the engine's workers were started are "
            f"too large ({sum(sizes.values())} bytes; {max(sizes, key=sizes.__getitem__)!r} is the "
            f"largest): set them before that, or give the flow the data in a file"
        )
        raise PoolError(message)
    if sum(len(os.fsencode(entry)) for entry in found.path) > _MOST_BYTES // 2:
        message = f"sys.path is too long to be sent to workers: it has {len(found.path)} entries"
        raise PoolError(message)
