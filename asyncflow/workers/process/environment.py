"""The environment of a task: working directory, variables, settings of its process.

Tasks share their process, and each should find it as if it were the first there. The rule: what the
*process* has is restored, and what *modules* hold stays, because a module is imported once.

- Working directory and environment variables are those of the program when it started the run.
- Each task has context variables of its own (and with them the settings of `decimal` and NumPy).
- `ProcessSettings` are what Python and the kernel keep for the whole process.
- All of these are as the import of the flow's module has left them.

These stay, whatever a step does: modules and everything in them (globals, logging handlers, warning
filters, the state of random generators), `sys.path`, threads, and changes that cannot be undone,
such as a resource limit. A step that must not leave such traces, or must not find them, uses
`@isolate` to get a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from _locale import LC_ALL, setlocale  # built in; `locale` takes a while to import
from _signal import (  # type: ignore[import-not-found] # those of `signal` are slow
    alarm,
    getsignal,
    pthread_sigmask,
    setitimer,
    sigpending,
)
from _signal import signal as set_handler
from contextlib import contextmanager
from operator import attrgetter
from os import getcwd
from os import umask as set_umask
from sys import getrecursionlimit
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.paths import working_directory
from asyncflow.workers.process.stop_signals import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextvars import Context

    from asyncflow.workers.program_environment import ProgramEnvironment

# Without decoding each variable, which would cost a short task several per cent.
_variables: Final[Mapping[Any, Any]] = getattr(os.environ, "_data", os.environ)


def enter(program: ProgramEnvironment) -> None:
    """Give this process the program's environment. Additions of its modules to `sys.path` stay.

    Raises:
        OSError: The working directory is gone, or may not be entered.
    """
    sys.path[:] = [*program.path, *(each for each in sys.path if each not in program.path)]
    _initial.put_back_variables()
    _change(program.changes)
    if program.cwd:
        os.chdir(program.cwd)


@contextmanager
def added_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block, and restore the former ones after it."""
    before = {name: os.environ.get(name) for name in variables}
    try:
        os.environ.update(variables)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class ProcessSettings(NamedTuple):
    """The settings that Python and the kernel keep for a whole process."""

    of_sys: tuple[Any, ...]
    """Attributes of `sys` that programs assign to: streams, hooks."""
    handlers: tuple[Any, ...]
    """Signal handlers."""
    argv: list[str]
    """`sys.argv`."""
    recursion: int
    """The limit of recursion."""
    locale: str
    umask: int
    blocked: frozenset[int]
    """The signals that the main thread blocks; never a stop signal."""
    ids: tuple[list[int], list[int], list[int]]
    """Which objects the first three have."""

    @classmethod
    def now(cls) -> ProcessSettings:
        """The present settings."""
        argv, recursion = [*getattr(sys, "argv", ())], sys.getrecursionlimit()
        locale = setlocale(LC_ALL, None)
        of_sys, handlers, blocked = _of_sys(), _handlers(), _blocked()
        ids = _ids(of_sys, handlers, argv)
        return cls(of_sys, handlers, argv, recursion, locale, _umask(), blocked, ids)

    def put_back(self) -> None:
        """Restore them. In the main thread.

        It takes some five microseconds if nothing has changed.
        """
        _, _, _, recursion, locale, umask, blocked, (of_sys, handlers, argv) = self
        set_umask(umask)
        alarm(0)  # it shares its timer with `setitimer`, and takes half as long
        # By identity: what a step has put there may say that it is equal to anything, or raise an
        # exception. Lists of `id`s take less than `all(map(is_, …))`.
        try:
            is_same = (
                of_sys == [*map(id, _read_sys(sys))]
                and handlers == [*map(id, map(getsignal, _SIGNALS))]
                and type(sys.argv) is list
                and argv == [*map(id, sys.argv)]
                and recursion == getrecursionlimit()
                and locale == setlocale(LC_ALL, None)
            )
        except AttributeError:  # a step has deleted one
            is_same = False
        if not is_same:
            self._put_back_changed()
        if pthread_sigmask(_BLOCK, ()) != blocked:
            _unblock(blocked)  # after the handlers: a signal may wait that was blocked

    def _put_back_changed(self) -> None:
        for name, value in zip(_SYS, self.of_sys, strict=True):
            setattr(sys, name, value)
        _handle(self.handlers, _handlers())
        sys.argv = [*self.argv]
        sys.setrecursionlimit(self.recursion)
        setlocale(LC_ALL, self.locale)

    def with_changes(self, before: ProcessSettings, after: ProcessSettings) -> ProcessSettings:
        """These settings, with the changes between two moments applied."""
        of_sys = _changed(self.of_sys, before.of_sys, after.of_sys)
        handlers = _changed(self.handlers, before.handlers, after.handlers)
        argv = self.argv if before.ids[2] == after.ids[2] else after.argv
        triples = zip(self[3:-1], before[3:-1], after[3:-1], strict=True)
        rest = [old if was == now else now for old, was, now in triples]
        ids = _ids(of_sys, handlers, argv)
        return ProcessSettings._make((of_sys, handlers, argv, *rest, ids))


