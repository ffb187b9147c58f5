"""An exception as text: type, message, and the traceback cut to the user's own frames."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.call_site import is_own
from asyncflow._support.notebook import cell_name
from asyncflow._support.safe_text import class_name, storable_text, text_of
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PYTHON: Final = os.path.dirname(traceback.__file__) + os.sep  # noqa: PTH120 - paths are compared as text
_INSTALLED: Final = tuple(f"{_PYTHON}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_RUNNING: Final = tuple(f"{_PYTHON}{name}/" for name in ("asyncio", "concurrent", "importlib"))
_PLUMBING: Final = ("<frozen importlib", f"{_PYTHON}threading.py", *_RUNNING)
_MOST_FRAMES: Final = 200  # a thousand equal frames of a recursion say no more
_PICKLERS: Final = (f"{_PYTHON}pickle.py", f"{_PYTHON}copyreg.py")  # this library calls them
_MESSAGE_BYTES: Final = 1 << 14  # nobody reads more, and it is journalled and sent in one packet
_TRACEBACK_BYTES: Final = 1 << 16  # the same
_END_OF_INPUT: Final = "EOF when reading a line"  # the message of the EOFError that `input` raises
_TOLD_TO_STOP: Final = {"asyncio.exceptions.CancelledError", "SystemExit: 143"}  # 128 + SIGTERM


class Described(NamedTuple):
    """What is kept of an exception: type, message, traceback."""

    type: str
    message: str
    traceback: str

    def with_note(self, note: str) -> Described:
        """The same with a note behind the message, also at the traceback's end; "" adds nothing."""
        if not note:
            return self
        message = f"{self.message}: {note}" if self.message else note
        return Described(self.type, message, f"{self.traceback.rstrip()}: {note}\n")


def describe_exception(error: BaseException) -> Described:
    """Describe an exception; never raises, whatever the exception's own methods do."""
    message = storable_text(text_of(error), _MESSAGE_BYTES)
    trace = storable_text(_traceback(error), _TRACEBACK_BYTES)
    return Described(class_name(type(error)), message, trace)


def why_no_terminal(error: BaseException, command: Callable[[], str]) -> str:
    """What to do about a step's failure for want of a terminal; "" for other failures.

    `command` makes the command that runs the task alone in a terminal, or "".
    """
    name, trace = class_name(type(error)), error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    asked = trace is not None and trace.tb_frame.f_globals.get("__name__") == "getpass"
    if asked or (name == "EOFError" and text_of(error) == _END_OF_INPUT):
        return (
            f"a step has no terminal to read from; {_in_terminal(command())}make what you ask for "
            "a Parameter of the flow, or ask before the run is started"
        )
    if name == "bdb.BdbQuit":
        return (
            f"a step has no terminal for a debugger; {_in_terminal(command())}use one that listens "
            "on a port, for example with PYTHONBREAKPOINT=remote_pdb.set_trace in the environment"
        )
    return ""


def _in_terminal(command: str) -> str:
    return f"run this task alone in your terminal, by `{command}`, or " if command else ""


def with_final_line(trace: str, exception_type: str, message: str) -> str:
    """A traceback's text that ends with another exception: the reason why a step was stopped.

    The line of the exception that merely told the step to stop is left out.
    """
    if not trace:
        return ""
    *before, last = trace.rstrip("\n").split("\n")
    if last not in _TOLD_TO_STOP:
        before.append(last)
    return "\n".join([*before, f"{exception_type}: {message}\n"])


def too_long(seconds: float) -> str:
    """The message of a step that exceeded its time limit."""
    return f"it took longer than {seconds:g} s"


def _traceback(error: BaseException) -> str:
    try:
        summary = traceback.TracebackException.from_exception(error, limit=-_MOST_FRAMES)
        with_users = _with_users(summary)
        if isinstance(error, AsyncflowError):
            _drop_own_causes(summary, with_users)
        for each in _with_causes(summary):
            _cut(each, with_users)
        return _with_cells("".join(summary.format()), summary)
    except BaseException as second:  # noqa: BLE001 - parts of it are the user's objects
        why = class_name(type(second))
        return f"{class_name(type(error))} (its traceback cannot be formatted: {why})\n"


