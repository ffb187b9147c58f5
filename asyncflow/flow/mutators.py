"""Mutators: classes that change the decorators and parameters of a flow when it is loaded.

    class Hardened(StepMutator):
        def mutate(self, mutable_step):
            mutable_step.add_decorator("retry", deco_kwargs={"times": 2})

`@Hardened` on a step, or a `FlowMutator` on a flow, is only recorded where it stands. The changes
are made once for each flow class, before its graph is read, in each process that loads the flow:
first `pre_mutate` of the flow's mutators and of its steps' mutators, then `mutate` of both. The
mutators of a base class change each flow that extends it. A step is copied before it is changed, so
other flows that inherit it stay as they are.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from dataclasses import replace
from threading import RLock
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, NoReturn, overload

from asyncflow.errors import FlowError
from asyncflow.flow import decorators, remote_decorators
from asyncflow.flow.delayed_values import CONFIG_VALUES, evaluated
from asyncflow.flow.flow_decorators import (
    FlowClass,
    flow_mutators_of,
    flow_options_of,
    own_options,
)
from asyncflow.flow.own_decorators import (
    Decorated,
    OnSteps,
    UserStepDecorator,
    WithArguments,
    decorator_named,
    split_decorator,
)
from asyncflow.flow.parameters import Parameter, parameters_of
from asyncflow.flow.step_options import (
    OwnDecorator,
    StepOptions,
    ensure_options,
    is_step,
    options_of,
    set_options,
)
from asyncflow.flow.step_secrets import secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

_STEP_DECORATORS: Final = (
    {"secrets": secrets}
    | {
        name: getattr(decorators, name)
        for name in (
            "retry",
            "catch",
            "timeout",
            "isolate",
            "concurrency",
            "limit",
            "environment",
            "resources",
            "parallel",
            "card",
        )
    }
    | {each.__name__: each for each in remote_decorators.STEP_DECORATORS}
)
_FLOW_DECORATORS: Final = {each.__name__: each for each in remote_decorators.FLOW_DECORATORS}
_LATE_FLOW_DECORATORS: Final = {
    "exit_hook": "asyncflow.flow.exit_hook",
    "project": "asyncflow.flow.project",
}
"""Decorators of flows, with the module in which they are found when they are asked for."""
_REPEATED: Final = frozenset({"limit", "card"})
"""Decorators of which a step may have several."""

_MARK: Final = "__asyncflow_mutated__"
_applying: Final = RLock()


class DecoratorSpec(NamedTuple):
    """A decorator as it stands on a step or a flow."""

    name: str
    full_name: str
    """With its module."""
    args: list[Any]
    kwargs: dict[str, Any]


# --- what users extend ------------------------------------------------------------------------


class _OnMutatedSteps(OnSteps):
    def record(self, target: Any, own: OwnDecorator) -> Any:
        ensure_options(target, self.__name__).mutators.append(own)
        return target


class _OnFlows(WithArguments):
    def decorates(self, target: object) -> bool:
        return isinstance(target, type)

    def record(self, target: Any, own: OwnDecorator) -> Any:
        own_options(target, self.__name__).mutators.append(own)
        return target


class StepMutator(metaclass=_OnMutatedSteps):
    """The base class of a decorator that changes the other decorators of its step.

    Use it as `@Name` or with arguments, like a `UserStepDecorator`; `init` takes them.
    """

    _allowed_args: ClassVar[bool] = False
    _allowed_kwargs: ClassVar[bool | Collection[str]] = False

    if TYPE_CHECKING:

        @overload
        def __new__(cls, method: Decorated, /) -> Decorated: ...  # type: ignore[misc]  # the metaclass says so
        @overload
        def __new__(cls, *args: object, **kwargs: object) -> Callable[[Decorated], Decorated]: ...  # type: ignore[misc] # a class used as a decorator gives back what it decorates
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Decorate: the metaclass does it, and leaves the method as it is."""

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of the decorator."""

    def pre_mutate(self, mutable_step: MutableStep) -> None:
        """Change the step before `mutate` of any mutator."""

    def mutate(self, mutable_step: MutableStep) -> None:
        """Change the step."""


class FlowMutator(metaclass=_OnFlows):
    """The base class of a decorator that changes its flow: parameters, and decorators of steps.

    Use it as `@Name` on the class, or with arguments, like a `UserStepDecorator`.
    """

    _allowed_args: ClassVar[bool] = False
    _allowed_kwargs: ClassVar[bool | Collection[str]] = False

    if TYPE_CHECKING:

        @overload
        def __new__(cls, flow: FlowClass, /) -> FlowClass: ...  # type: ignore[misc]  # the metaclass says so
        @overload
        def __new__(cls, *args: object, **kwargs: object) -> Callable[[FlowClass], FlowClass]: ...  # type: ignore[misc] # a class used as a decorator gives back what it decorates
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            """Decorate: the metaclass does it, and leaves the class as it is."""

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of the decorator."""

    def pre_mutate(self, mutable_flow: MutableFlow) -> None:
        """Change the flow before `mutate` of any mutator; parameters are changed here only."""

    def mutate(self, mutable_flow: MutableFlow) -> None:
        """Change the flow."""