_SYS: Final = (
    "stdin",
    "stdout",
    "stderr",
    "excepthook",
    "unraisablehook",
    "displayhook",
    "breakpointhook",
)
_BLOCK: Final = int(signal.SIG_BLOCK)
_SET: Final = int(signal.SIG_SETMASK)
_DEFAULT: Final = int(signal.SIG_DFL)
_IGNORE: Final = int(signal.SIG_IGN)
_TIMERS: Final = {
    int(signal.SIGVTALRM): int(signal.ITIMER_VIRTUAL),
    int(signal.SIGPROF): int(signal.ITIMER_PROF),
}
"""The timers of processor time, by their signals, which end a process that has no handler."""
_read_sys: Final = attrgetter(*_SYS)
_SIGNALS: Final = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))[:29]


def _of_sys() -> tuple[Any, ...]:
    try:
        return _read_sys(sys)
    except AttributeError:  # somebody has deleted one
        return tuple(getattr(sys, name, None) for name in _SYS)


def _ids(
    of_sys: Sequence[Any], handlers: Sequence[Any], argv: Sequence[Any]
) -> tuple[list[int], list[int], list[int]]:
    return [*map(id, of_sys)], [*map(id, handlers)], [*map(id, argv)]


def _handlers() -> tuple[Any, ...]:
    return tuple(map(getsignal, _SIGNALS))


def _blocked() -> frozenset[int]:
    return frozenset(map(int, pthread_sigmask(signal.SIG_BLOCK, ()))) - {*map(int, STOP_SIGNALS)}


def _umask() -> int:
    try:
        with open("/proc/self/status") as file:  # noqa: PTH123 - one short read
            return next(int(line[6:], 8) for line in file if line.startswith("Umask:"))
    except (OSError, StopIteration):
        # Asking changes it for a moment, in which another thread could create a file.
        umask = os.umask(0o077)
        os.umask(umask)
        return umask


def _handle(wanted: Sequence[Any], now: Sequence[Any]) -> None:
    for number, handler, other in zip(_SIGNALS, wanted, now, strict=True):
        if handler is not other and handler is not None:  # None means a handler in C
            if number in _TIMERS:
                setitimer(_TIMERS[number], 0.0)
            set_handler(number, handler)


def _unblock(blocked: frozenset[int]) -> None:
    """Block these signals only; one that would end the process and has waited is dropped.

    It was sent to the step before, which has blocked it.
    """
    for number in sigpending() - blocked:
        handler = getsignal(number)
        if isinstance(handler, int) and handler == _DEFAULT:
            set_handler(number, _IGNORE)  # the system drops what waits
            set_handler(number, _DEFAULT)
    pthread_sigmask(_SET, blocked)


def _changed(kept: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> tuple[Any, ...]:
    triples = zip(kept, before, after, strict=True)
    return tuple(old if was is now else now for old, was, now in triples)


class EnvironmentSnapshot:
    """The working directory and the environment variables at one moment, to be restored later."""

    __slots__ = ("_cwd", "_variables")

    def __init__(self) -> None:
        self._cwd = working_directory()
        self._variables = dict(_variables)

    def put_back(self) -> None:
        """Restore both; takes a few microseconds if nothing has changed.

        Raises:
            OSError: The working directory is gone, or may not be entered.
        """
        try:
            is_there = getcwd() == self._cwd  # noqa: PTH109 - compared as text: a `Path` takes several times as long
        except FileNotFoundError:
            is_there = False
        if self._cwd and not is_there:
            os.chdir(self._cwd)
        if _variables != self._variables:
            self.put_back_variables()

    def put_back_variables(self) -> None:
        """Restore the environment variables only."""
        if _variables != self._variables:
            before = {_decoded(name): _decoded(value) for name, value in self._variables.items()}
            gone = dict.fromkeys(os.environ.keys() - before.keys())
            _change({**before, **gone})


def _decoded(text: Any) -> str:
    return os.fsdecode(text)


def _change(variables: Mapping[str, str | None]) -> None:
    zone = os.environ.get("TZ")
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value
    if os.environ.get("TZ") != zone:
        time.tzset()  # the C library caches the time zone


_initial = EnvironmentSnapshot()
_settings: list[ProcessSettings] = []
"""In a worker, one entry: the settings with which each task begins."""


def remember() -> None:
    """Remember the environment and settings of this worker as its initial ones."""
    global _initial  # noqa: PLW0603 - of the process, like the environment
    _initial = EnvironmentSnapshot()
    _settings[:] = [ProcessSettings.now()]


def put_back_settings() -> None:
    """Restore the settings that each task of this worker begins with."""
    for settings in _settings:
        settings.put_back()


@contextmanager
def lasting_settings() -> Iterator[None]:
    """Keep, for all later tasks, the changes that an import within the block makes.

    For all runs, because a module is imported once.
    """
    before = ProcessSettings.now()
    yield
    after = ProcessSettings.now()
    _settings[:] = [settings.with_changes(before, after) for settings in _settings]


def own_context(shared: Context) -> Context:
    """A context for one task, whose changes no other task sees."""
    context = shared.copy()
    decimal = sys.modules.get("decimal")
    if decimal is not None:  # its settings are one object that a variable refers to
        context.run(lambda: decimal.setcontext(decimal.getcontext().copy()))
    return context
