"""`Parameter`: a value that is given to a flow when a run starts.

A parameter is a class attribute of the flow. Its value comes from the keyword or the command line,
else from `ASYNCFLOW_RUN_<NAME>` in the environment, else from its default. It is a read-only
artifact. A type checker knows `self.alpha: float` from
`alpha = Parameter("alpha", default=0.1)`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Never,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from asyncflow._support.call_site import calling_line
from asyncflow._support.safe_text import shortened
from asyncflow._support.suggestions import did_you_mean
from asyncflow.errors import ParameterError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

T = TypeVar("T")
Scalar = TypeVar("Scalar", str, int, float, bool)
Default = TypeVar("Default", bound="str | float | Sequence[Any] | Mapping[str, Any]")

ENVIRONMENT_PREFIX: Final = "ASYNCFLOW_RUN_"
RESERVED: Final = frozenset({"tags"})
"""Names that no parameter can have: `run(MyFlow, tags=[...])` already has a meaning."""


CONFIG_VALUES: Final = "__asyncflow_configs__"
"""The attribute of a configured flow that has the values of its configurations."""


WRITTEN_CLASS: Final = "__asyncflow_written__"
"""The attribute of a configured flow that has the class as its author wrote it."""


class Expression:
    """What `asyncflow.flow.config` has to evaluate; here, because few flows need that module."""

    __slots__ = ()

    def evaluate(self, values: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
        """The value, given those of the flow's configurations by attribute and by name."""
        raise NotImplementedError


class ConfigBase:
    """The base class of `Config` alone; here for the same reason."""

    __slots__ = ()


def has_configs(cls: type) -> bool:
    """Whether a flow has a `Config`."""
    return any(
        isinstance(value, ConfigBase) for owner in cls.__mro__ for value in vars(owner).values()
    )