# --- what mutators get ------------------------------------------------------------------------


class _Mutable:
    """What steps and flows have in common: decorators that can be listed, added and removed."""

    IGNORE: ClassVar = 1
    """Leave a decorator as it is that is there already."""
    ERROR: ClassVar = 2
    """Refuse to add it."""
    OVERRIDE: ClassVar = 3
    """Remove the one that is there."""

    @property
    def decorator_specs(self) -> Iterator[DecoratorSpec]:
        """The decorators: name, full name, arguments by position and by name."""
        raise NotImplementedError

    def get_decorator_specs(self, deco_name: str) -> list[DecoratorSpec]:
        """The decorators of this name; the full name will do, too."""
        return [each for each in self.decorator_specs if deco_name in each[:2]]

    def has_decorator(self, deco_name: str) -> bool:
        """Whether there is a decorator of this name."""
        return bool(self.get_decorator_specs(deco_name))

    def add_decorator(
        self,
        deco_type: Any,
        deco_args: list[Any] | None = None,
        deco_kwargs: dict[str, Any] | None = None,
        duplicates: int = IGNORE,
    ) -> None:
        """Put a decorator on it.

        Args:
            deco_type: The decorator itself, or its name, with arguments as in `retry:times=2`.
            deco_args: Its arguments by position.
            deco_kwargs: Its arguments by name.
            duplicates: What to do if it has the decorator already: IGNORE, ERROR or OVERRIDE.

        Raises:
            FlowError: There is no such decorator, it does not take these arguments, or it stands
                there already and `duplicates` is ERROR.
        """
        kwargs = dict(deco_kwargs or {})
        if isinstance(deco_type, str):
            deco_type, given = split_decorator(deco_type)
            kwargs |= given
        name, put = self._decorator(deco_type)
        if name not in _REPEATED and self.has_decorator(name):
            if duplicates == self.IGNORE:
                return
            if duplicates == self.ERROR:
                raise FlowError(f"{self!r} has the decorator @{name} already")
            self.remove_decorator(name)
        try:
            self._put(put(*(deco_args or ()), **kwargs))
        except TypeError as error:
            message = f"@{name} cannot be put on {self!r}: {error}"
            raise FlowError(message) from error

    def remove_decorator(
        self,
        deco_name: str,
        deco_args: list[Any] | None = None,
        deco_kwargs: dict[str, Any] | None = None,
    ) -> bool:
        """Take decorators of this name away, with arguments those alone that have just these.

        Returns:
            Whether there was one.
        """
        asked = deco_args is not None or deco_kwargs is not None
        given = [*(deco_args or ())], dict(deco_kwargs or {})
        found = [
            each
            for each in self.get_decorator_specs(deco_name)
            if not asked or (each.args, each.kwargs) == given
        ]
        for each in found:
            self._remove(each)
        return bool(found)

    def _decorator(self, deco_type: Any) -> tuple[str, Callable[..., Any]]:
        """The name of a decorator, and what takes its arguments."""
        raise NotImplementedError

    def _put(self, decorate: Callable[[Any], Any]) -> None:
        raise NotImplementedError

    def _remove(self, spec: DecoratorSpec) -> None:
        raise NotImplementedError


