"""What a task finds around it: the working directory, environment variables, where modules are.

They are those of the program when it started the run, whichever worker a task comes to and whatever
the tasks before it did there: each task begins with the working directory and the environment
variables of its run. What else a step changes in its process stays: imported modules, `sys.path`,
signal handlers, the locale, the state of libraries. A step that must not leave such traces asks for
a process of its own, with `@isolate`.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncflow.errors import PoolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_BYTES: Final = 1 << 16  # they travel in one packet, of at most `frames.MAX_ORDER_BYTES`

# Without the decoding of each variable, which would cost a short task several per cent.
_variables: Final[Mapping[Any, Any]] = getattr(os.environ, "_data", os.environ)


class Surroundings(NamedTuple):
    """Those of a program, to be made in its workers."""

    cwd: str
    """The working directory; empty if it was deleted."""
    path: Sequence[str]
    """`sys.path`."""
    changes: Mapping[str, str | None]
    """Environment variables that are not as they were when the workers' template was started."""

    def enter(self) -> None:
        """Make them those of this process. What its modules have added to `sys.path` stays.

        Raises:
            OSError: The working directory is gone, or may not be entered.
        """
        sys.path[:] = [*self.path, *(each for each in sys.path if each not in self.path)]
        _initial.put_back_variables()
        _change(self.changes)
        if self.cwd:
            os.chdir(self.cwd)


def look_around(template: Mapping[str, str]) -> Surroundings:
    """The surroundings of this program; `template` is the environment its workers begin with.

    Raises:
        PoolError: They are too large to be told to a worker.
    """
    now = dict(os.environ)
    changes: dict[str, str | None] = {
        name: value for name, value in now.items() if template.get(name) != value
    }
    changes.update(dict.fromkeys(template.keys() - now.keys()))
    found = Surroundings(working_directory(), import_path(), changes)
    _refuse_flood(found)
    return found


def _refuse_flood(found: Surroundings) -> None:
    sizes = {name: len(os.fsencode(name + (value or ""))) for name, value in found.changes.items()}
    if sum(sizes.values()) > _MOST_BYTES:
        message = (
            f"the environment variables that were set since the engine's workers were started are "
            f"too large ({sum(sizes.values())} bytes; {max(sizes, key=sizes.__getitem__)!r} is the "
            f"largest): set them before that, or give the flow the data in a file"
        )
        raise PoolError(message)
    if sum(len(os.fsencode(entry)) for entry in found.path) > _MOST_BYTES // 2:
        message = (
            f"sys.path is too long for workers to be told of: it has {len(found.path)} entries"
        )
        raise PoolError(message)


def import_path() -> list[str]:
    """`sys.path`, without what is not text: it would not travel, and `import` ignores it."""
    entries: list[object] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def working_directory() -> str:
    """The working directory; empty if it was deleted."""
    try:
        return os.getcwd()  # noqa: PTH109 - text is wanted
    except FileNotFoundError:
        return ""


class Kept:
    """The working directory and the environment variables at one moment, to be put back later."""

    __slots__ = ("_cwd", "_variables")

    def __init__(self) -> None:
        self._cwd = working_directory()
        self._variables = dict(_variables)

    def put_back(self) -> None:
        """Have both as they were; costs a few microseconds if they are.

        Raises:
            OSError: The working directory is gone, or may not be entered.
        """
        if self._cwd and working_directory() != self._cwd:
            os.chdir(self._cwd)
        self.put_back_variables()

    def put_back_variables(self) -> None:
        """The same for the environment variables alone."""
        if _variables != self._variables:
            before = {_decoded(name): _decoded(value) for name, value in self._variables.items()}
            gone = dict.fromkeys(os.environ.keys() - before.keys())
            _change({**before, **gone})


def _decoded(text: Any) -> str:
    return os.fsdecode(text)


def _change(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value


_initial = Kept()


def remember_environment() -> None:
    """What this process's environment is now, the next `enter` begins with."""
    global _initial  # noqa: PLW0603 - of the process, like the environment
    _initial = Kept()
