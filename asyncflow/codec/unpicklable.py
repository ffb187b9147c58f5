"""Finds the member that makes a value impossible to pickle, so that the error can name it."""

from __future__ import annotations

import reprlib
import time
from collections import deque
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.safe_text import is_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SECONDS: Final = 2.0  # the most time that an error may spend on explaining itself
_DEPTH: Final = 100
_SHOWN_AHEAD: Final = 6  # of a longer path, only the first and the last steps are shown
_SHOWN_BEHIND: Final = 3

USING: Final = "'s global "
"""Precedes the name of a global variable in the path to a member."""

_Member = tuple[str, Any]


def find_culprit(value: Any, root: str, can_pickle: Callable[[Any], bool]) -> tuple[str, Any]:
    """The path to the innermost member of a value that cannot be pickled, and that member.

    The search goes from each member that cannot be pickled to the first such member within it. When
    the time is over, the member reached so far is the result.
    """
    deadline = time.monotonic() + _SECONDS
    seen, steps = {id(value)}, [root]
    for _ in range(_DEPTH):
        for step, member in _members(value):
            if time.monotonic() > deadline:
                return _shown(steps), value
            if id(member) not in seen and not can_pickle(member):
                value = member
                steps.append(step)
                seen.add(id(member))
                break
        else:
            break
    return _shown(steps), value


def _shown(steps: list[str]) -> str:
    left_out = len(steps) - _SHOWN_AHEAD - _SHOWN_BEHIND
    if left_out > 1:
        steps[_SHOWN_AHEAD:-_SHOWN_BEHIND] = [f" … {left_out} levels more … "]
    return "".join(steps)


def _members(value: Any) -> Iterator[_Member]:
    """The members that pickling a value would pickle, each with the step that leads to it."""
    match value:
        case dict():
            yield from ((f"[{reprlib.repr(key)}]", member) for key, member in value.items())
            yield from ((f" key {reprlib.repr(key)}", key) for key in value)
        case list() | tuple() | deque():
            yield from ((f"[{index}]", member) for index, member in enumerate(value))
        case set() | frozenset():
            yield from ((f" member {reprlib.repr(member)}", member) for member in value)
        case FunctionType():
            yield from _members_of_function(value)
        case MethodType():
            yield ".__self__", value.__self__
        case partial():
            yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
        case type():
            yield from ((f".{name}", member) for name, member in vars(value).items())
    if not isinstance(value, type | FunctionType | MethodType | partial):
        yield from _members_of_state(value)


def _members_of_function(function: FunctionType) -> Iterator[_Member]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        try:
            yield f" closing over {name}", cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"{USING}{name}", function.__globals__[name]
    yield from (
        (f" default {index}", each) for index, each in enumerate(function.__defaults__ or ())
    )


def _members_of_state(value: Any) -> Iterator[_Member]:
    try:
        reduced = value.__reduce_ex__(4)  # not 5: buffers are never the obstacle
    except BaseException as error:  # then the value itself is the obstacle
        if is_stop(error):
            raise
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, *rest = reduced
    state = rest[0] if rest else None
    parts = state if isinstance(state, tuple) else (state,)
    for part in parts:
        if isinstance(part, dict):
            yield from ((f".{name}", member) for name, member in part.items())
        elif part is not None:
            yield " state", part
    yield from (
        (f" argument {index}", each)
        for index, each in enumerate(arguments)
        if not isinstance(each, type)
    )
    kind = type(value)
    yield f"'s class {kind.__qualname__}", kind  # what its methods use