class MutableStep(_Mutable):
    """A step of a flow, for its mutators."""

    def __init__(self, flow: MutableFlow, name: str) -> None:
        self.flow = flow
        """The flow that it is a step of."""
        self.name = name

    @property
    def _options(self) -> StepOptions:
        found = options_of(inspect.getattr_static(self.flow.cls, self.name))
        assert found is not None  # noqa: S101 - it is a step
        return found

    @property
    def decorator_specs(self) -> Iterator[DecoratorSpec]:
        """The decorators: asyncflow's own, then the user's, the outermost first."""
        options = self._options
        for name, value in list(options.options.items()):
            values = value if name in _REPEATED else [value]
            for each in values:
                args, kwargs = _given(name, each, options)
                yield DecoratorSpec(name, f"asyncflow.{name}", args, kwargs)
        for own in [*options.own[::-1]]:
            yield DecoratorSpec(own.kind.__name__, own.full_name, list(own.args), dict(own.kwargs))

    def _decorator(self, deco_type: Any) -> tuple[str, Callable[..., Any]]:
        if isinstance(deco_type, str):
            known = _STEP_DECORATORS.get(deco_type)
            if known is not None:
                return deco_type, known
            deco_type = decorator_named(deco_type, self.flow.cls)
        for name, known in _STEP_DECORATORS.items():
            if deco_type is known:
                return name, known
        if isinstance(deco_type, type) and issubclass(deco_type, UserStepDecorator | StepMutator):
            return deco_type.__name__, deco_type
        raise FlowError(f"{deco_type!r} is no decorator of steps")

    def _put(self, decorate: Callable[[Any], Any]) -> None:
        decorate(self._own())

    def _remove(self, spec: DecoratorSpec) -> None:
        options = options_of(self._own())
        if options is None:
            return
        if spec.full_name == f"asyncflow.{spec.name}":
            if spec.name in _REPEATED:
                kept = [
                    each
                    for each in options.options[spec.name]
                    if _given(spec.name, each, options) != (spec.args, spec.kwargs)
                ]
                options.options[spec.name] = kept
            if spec.name not in _REPEATED or not options.options[spec.name]:
                del options.options[spec.name]
            if spec.name == "retry":
                options.retry_on = ()
            if spec.name == "environment":
                options.variables = {}
            if spec.name == "secrets":
                options.secrets, options.secrets_override = [], False
            return
        options.own = [
            each
            for each in options.own
            if (each.kind.__name__, list(each.args), each.kwargs)
            != (spec.name, spec.args, spec.kwargs)
        ]

    def _own(self) -> Any:
        """The method, copied from wherever it is inherited."""
        cls, name = self.flow.cls, self.name
        method = inspect.getattr_static(cls, name)
        if name not in self.flow.copied:
            method = copy_of_step(method)
            setattr(cls, name, method)
            self.flow.copied.add(name)
        return method

    def __repr__(self) -> str:
        return f"step {self.name!r} of {self.flow.cls.__name__}"


class MutableFlow(_Mutable):
    """A flow, for its mutators."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        """The flow class itself."""
        self.copied: set[str] = set()
        """The steps that are copies already, and may be changed."""
        self.takes_parameters = True

    @property
    def steps(self) -> Iterator[tuple[str, MutableStep]]:
        """The steps by name."""
        for name in sorted(step_names(self.cls)):
            yield name, MutableStep(self, name)

    @property
    def parameters(self) -> Iterator[tuple[str, Parameter[Any]]]:
        """The parameters by the names of their attributes."""
        yield from parameters_of(self.cls).items()

    @property
    def configs(self) -> Iterator[tuple[str, Any]]:
        """The values of the configurations, by the names of their attributes."""
        yield from getattr(self.cls, CONFIG_VALUES, {}).items()

    @property
    def decorator_specs(self) -> Iterator[DecoratorSpec]:
        """The decorators of the flow."""
        for name, value in flow_options_of(self.cls).items():
            kwargs = dict(value) if isinstance(value, dict) else {"value": value}
            yield DecoratorSpec(name, f"asyncflow.{name}", [], kwargs)

    def add_parameter(self, name: str, value: Parameter[Any], overwrite: bool = False) -> None:  # noqa: FBT001, FBT002 - as in Metaflow
        """Give the flow a parameter, as an attribute of this name.

        Raises:
            FlowError: The flow has an attribute of this name, or it is too late: parameters are
                changed in `pre_mutate`.
        """
        self._check_time()
        if hasattr(self.cls, name) and not overwrite and not self._is_of_mutator(name):
            message = f"{self!r} has {name!r} already: give it another name, or overwrite=True"
            raise FlowError(message)
        if not isinstance(value, Parameter):
            raise FlowError(f"add_parameter takes a Parameter, not {value!r}")
        setattr(self.cls, name, value)
        value.__set_name__(self.cls, name)
        vars(self.cls)[_MARK].add(name)

    def remove_parameter(self, name: str) -> bool:
        """Take a parameter away; return whether there was one.

        Raises:
            FlowError: It is too late: parameters are changed in `pre_mutate`.
        """
        self._check_time()
        if name not in parameters_of(self.cls):
            return False
        setattr(self.cls, name, _Removed(name))
        return True

    def _is_of_mutator(self, name: str) -> bool:
        """Whether a mutator, perhaps the same one, has given the parameter to a base class."""
        owner = next((each for each in self.cls.__mro__ if name in vars(each)), None)
        return owner is not self.cls and name in vars(owner).get(_MARK, ())

    def _check_time(self) -> None:
        if not self.takes_parameters:
            raise FlowError(f"the parameters of {self!r} are changed in `pre_mutate` only")

    def _decorator(self, deco_type: Any) -> tuple[str, Callable[..., Any]]:
        for name, known in _FLOW_DECORATORS.items():
            if deco_type in (name, known):
                return name, known
        for name, module in _LATE_FLOW_DECORATORS.items():
            late = getattr(importlib.import_module(module), name)
            if deco_type in (name, late):
                return name, late
        raise FlowError(f"{deco_type!r} is no decorator of flows that a mutator can add")

    def _put(self, decorate: Callable[[Any], Any]) -> None:
        decorate(self.cls)

    def _remove(self, spec: DecoratorSpec) -> None:
        own = own_options(self.cls, spec.name)
        own.options.pop(spec.name, None)
        if spec.name in flow_options_of(self.cls):
            own.options[spec.name] = None  # what a base class says does not count

    def __repr__(self) -> str:
        return f"flow {self.cls.__name__}"


class _Removed:
    """Stands for a parameter that a mutator has taken away."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        message = f"a mutator has taken the parameter {self._name!r} away from {owner.__name__}"
        raise AttributeError(message, name=self._name)


