"""`Parameter`: a value that is given to a flow when a run starts.

A parameter is a class attribute of the flow. Its value comes from the keyword or the command line,
else from `ASYNCFLOW_RUN_<NAME>` in the environment, else from its default. It is a read-only
artifact. A type checker knows `self.alpha: float` from
`alpha = Parameter("alpha", default=0.1)`.
"""

from __future__ import annotations

import copy
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

from asyncflow._quick_classes import dataclass
from asyncflow._support.call_site import calling_line
from asyncflow._support.notebook import shown_file
from asyncflow._support.safe_text import shortened
from asyncflow.errors import ParameterError
from asyncflow.flow.bound_task import STATE, BoundTask
from asyncflow.flow.delayed_values import has_expression
from asyncflow.flow.parameter_types import CONVERTERS, JSONType, inferred_type

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")
Scalar = TypeVar("Scalar", str, int, float, bool)
Default = TypeVar("Default", bound="str | float | Sequence[Any] | Mapping[str, Any]")

ENVIRONMENT_PREFIX: Final = "ASYNCFLOW_RUN_"
RESERVED: Final = frozenset({"tags"})
"""Names that no parameter can have: `run(MyFlow, tags=[...])` already has a meaning."""


@dataclass(frozen=True, slots=True)
class ParameterContext:
    """The argument of a default that is a function, if it takes one."""

    flow_name: str
    parameter_name: str
    user_name: str


def computed_default(default: Any, context: ParameterContext, kind: str, name: str) -> Any:
    """The default as it was given; if it is a function, what it returns.

    A function takes the context, or nothing. `kind` and `name` are what has it, for a message.

    Raises:
        ParameterError: The function failed.
    """
    if not callable(default):
        return default
    try:
        return default(context) if _takes_context(default) else default()
    except Exception as error:
        message = f"the default of {kind} {name!r} failed: {type(error).__name__}: {error}"
        raise ParameterError(message, parameter=name) from error


def mistake(message: str, name: str = "") -> ParameterError:
    """The error of a parameter or a config, with the file and the line where it stands."""
    file, line = calling_line()
    return ParameterError(
        f"{shown_file(file)}:{line}: {message}" if file else message, parameter=name
    )


def _takes_context(function: Callable[..., Any]) -> bool:
    import inspect

    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a built-in without a signature
        return False
    return False


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
            message = f"parameter {self.name!r} has `separator` and `multiple`: keep one"
            raise mistake(message, self.name)

    def _settle_type(self) -> None:
        given = self._type
        several = self.multiple or self.separator is not None
        self.type = inferred_type(self.default, several=several) if given is None else given
        if self.type not in CONVERTERS:
            message = (
                f"parameter {self.name!r} has the type {given!r}; it can be str, int, float, bool "
                f"or, for any JSON value, JSONType"
            )
            raise mistake(message, self.name)

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
        values: dict[str, Any] = instance.__dict__
        name = self.attribute
        if name in values:
            found: T = values[name]
            return found
        state: BoundTask | None = values.get(STATE)
        if state is not None:
            known: Any = state.constants.get(name, state)
            if known is not state:
                here: T = known  # already: each task asks for it
                return here
        flow: Any = instance
        value: T = flow._asyncflow_parameter(self)  # noqa: SLF001 - made for this very call
        return value

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
        found: object = computed_default(self.default, context, "parameter", self.name)
        return found

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
            return CONVERTERS[self.type](value)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._refusal(value, str(error) if self.type is JSONType else "") from None

    def _refusal(self, value: object, why: str = "") -> ParameterError:
        message = f"parameter {self.name!r} takes {_ARTICLES.get(self.type_name, '')}"
        message += f"{self.type_name}, not {_shown(value)}{f' ({why})' if why else ''}"
        if self.type is JSONType and isinstance(value, str) and isinstance(self.default, list):
            import json  # for an error alone

            like = shortened(json.dumps(self.default), _SHOWN_CHARACTERS)
            message += f": write it like '{like}', or give the Parameter a separator"
        return ParameterError(message, parameter=self.name)


_SHOWN_CHARACTERS: Final = 80  # of a wrong value, in a message
_ARTICLES: Final = {"path": "a ", "str": "a ", "int": "an ", "float": "a ", "bool": "a "}


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