def has_expression(value: object) -> bool:
    """Whether there is an expression of a configuration in a value or in what it holds."""
    if isinstance(value, dict):
        return any(has_expression(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(has_expression(each) for each in value)
    return isinstance(value, Expression | ConfigBase)


def evaluated(value: Any, values: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    """The value with each expression in it evaluated.

    Raises:
        ParameterError: One cannot be evaluated.
    """
    if isinstance(value, Expression):
        return value.evaluate(values, names)
    if isinstance(value, ConfigBase):
        return values[value._spec.attribute]  # type: ignore[attr-defined]  # noqa: SLF001 - a `Config`
    if not has_expression(value):
        return value
    if isinstance(value, dict):
        return {key: evaluated(each, values, names) for key, each in value.items()}
    return type(value)(evaluated(each, values, names) for each in value)


class JSONType:
    """The type of a parameter whose text is parsed as JSON: `Parameter("x", type=JSONType)`."""


@dataclass(frozen=True, slots=True)
class ParameterContext:
    """The argument of a default that is a function, if it takes one."""

    flow_name: str
    parameter_name: str
    user_name: str


class ParameterOwner(Protocol):
    """What a parameter needs from the flow instance through which it is read."""

    def _asyncflow_parameter(self, parameter: Parameter[Any]) -> Any: ...


class _Shown(TypedDict, total=False):
    help: str | None
    show_default: bool


class Parameter(Generic[T]):
    """A value that a run of the flow is started with.

    Args:
        name: Its name on the command line, in the environment and as a keyword; the attribute's
            name if left out.
        default: The value if none is given, or a function that returns it when the run starts. The
            function takes no argument or a `ParameterContext`.
        type: `str`, `int`, `float`, `bool` or `JSONType`; the default's type if left out.
        help: The text that `--help` shows.
        required: Whether each run must be given a value; a default is one.
        separator: Makes the value a list, whose items this separates if it is given as text.
        multiple: Makes the value a tuple; the option is given once for each item, and white space
            separates them in the environment.
        show_default: Whether `--help` shows the default.
    """

    __slots__ = (
        "_name",
        "_type",
        "attribute",
        "default",
        "help",
        "multiple",
        "required",
        "separator",
        "show_default",
        "type",
    )

    # What a type checker knows of the value: these are the forms that users write. Of all others,
    # such as JSON, typed lists and what may be None, it knows nothing: `Any`.

    @overload
    def __init__(
        self: Parameter[Scalar],
        name: str | None = None,
        *,
        type: builtins.type[Scalar],
        required: Literal[True],
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[str],
        name: str | None = None,
        *,
        required: Literal[True],
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[list[str]],
        name: str | None = None,
        *,
        default: str,
        separator: str,
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[tuple[Scalar, ...]],
        name: str | None = None,
        *,
        default: Sequence[Scalar] = ...,
        type: builtins.type[Scalar],
        multiple: Literal[True],
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[tuple[str, ...]],
        name: str | None = None,
        *,
        multiple: Literal[True],
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[Default],
        name: str | None = None,
        *,
        default: Default,
        type: builtins.type[Default] = ...,
        **shown: Unpack[_Shown],
    ) -> None: ...
    @overload
    def __init__(
        self: Parameter[Any],
        name: str | None = None,
        default: Any = None,
        *,
        type: Any = None,
        required: bool = False,
        separator: str | None = None,
        multiple: bool = False,
        **shown: Unpack[_Shown],
    ) -> None: ...
    def __init__(
        self,
        name: str | None = None,
        default: Any = None,
        *,
        type: Any = None,  # noqa: A002 - Metaflow's name for it
        help: str | None = None,  # noqa: A002 - Metaflow's name for it
        required: bool = False,
        separator: str | None = None,
        multiple: bool = False,
        show_default: bool = True,
    ) -> None:
        """Describe a parameter; it is checked together with its flow.

        Raises:
            ParameterError: A parameter cannot have this `type`, or both `separator` and `multiple`.
        """
        self._name = name
        self.attribute = name or ""
        self.default = default
        self.help = help or ""
        self.required = bool(required) and default is None
        self.separator = separator
        self.multiple = bool(multiple)
        self.show_default = show_default
        self._type = type
        self.type: builtins.type[Any] = str
        self._settle_type()
        if self.multiple and separator is not None:
            raise self._mistake(f"parameter {self.name!r} has `separator` and `multiple`: keep one")

    def _settle_type(self) -> None:
        given = self._type
        several = self.multiple or self.separator is not None
        self.type = _inferred(self.default, several=several) if given is None else given
        if self.type not in _CONVERTERS:
            message = (
                f"parameter {self.name!r} has the type {given!r}; it can be str, int, float, bool "
                f"or, for any JSON value, JSONType"
            )
            raise self._mistake(message)

    def _mistake(self, message: str) -> ParameterError:
        file, line = calling_line()
        message = f"{file}:{line}: {message}" if file else message
        return ParameterError(message, parameter=self.name)

    @property
    def is_delayed(self) -> bool:
        """Whether its default depends on a configuration."""
        return has_expression(self.default)

    def evaluated(self, evaluate: Callable[[Any], Any]) -> Parameter[T]:
        """The parameter with its default evaluated by `evaluate`."""
        made = copy.copy(self)
        made.default = evaluate(self.default)
        made._settle_type()  # noqa: SLF001 - of the same class
        return made

    def __set_name__(self, owner: builtins.type[Any], attribute: str) -> None:
        self.attribute = attribute

    # --- its description ---

    @property
    def name(self) -> str:
        """Its name on the command line, in the environment and as a keyword."""
        return self._name or self.attribute

    @property
    def environment_name(self) -> str:
        """The environment variable that can give its value."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def type_name(self) -> str:
        """Its type, for people: `float`, `list of int`, `JSON`."""
        single = "JSON" if self.type is JSONType else self.type.__name__
        if self.multiple:
            return f"tuple of {single}"
        return single if self.separator is None else f"list of {single}"

    def __repr__(self) -> str:
        default = "required" if self.required else f"default={self.default!r}"
        return f"<Parameter {self.name}: {self.type_name}, {default}>"

    # --- as an attribute of a flow ---

    @overload
    def __get__(self, instance: None, owner: builtins.type[Any]) -> Parameter[T]: ...
    @overload
    def __get__(self, instance: object, owner: builtins.type[Any]) -> T: ...
    def __get__(self, instance: object, owner: builtins.type[Any]) -> Parameter[T] | T:
        if instance is None:
            return self
        values = vars(instance)
        if self.attribute in values:
            return cast("T", values[self.attribute])
        flow = cast("ParameterOwner", instance)
        return cast("T", flow._asyncflow_parameter(self))  # noqa: SLF001 - made for this very call

    def __set__(self, instance: object, value: Never) -> None:
        message = (
            f"parameter {self.attribute!r} is read-only: it keeps the value that the run was "
            f"started with; assign to another name"
        )
        raise AttributeError(message)

    def __delete__(self, instance: object) -> None:
        message = f"parameter {self.attribute!r} is read-only: it cannot be deleted"
        raise AttributeError(message)

    # --- values ---

    def convert(self, value: object) -> T:
        """Convert text or a Python value to the value that the flow sees.

        Raises:
            ParameterError: The value is not of the parameter's type.
        """
        if self.multiple:
            return cast("T", self._convert_several(value))
        if value is None and not self.required and self.default is None:
            return cast("T", None)
        if self.separator is None:
            return cast("T", self._convert_one(value))
        if isinstance(value, str):
            items: list[Any] = value.split(self.separator) if value else []
        elif isinstance(value, list | tuple):
            items = list(value)
        else:
            raise self._refusal(value)
        return cast("T", [self._convert_one(item) for item in items])

    def _convert_several(self, value: object) -> tuple[Any, ...]:
        if value is None and not self.required:
            return ()
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, list | tuple):
            raise self._refusal(value)
        return tuple(self._convert_one(item) for item in value)

    def default_value(self, context: ParameterContext) -> T:
        """The default; if it is a function, it is called now.

        Raises:
            ParameterError: The function failed, or the default is not of the parameter's type.
        """
        return self.convert(self.found_default(context))

    def found_default(self, context: ParameterContext) -> object:
        """The default as it was given; if it is a function, what it returns.

        Raises:
            ParameterError: The function failed.
        """
        if not callable(self.default):
            found: object = self.default
            return found
        try:
            return call_with_context(self.default, context)
        except Exception as error:
            message = (
                f"the default of parameter {self.name!r} failed: {type(error).__name__}: {error}"
            )
            raise ParameterError(message, parameter=self.name) from error

    def value_to_store(self, value: object) -> Any:
        """What is stored for a value, or for a default: what `convert` returns, or its `Stream`.

        Raises:
            ParameterError: As from `convert`.
        """
        return self.convert(value)

    def as_seen(self, stored: Any) -> Any:
        """What a step sees, given what is stored."""
        return stored

    def check_default(self) -> None:
        """Check that the default, which is not a function, is of the parameter's type.

        Raises:
            ParameterError: It is of another type.
        """
        self.convert(self.default)

    def _convert_one(self, value: object) -> Any:
        try:
            return _CONVERTERS[self.type](value)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._refusal(value, str(error) if self.type is JSONType else "") from None

    def _refusal(self, value: object, why: str = "") -> ParameterError:
        message = f"parameter {self.name!r} takes {_ARTICLES.get(self.type_name, '')}"
        message += f"{self.type_name}, not {_shown(value)}{f' ({why})' if why else ''}"
        return ParameterError(message, parameter=self.name)


_SHOWN_CHARACTERS: Final = 80  # of a wrong value, in a message
_KEPT_CHARACTERS: Final = 200  # of a value, in a run's first event
_ARTICLES: Final = {"path": "a ", "str": "a ", "int": "an ", "float": "a ", "bool": "a "}
_TRUE: Final = frozenset({"true", "1", "yes", "on", "y", "t"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "n", "f"})


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python converts to text
        text = f"something of type {type(value).__name__}"
    return shortened(text, _SHOWN_CHARACTERS)


# --- of a flow --------------------------------------------------------------------------------


def parameters_of(cls: type) -> dict[str, Parameter[Any]]:
    """The parameters of a flow by the names of their attributes, in the order of the source.

    Raises:
        ParameterError: Two have the same name, or a name or default is not allowed.
    """
    found = raw_parameters_of(cls)
    _check_names(found.values())
    for parameter in found.values():
        known = not (callable(parameter.default) or parameter.is_delayed)
        if known and parameter.default is not None:
            parameter.check_default()
    return found


def raw_parameters_of(cls: type) -> dict[str, Parameter[Any]]:
    """The parameters of a flow by the names of their attributes, not checked."""
    found: dict[str, Parameter[Any]] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            if isinstance(value, Parameter):
                found[attribute] = value
            else:
                found.pop(attribute, None)
    return found


def _check_names(parameters: Iterable[Parameter[Any]]) -> None:
    seen: dict[str, Parameter[Any]] = {}
    for parameter in parameters:
        name = parameter.name
        if name in RESERVED:
            message = f"a parameter cannot be called {name!r}: every run has tags; rename it"
            raise ParameterError(message, parameter=name)
        if name.startswith("-") or not name.replace("-", "_").isidentifier():
            message = f"a parameter cannot be called {name!r}: use letters, digits and underscores"
            raise ParameterError(message, parameter=name)
        twin = seen.setdefault(parameter.environment_name, parameter)
        if twin is not parameter:
            message = (
                f"the parameters {twin.attribute!r} and {parameter.attribute!r} are both called "
                f"{name!r} (upper and lower case count as the same): rename one"
            )
            raise ParameterError(message, parameter=name)


def resolve_parameters(
    cls: type, given: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The value of every parameter by attribute: as given, else from `environ`, else the default.

    Raises:
        ParameterError: A parameter is unknown, is missing, or cannot take its value.
    """
    parameters = parameters_of(cls)
    by_name = {parameter.name: parameter for parameter in parameters.values()}
    spelt = {attribute: parameter.name for attribute, parameter in parameters.items()}
    spelt |= {
        name.replace("-", "_"): name for name in by_name
    }  # a name takes precedence over an attribute
    chosen: dict[str, object] = {}
    for name, value in given.items():
        found = name if name in by_name else spelt.get(name)
        if found is None:
            raise _unknown(cls, name, by_name)
        if found in chosen:
            message = f"parameter {found!r} is given twice, once as {name!r}: leave one out"
            raise ParameterError(message, parameter=found)
        chosen[found] = value
    return {
        attribute: _value_of(cls, parameter, chosen, environ)
        for attribute, parameter in parameters.items()
    }


def resolve_new_parameters(
    cls: type, known: Container[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The value of each parameter not in `known`: from `environ`, else the default.

    Raises:
        ParameterError: A parameter has no value, or cannot take it.
    """
    check_new_parameters(cls, known, environ)
    return {
        attribute: _value_of(cls, parameter, {}, environ)
        for attribute, parameter in parameters_of(cls).items()
        if attribute not in known
    }


def check_new_parameters(cls: type, known: Container[str], environ: Mapping[str, str]) -> None:
    """Check that `environ` has all required parameters not in `known`.

    A resume can give parameters in no other way.

    Raises:
        ParameterError: A required parameter is missing.
    """
    for attribute, parameter in parameters_of(cls).items():
        new = parameter.required and attribute not in known
        if new and parameter.environment_name not in environ:
            message = (
                f"parameter {parameter.name!r} is required, but the run to resume was "
                f"started without it: give it in the environment as {parameter.environment_name}"
            )
            raise ParameterError(message, parameter=parameter.name)


def _unknown(cls: type, name: str, known: Mapping[str, Parameter[Any]]) -> ParameterError:
    hint = did_you_mean(name, known)
    if not hint:
        hint = f"; it has {', '.join(known)}" if known else "; it has none"
    return ParameterError(f"flow {cls.__name__!r} has no parameter {name!r}{hint}", parameter=name)


def _value_of(
    cls: type,
    parameter: Parameter[Any],
    chosen: Mapping[str, object],
    environ: Mapping[str, str],
) -> Any:
    name = parameter.name
    if name in chosen:
        return parameter.value_to_store(chosen[name])
    if parameter.environment_name in environ:
        try:
            return parameter.value_to_store(environ[parameter.environment_name])
        except ParameterError as error:
            message = f"{error}; it comes from the environment, {parameter.environment_name}"
            raise ParameterError(message, parameter=name) from None
    if parameter.required:
        message = (
            f"parameter {name!r} is required: give it as {name}=... or --{name} or in the "
            f"environment as {parameter.environment_name}"
        )
        raise ParameterError(message, parameter=name)
    context = ParameterContext(cls.__name__, name, user_name())
    return parameter.value_to_store(parameter.found_default(context))


def shown_value(value: object) -> str:
    """A parameter's value as text for people, as a run's first event has it."""
    return shortened(str(value), _KEPT_CHARACTERS)


def user_name() -> str:
    """The name of the user: from the environment, else the system's name for the user id."""
    import os

    for name in (
        "LOGNAME",
        "USER",
        "LNAME",
        "USERNAME",
    ):  # as in `getpass`, which is slow to import
        if os.environ.get(name):
            return os.environ[name]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container whose user has no entry
        return str(os.getuid())


# --- from text and from Python values ---------------------------------------------------------


def _inferred(default: object, *, several: bool) -> type[Any]:
    if isinstance(default, Expression | ConfigBase):
        return str  # until it is evaluated
    if several and isinstance(default, list | tuple):
        return _inferred(default[0], several=False) if default else str
    for candidate in (bool, int, float, str):
        if isinstance(default, candidate):
            return candidate
    return str if default is None or callable(default) else JSONType


def call_with_context(function: Callable[..., Any], context: ParameterContext) -> Any:
    """Call a function that takes the context, or nothing."""
    return function(context) if _takes_context(function) else function()


def named_function(function: Any) -> Callable[[str], Any]:
    """A parser: a function, or the one that a text such as `json.loads` names.

    Raises:
        ParameterError: There is no such function.
    """
    if callable(function):
        return cast("Callable[[str], Any]", function)
    why = "it is not of the form MODULE.NAME"
    if isinstance(function, str) and "." in function:
        import importlib

        module, _, name = function.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            why = str(error)
        else:
            return cast("Callable[[str], Any]", found)
    raise ParameterError(f"the parser {function!r} cannot be found: {why}")


def _takes_context(function: Callable[..., Any]) -> bool:
    import inspect

    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a built-in without a signature
        return False
    return False


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool):
        raise TypeError
    return int(value.__index__())  # not int(value), which would truncate a float


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(value, "__float__")):
        raise TypeError
    return float(value)


def _to_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE and text not in _FALSE:
        raise ValueError
    return text in _TRUE


def _to_json(value: Any) -> Any:
    import json

    if isinstance(value, str):
        return json.loads(value)
    json.dumps(value)
    return value


_CONVERTERS: Final[Mapping[type[Any], Callable[[Any], Any]]] = {
    str: _to_str,
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    JSONType: _to_json,
}
