"""Decorators of the user's own, which run code before and after a step, or instead of it.

    @user_step_decorator
    def timed(step_name, flow, inputs=None, attributes=None):
        began = time.perf_counter()
        yield                                   # here the step runs
        flow.seconds = time.perf_counter() - began

A decorator runs nothing where it stands. It is recorded on the method, which stays as it is, and
the worker calls it for each attempt of a task. A class that extends `UserStepDecorator` does the
same with two methods, `pre_step` and `post_step`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar, cast, overload

from asyncflow.errors import FlowError
from asyncflow.flow.decorator_arguments import mistake
from asyncflow.flow.step_options import OwnDecorator, ensure_options, options_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")
"""A step or a flow, which a decorator leaves as it is."""

USER_SKIP_STEP: Final[dict[str, Any]] = {}
"""What a decorator yields so that the step does not run, and the flow goes on behind it."""

_FEWEST_ARGUMENTS: Final = 2  # the name of the step, and the flow
_MOST_ARGUMENTS: Final = 4  # also the inputs of a join, and the decorator's own arguments


class WithArguments(type):
    """The class of decorators that are classes: to call one is to decorate, not to make it."""

    _allowed_args: bool
    _allowed_kwargs: bool | Collection[str]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        if "__init__" in namespace:
            message = f"the decorator {name!r} has an `__init__`, which nothing calls: write `init`"
            raise mistake(message)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Decorate with the given arguments, or with none if the only one is what to decorate."""
        if len(args) == 1 and not kwargs and cls.decorates(args[0]):
            return cls.record(args[0], OwnDecorator(cls, (), {}))
        cls.check(args, kwargs)
        own = OwnDecorator(cls, args, kwargs)

        def decorate(target: Any) -> Any:
            if not cls.decorates(target):
                raise mistake(f"@{cls.__name__} cannot decorate {target!r}")
            return cls.record(target, own)

        return decorate

    def check(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that the decorator does not take.

        Raises:
            FlowError: It says which.
        """
        allowed = cls._allowed_kwargs
        if args and not cls._allowed_args:
            how = "arguments by name only" if allowed else "no arguments"
            raise mistake(f"@{cls.__name__} takes {how}, not {args[0]!r}")
        if allowed is True:
            return
        wrong = [name for name in kwargs if not allowed or name not in allowed]
        if wrong:
            takes = f"takes {', '.join(allowed)}" if allowed else "takes no arguments by name"
            message = f"@{cls.__name__} {takes}, not {wrong[0]!r}; `_allowed_kwargs` says which"
            raise mistake(message)

    def decorates(cls, target: object) -> bool:
        """Whether this is something that the decorator can stand on."""
        raise NotImplementedError

    def record(cls, target: Any, own: OwnDecorator) -> Any:
        """Record a decorator on its target, and return the target."""
        raise NotImplementedError


class OnSteps(WithArguments):
    """The class of decorators of steps."""

    def decorates(cls, target: object) -> bool:
        """Whether this is a method."""
        if cls._allowed_args:  # then a function may be an argument
            return options_of(target) is not None
        return isinstance(target, FunctionType) or options_of(target) is not None

    def record(cls, target: Any, own: OwnDecorator) -> Any:
        """Record a decorator on a method, and return the method."""
        options = ensure_options(target, cls.__name__)
        options.own.append(own)
        return target


class UserStepDecorator(metaclass=OnSteps):
    """The base class of a decorator with code that runs before and after a step.

    Use it as `@Name`, or with arguments, as in `@Name(alpha=1)`. `_allowed_args = True` allows
    arguments by position; `_allowed_kwargs = True`, or a list of names, arguments by name. Each
    attempt of a task makes an object of its own, with `init` in the place of `__init__`. All
    methods may be left out, and `pre_step` and `post_step` of an async step may be `async def`.
    """

    _allowed_args: ClassVar[bool] = False
    _allowed_kwargs: ClassVar[bool | Collection[str]] = False

    skip_step: bool | dict[str, Any] = False
    """Set by `pre_step`: the step does not run. A dict has arguments for `self.next`."""

    if TYPE_CHECKING:

        @overload
        def __new__(cls, method: Decorated, /) -> Decorated: ...  # type: ignore[misc]  # the metaclass says so
        @overload
        def __new__(cls, *args: object, **kwargs: object) -> Callable[[Decorated], Decorated]: ...  # type: ignore[misc] # a class used as a decorator gives back what it decorates
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Decorate: the metaclass does it, and leaves the method as it is."""

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of the decorator."""

    def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> Any:
        """Run before the step; `inputs` is None unless the step is a join.

        If it returns a function, that runs instead of the step. It is called with `flow`, in a join
        also with `inputs`, and it calls `flow.next`. If it raises, the task has failed.
        """

    def post_step(self, step_name: str, flow: Any, exception: Exception | None = None) -> Any:  # noqa: ARG002 - for who overrides it
        """Run after the step, with what it has raised; return what is to be raised.

        If it returns None, nothing is: a step that has failed goes on where its source says. A
        pair has in addition a dict with arguments for `self.next`.
        """
        return exception


class GeneratorDecorator(Protocol):
    """A decorator that `user_step_decorator` has made."""

    @overload
    def __call__(self, method: Decorated, /) -> Decorated: ...
    @overload
    def __call__(self, /, **attributes: object) -> Callable[[Decorated], Decorated]: ...


def user_step_decorator(function: Callable[..., Any]) -> GeneratorDecorator:
    """Make a decorator of a generator function, which for async steps may be `async def`.

    It is called as `function(step_name, flow, inputs, attributes)`, the last two if it takes them.
    The step runs where it yields. What the step raises is raised there; the function may handle it,
    and the flow goes on where the step's source says. `yield USER_SKIP_STEP` skips the step, as
    does a dict of arguments for `self.next`; `yield function` runs a function in its place.

    `attributes` are the arguments of the decorator, which are given by name.

    Raises:
        FlowError: It is no generator function.
    """
    is_async = inspect.isasyncgenfunction(function)
    if not is_async and not inspect.isgeneratorfunction(function):
        message = (
            f"user_step_decorator takes a generator function, one with `yield`: not {function!r}"
        )
        raise mistake(message)
    code = function.__code__
    most = _MOST_ARGUMENTS if code.co_flags & inspect.CO_VARARGS else code.co_argcount
    namespace = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "function": staticmethod(function),
        "argument_count": max(_FEWEST_ARGUMENTS, min(most, _MOST_ARGUMENTS)),
    }
    base = _AsyncGeneratorDecorator if is_async else _GeneratorDecorator
    made: Any = OnSteps(function.__name__, (base,), namespace)
    return cast("GeneratorDecorator", made)


def split_decorator(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the arguments in `retry:times=2,on=x`: JSON values, or else text.

    Raises:
        FlowError: It is not of this form.
    """
    import json

    name, _, said = text.partition(":")
    arguments = {}
    for part in said.split(",") if said else ():
        key, equals, value = part.partition("=")
        if not equals:
            message = f"{text} is not of the form NAME:ARGUMENT=VALUE,ARGUMENT=VALUE"
            raise FlowError(message)
        try:
            arguments[key.strip()] = json.loads(value)
        except ValueError:
            arguments[key.strip()] = value
    return name, arguments


def decorator_named(name: str, flow: type) -> type[UserStepDecorator]:
    """The decorator `module.name`, or `name` in the module of the flow.

    Raises:
        FlowError: There is no such decorator.
        Exception: Whatever the module raises when it is imported.
    """
    module, _, last = name.rpartition(".")
    try:
        found = importlib.import_module(module) if module else sys.modules[flow.__module__]
    except ModuleNotFoundError as error:
        message = f"there is no module {error.name!r}, so no decorator {name!r}"
        raise FlowError(message) from error
    kind = getattr(found, last, None)
    if isinstance(kind, type) and issubclass(kind, UserStepDecorator):
        return kind
    raise FlowError(f"there is no decorator {name!r} of steps")


class _FunctionDecorator(UserStepDecorator):
    _allowed_kwargs = True

    function: ClassVar[Callable[..., Any]]
    argument_count: ClassVar[int]

    def init(self, **attributes: Any) -> None:
        self._attributes = attributes

    def _called(self, *arguments: Any) -> Any:
        return self.function(*(*arguments, self._attributes)[: self.argument_count])

    def _instead(self, yielded: Any) -> Any:
        """What runs instead of the step, according to what the function has yielded."""
        if isinstance(yielded, dict):
            self.skip_step = yielded or True
            return None
        if yielded is None or callable(yielded):
            return yielded
        message = (
            f"the decorator {type(self).__name__!r} yields {yielded!r}: it yields nothing, "
            "USER_SKIP_STEP, a dict of arguments for self.next, or a function"
        )
        raise FlowError(message)

    def _without_yield(self) -> FlowError:
        message = f"the decorator {type(self).__name__!r} has ended without `yield`"
        return FlowError(message)


class _GeneratorDecorator(_FunctionDecorator):
    _running: Generator[Any, None, None]

    def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> Any:
        self._running = self._called(step_name, flow, inputs)
        try:
            return self._instead(next(self._running))
        except StopIteration:
            raise self._without_yield() from None

    def post_step(self, *given: Any, **_: Any) -> BaseException | None:
        exception: BaseException | None = given[-1]
        try:
            if exception is None:
                next(self._running)
            else:
                self._running.throw(exception)
        except StopIteration:
            return None
        except RuntimeError as error:
            return _raised(error, exception)
        self._running.close()  # a second `yield` ends it
        return None


class _AsyncGeneratorDecorator(_FunctionDecorator):
    _running: AsyncGenerator[Any, None]

    async def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> Any:
        self._running = self._called(step_name, flow, inputs)
        try:
            return self._instead(await anext(self._running))
        except StopAsyncIteration:
            raise self._without_yield() from None

    async def post_step(self, *given: Any, **_: Any) -> BaseException | None:
        exception: BaseException | None = given[-1]
        try:
            if exception is None:
                await anext(self._running)
            else:
                await self._running.athrow(exception)
        except StopAsyncIteration:
            return None
        except RuntimeError as error:
            return _raised(error, exception)
        await self._running.aclose()
        return None


def _raised(error: RuntimeError, given: BaseException | None) -> BaseException:
    """The error of a generator, which lets a StopIteration out as a RuntimeError (PEP 479)."""
    return given if given is not None and error.__cause__ is given else error
