"""`@shared`: a resource for all tasks of a worker, such as an HTTP client or a loaded model.

    class Pages(FlowSpec):
        @shared
        async def client():
            async with httpx.AsyncClient() as client:
                yield client

        @step
        async def fetch(self, *, client):
            ...

The function is in the flow's class and takes no `self`, because it belongs to no task. A step asks
for the resource with a keyword-only parameter of its name; another shared resource can do the same.
This module checks what can be known without running anything. A worker opens and closes the
resources in `asyncflow.workers.process.shared_resources`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.notebook import shown_file
from asyncflow._support.suggestions import did_you_mean
from asyncflow.errors import FlowError, GraphError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncflow.flow.node import Node

_STARS: Final = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


class Shared:
    """A shared resource: the result of `@shared`.

    A call makes a new context manager, as a test needs: `async with MyFlow.client() as client:`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = getattr(function, "__name__", "")

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __call__(self, **others: Any) -> Any:
        """Make a new context manager; `others` are the shared resources that it asks for."""
        made = self._function(**others)
        if isinstance(made, Generator):
            return contextmanager(lambda: made)()
        if isinstance(made, AsyncGenerator):
            return asynccontextmanager(lambda: made)()
        return made

    def __get__(self, instance: object, owner: type | None = None) -> Shared:
        if instance is None:
            return self
        message = (
            f"{self._name!r} is shared by the tasks of a worker, and not an attribute: ask for "
            f"it with a keyword-only parameter, as in `def STEP(self, *, {self._name})`"
        )
        raise AttributeError(message, name=self._name)

    def written(self) -> FunctionType:
        """The user's function, under all decorators."""
        function: Any = inspect.unwrap(self._function)
        assert isinstance(function, FunctionType)  # noqa: S101 - `shared` has checked it
        return function

    @property
    def asks(self) -> tuple[str, ...]:
        """The names of the shared resources that it needs."""
        return keyword_only(self.written())

    @property
    def is_async(self) -> bool:
        """Whether its function is async; others that it needs are not considered."""
        return bool(self.written().__code__.co_flags & inspect.CO_ASYNC_GENERATOR)

    def __repr__(self) -> str:
        return f"<shared {self._name}>"


def shared(function: Callable[..., Any], /) -> Shared:
    """Open a resource once in each worker, for all tasks that ask for it by name.

    It decorates a generator function with one `yield`, `def` or `async def`, or a function that
    returns a context manager. The function is in the flow's class, but takes no `self`. Its
    keyword-only parameters ask for other shared resources. A step asks for the resource in the same
    way: `def train(self, *, model)`.

    The first task of a worker that asks for the resource opens it; if that raises, this task fails.
    The worker closes the resource when it ends.

    Raises:
        FlowError: This is not a function, or it is a coroutine function without a `yield`.
    """
    function = getattr(
        function, "__func__", function
    )  # under @staticmethod, which type checkers want
    inner = inspect.unwrap(function) if callable(function) else None
    if not isinstance(inner, FunctionType):
        message = f"@shared decorates a function, not {function!r}"
        raise FlowError(message)
    code = inner.__code__
    if code.co_flags & inspect.CO_COROUTINE:
        message = (
            f"@shared {inner.__name__!r} has no `yield`: let it yield what is shared, once, and "
            f"close it after that"
        )
        file = shown_file(code.co_filename)
        raise FlowError(message, file=file, line=code.co_firstlineno)
    return Shared(function)


def keyword_only(function: FunctionType) -> tuple[str, ...]:
    """The names of a function's keyword-only parameters, in order."""
    code = function.__code__
    first = code.co_argcount
    return code.co_varnames[first : first + code.co_kwonlyargcount]


def shared_of(cls: type) -> dict[str, Shared]:
    """The shared resources of a flow class by name, with inherited ones."""
    found: dict[str, Shared] = {}
    for owner in reversed(cls.__mro__):
        for name, value in vars(owner).items():
            if isinstance(value, Shared):
                found[name] = value
            else:
                found.pop(name, None)
    return found


# --- checks -----------------------------------------------------------------------------------


def check_shared(cls: type, steps: Iterable[Node]) -> None:
    """Check that every step and every shared resource can get what it asks for.

    Raises:
        GraphError: A name is unknown, a `def` step asks for an async resource, or a resource needs
            itself.
    """
    known = shared_of(cls)
    checks = _Checks(cls, known)
    for step in steps:
        checks.step(step)
    for name in known:  # also those that no step asks for
        checks.need(name, "")


class _Checks:
    """The checks of one class."""

    def __init__(self, cls: type, known: Mapping[str, Shared]) -> None:
        self._cls, self._known = cls, known
        self._async: dict[str, str] = {}  # for each checked resource: the async one that it needs

    def step(self, step: Node) -> None:
        """Check what one step asks for."""
        where: Any = {"step": step.name, "file": step.file, "line": step.line}
        for name in step.shared:
            if name not in self._known:
                message = f"step {step.name!r} asks for {name!r}, {self._unknown(name)}"
                raise GraphError(message, **where)
            needed = self.need(name, step.name)
            if needed and not step.is_async:
                what = repr(name) if needed == name else f"{name!r}, which needs {needed!r}"
                message = (
                    f"step {step.name!r} is `def`, but asks for {what}, which is opened with async "
                    f"code: make the step `async def`, or {needed!r} a `def`"
                )
                raise GraphError(message, **where)

    def need(self, name: str, step: str, path: tuple[str, ...] = ()) -> str:
        """The async resource that must be opened for this one; empty for none."""
        if name in self._async:
            return self._async[name]
        thing, here = self._known[name], (*path, name)
        _check_parameters(name, thing.written(), step)
        needed = name if thing.is_async else ""
        for other in thing.asks:
            if other in here:
                cycle = " -> ".join([*here[here.index(other) :], other])
                message = f"shared {name!r} needs itself ({cycle}): remove one of these parameters"
                raise _error(message, step, thing.written())
            if other not in self._known:
                message = f"shared {name!r} asks for {other!r}, {self._unknown(other)}"
                raise _error(message, step, thing.written())
            needed = self.need(other, step, here) or needed
        self._async[name] = needed
        return needed

    def _unknown(self, name: str) -> str:
        if hasattr(self._cls, name):
            return (
                f"which is not under @shared: a keyword-only parameter asks for what is shared, "
                f"so remove it and read self.{name}"
            )
        hint = did_you_mean(name, self._known)
        advice = f": add `@shared def {name}(): …` to the class, or remove the parameter"
        return f"but nothing is shared under that name{hint or advice}"


def _check_parameters(name: str, function: FunctionType, step: str) -> None:
    code = function.__code__
    if code.co_argcount or code.co_flags & _STARS:
        message = (
            f"shared {name!r} has the wrong arguments: it takes no `self`, and other shared ones "
            f"by keyword only, as in `def {name}(*, config)`"
        )
        raise _error(message, step, function)


def _error(message: str, step: str, function: FunctionType) -> GraphError:
    code = function.__code__
    file = shown_file(code.co_filename)
    return GraphError(message, step=step, file=file, line=code.co_firstlineno)