def _given(name: str, value: Any, options: StepOptions) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a decorator that is recorded as these plain data."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    match name, value:
        case "retry", {"seconds": seconds}:
            kwargs = {key: each for key, each in value.items() if key not in {"seconds", "on"}}
            kwargs["minutes_between_retries"] = seconds / 60
            if options.retry_on:
                kwargs["on"] = options.retry_on
        case "environment", _:
            kwargs = {"vars": dict(options.variables)}
        case "secrets", _:
            override = options.secrets_override
            kwargs = {"sources": list(options.secrets), "allow_override": override}
        case "limit", [limit, at_once, per_second]:
            args, kwargs = [limit, at_once], {"per_second": per_second}
        case _, dict():
            kwargs = dict(value)
        case _, True:
            pass
        case _:
            args = [value]
    return args, kwargs


def copy_of_step(method: Any) -> Any:
    """A copy of a step, with options of its own."""
    options = options_of(method)
    if isinstance(method, FunctionType):
        made = FunctionType(
            method.__code__,
            method.__globals__,
            method.__name__,
            method.__defaults__,
            method.__closure__,
        )
        made.__kwdefaults__ = method.__kwdefaults__
        made.__annotations__ = method.__annotations__
        made.__doc__, made.__module__ = method.__doc__, method.__module__
        made.__qualname__ = method.__qualname__
        made.__dict__.update(method.__dict__)
    else:
        made = copy.copy(method)
    if options is not None:
        changed = replace(
            options,
            options=copy.deepcopy(options.options),
            own=list(options.own),
            mutators=list(options.mutators),
            named=list(options.named),
            delayed=list(options.delayed),
        )
        set_options(made, changed)
    return made


# --- when they are applied --------------------------------------------------------------------


def step_names(cls: type) -> list[str]:
    """The steps of a flow, with those that it inherits."""
    return [name for name in dir(cls) if is_step(inspect.getattr_static(cls, name, None))]


def apply_mutators(cls: type) -> None:
    """Have the mutators of a flow and of its steps change it, once for each class.

    Raises:
        Exception: Whatever a mutator raises.
    """
    with _applying:  # two engines of a program may start runs of one flow in their threads
        if _MARK in vars(cls):
            return
        setattr(cls, _MARK, set())
        try:
            _apply(MutableFlow(cls))
        except BaseException:
            delattr(cls, _MARK)
            raise


def _apply(flow: MutableFlow) -> None:
    configs = dict(flow.configs)
    of_flow: list[FlowMutator] = [
        _made(own.evaluated(lambda value: evaluated(value, configs, configs)))
        for own in flow_mutators_of(flow.cls)
    ]
    for each in of_flow:
        each.pre_mutate(flow)
    flow.takes_parameters = False
    of_steps = _step_mutators(flow, {})
    for (name, _), mutator in of_steps.items():
        mutator.pre_mutate(MutableStep(flow, name))
    for each in of_flow:
        each.mutate(flow)
    for (name, _), mutator in _step_mutators(flow, of_steps).items():
        mutator.mutate(MutableStep(flow, name))


def _step_mutators(
    flow: MutableFlow, made: Mapping[tuple[str, int], StepMutator]
) -> dict[tuple[str, int], StepMutator]:
    """The mutators of the steps, by step and place; those that are made already stay the same."""
    found: dict[tuple[str, int], StepMutator] = {}
    for name in step_names(flow.cls):
        options = options_of(inspect.getattr_static(flow.cls, name))
        owns = options.mutators if options is not None else []
        for place in reversed(range(len(owns))):  # the outermost first
            key = name, place
            found[key] = made[key] if key in made else _made(owns[place])
    return found


def _made(own: OwnDecorator) -> Any:
    mutator: Any = object.__new__(own.kind)
    mutator.init(*own.args, **own.kwargs)
    return mutator
