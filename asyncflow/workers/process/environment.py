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
    getsignal,
    pthread_sigmask,
    setitimer,
)
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

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
    plain: Sequence[object]
    """`sys.argv`, the limit of recursion, the locale."""
    umask: int
    blocked: frozenset[int]
    """The signals that the main thread blocks; never a stop signal."""

    @classmethod
    def now(cls) -> ProcessSettings:
        """The present settings."""
        return cls(_of_sys(), _handlers(), _plain(), _umask(), _blocked())

    def put_back(self) -> None:
        """Restore them. In the main thread.

        It takes some three microseconds if nothing has changed.
        """
        os.umask(self.umask)
        setitimer(_REAL, 0.0)
        of_sys, handlers = _of_sys(), tuple(map(getsignal, _SIGNALS))
        if not _is_same(of_sys, self.of_sys):
            for name, value in zip(_SYS, self.of_sys, strict=True):
                setattr(sys, name, value)
        if not _is_same(handlers, self.handlers):
            _handle(self.handlers, handlers)
        pthread_sigmask(_SET, self.blocked)  # after the handlers: one may wait that was blocked
        if _plain() != self.plain:
            argv, recursion, locale = self.plain
            sys.argv = list(cast("tuple[str]", argv))
            sys.setrecursionlimit(cast("int", recursion))
            setlocale(LC_ALL, cast("str", locale))

    def with_changes(self, before: ProcessSettings, after: ProcessSettings) -> ProcessSettings:
        """These settings, with the changes between two moments applied."""
        return ProcessSettings(
            _changed(self.of_sys, before.of_sys, after.of_sys),
            _changed(self.handlers, before.handlers, after.handlers),
            _changed(self.plain, before.plain, after.plain),
            self.umask if after.umask == before.umask else after.umask,
            self.blocked if after.blocked == before.blocked else after.blocked,
        )


_SYS: Final = (
    "stdin",
    "stdout",
    "stderr",
    "excepthook",
    "unraisablehook",
    "displayhook",
    "breakpointhook",
)
_REAL: Final = int(signal.ITIMER_REAL)
_SET: Final = int(signal.SIG_SETMASK)
_read_sys: Final = attrgetter(*_SYS)
_SIGNALS: Final = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))[:29]


def _of_sys() -> tuple[Any, ...]:
    try:
        return _read_sys(sys)
    except AttributeError:  # somebody has deleted one
        return tuple(getattr(sys, name, None) for name in _SYS)


def _handlers() -> tuple[Any, ...]:
    return tuple(map(getsignal, _SIGNALS))


def _plain() -> tuple[object, ...]:
    return tuple(getattr(sys, "argv", ())), sys.getrecursionlimit(), setlocale(LC_ALL, None)


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
            signal.signal(number, handler)


def _is_same(now: tuple[Any, ...], kept: tuple[Any, ...]) -> bool:
    """Whether nothing was replaced, but perhaps by an equal object."""
    try:
        return now == kept  # asks for identity first: a fifth of what `all(map(is_, …))` takes
    except Exception:  # noqa: BLE001 - what a step has put there may refuse to be compared
        return False


def _changed(kept: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> tuple[Any, ...]:
    triples = zip(kept, before, after, strict=True)
    return tuple(old if was is now or was == now else now for old, was, now in triples)


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
        if self._cwd and working_directory() != self._cwd:
            os.chdir(self._cwd)
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