def _with_cells(text: str, summary: traceback.TracebackException) -> str:
    """The text with the cells of a notebook named as IPython does."""
    for file in {frame.filename for each in _with_causes(summary) for frame in each.stack}:
        if name := cell_name(file):
            text = text.replace(f'File "{file}", line ', f"{name}, line ")
    return text


def _with_causes(summary: traceback.TracebackException) -> list[traceback.TracebackException]:
    """An exception and all its causes and contexts, each before its own causes.

    Nothing here or below is recursive: there may be thousands of them.
    """
    found: dict[int, traceback.TracebackException] = {}
    waiting = [summary]
    while waiting:
        each = waiting.pop()
        if id(each) not in found:
            found[id(each)] = each
            others = (each.__cause__, each.__context__, *(each.exceptions or ()))
            waiting += [other for other in others if other is not None]
    return list(found.values())


def _with_users(summary: traceback.TracebackException) -> set[int]:
    """The ids of those exceptions that contain, or come from, a frame of the user's code."""
    found: set[int] = set()
    for each in reversed(_with_causes(summary)):
        causes = {id(each.__cause__), id(each.__context__)}
        if causes & found or any(map(_is_users_own, each.stack)):
            found.add(id(each))
    return found


def _drop_own_causes(summary: traceback.TracebackException, with_users: set[int]) -> None:
    """Drop causes and frames of this library alone: the error itself says what to do."""
    waiting = [summary]
    while waiting:
        each = waiting.pop()
        for name in ("__cause__", "__context__"):
            other = getattr(each, name)
            if id(other) in with_users:
                waiting.append(other)
            else:
                setattr(each, name, None)
        if not any(map(_is_users_own, each.stack)):
            each.stack[:] = []


def _is_users_own(frame: traceback.FrameSummary) -> bool:
    return _is_users_frame(frame) and not _is_called(frame)


def _is_users_frame(frame: traceback.FrameSummary) -> bool:
    return not is_own(frame.filename)


def _without_plumbing(stack: list[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    """The stack without frames in which Python runs and imports code, unless one of them raised."""
    last = max((at for at, frame in enumerate(stack) if not _is_plumbing(frame)), default=-1)
    return [frame for at, frame in enumerate(stack) if at > last or not _is_plumbing(frame)]


def _is_plumbing(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_PLUMBING) or _is_of("anyio", frame)


def _is_called(frame: traceback.FrameSummary) -> bool:
    """Whether the frame is of the standard library or a pickler, which we call as well."""
    name = frame.filename
    return (name.startswith(_PYTHON) and not name.startswith(_INSTALLED)) or _is_pickler(frame)


def _is_pickler(frame: traceback.FrameSummary) -> bool:
    return frame.filename in _PICKLERS or _is_of("cloudpickle", frame)


def _is_of(package: str, frame: traceback.FrameSummary) -> bool:
    """Whether the frame is of this package, if that is imported at all."""
    file = getattr(sys.modules.get(package), "__file__", None)
    return bool(file) and frame.filename.startswith(os.path.dirname(str(file)) + os.sep)  # noqa: PTH120 - as text


def past_own_frames(trace: TracebackType | None) -> TracebackType | None:
    """The frames from the first of the user's on; all frames if there is none."""
    at = trace
    while at is not None and is_own(at.tb_frame.f_code.co_filename):
        at = at.tb_next
    return at or trace


def _cut(summary: traceback.TracebackException, with_users: set[int]) -> None:
    """Drop this library's own frames."""
    users = list(filter(_is_users_frame, _without_plumbing(summary.stack)))
    own_call = not all(map(_is_users_frame, summary.stack))
    while own_call and len(users) > 1 and _is_pickler(users[0]):
        del users[0]
    if hasattr(summary, "offset"):  # a SyntaxError, which names the place itself
        summary.stack[:] = [frame for frame in users if not _is_plumbing(frame)]
    # Python turns a StopIteration into another exception where a coroutine was awaited.
    elif users or id(summary.__cause__) in with_users:
        summary.stack[:] = users
