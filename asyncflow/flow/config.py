"""`Config`: a configuration of a flow, which is read before all else.

    class Training(FlowSpec):
        settings = Config("settings", default="settings.json")
        rate = Parameter("rate", default=settings.optimizer.rate)

        @retry(times=settings.retries)
        @step
        def start(self): ...

Its value is known before the flow's parameters and decorators are, so they may use it: within the
class body `settings.optimizer.rate` is an expression, which is evaluated when the value is known.
`asyncflow.flow.configuration` does that. In a step `self.settings` is the value.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn

from asyncflow._support.call_site import calling_line
from asyncflow._support.notebook import shown_file
from asyncflow._support.safe_text import shortened
from asyncflow._support.user_name import user_name
from asyncflow.errors import ParameterError
from asyncflow.flow.config_parsers import named_function
from asyncflow.flow.config_value import ConfigValue, unwrapped, wrapped
from asyncflow.flow.delayed_values import CONFIG_VALUES, ConfigBase, Expression
from asyncflow.flow.parameter_values import unknown_name
from asyncflow.flow.parameters import (
    RESERVED,
    ParameterContext,
    computed_default,
    mistake,
    raw_parameters_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Config", "ConfigValue", "config_expr"]

VALUES_VARIABLE: Final = "ASYNCFLOW_FLOW_CONFIG_VALUE"
"""The environment variable with values of configurations: a JSON object by name."""
FILES_VARIABLE: Final = "ASYNCFLOW_FLOW_CONFIG"
"""The environment variable with the files of configurations: a JSON object by name."""

_SHOWN_CHARACTERS: Final = 80  # of a wrong value, in a message


@dataclass(frozen=True, slots=True)
class ConfigSpec:
    """What a `Config` was made with."""

    name: str
    default: Any = None
    default_value: Any = None
    help: str = ""
    required: bool = False
    parser: Any = None
    plain: bool = False
    attribute: str = ""


class Config(ConfigBase):
    """A configuration of a flow: a dict from a file or a text, known before the run starts.

    Args:
        name: Its name on the command line and as a keyword; the attribute's name if left out.
        default: The file with the value if none is given, or a function that returns its path.
        default_value: The value if none is given: a dict, a text for the parser, or a function that
            returns one of them. A function takes no argument or a `ParameterContext`.
        help: The text that `--help` shows.
        required: Whether a value must be given; without one, and without a default, it is None.
        parser: A function that makes the value of a text, or its name, as in `"tomllib.loads"`.
            Without one a file that ends in `.toml`, `.yaml` or `.yml` is read as such, and all else
            as JSON.
        plain: Whether the value is whatever the parser returns, and not a `ConfigValue`.

    Within the class body, `config.key` and `config["key"]` are expressions for arguments of
    decorators and for defaults of parameters.
    """

    __slots__ = ("_spec",)
    _spec: ConfigSpec

    def __init__(
        self,
        name: str = "",
        *,
        default: Any = None,
        default_value: Any = None,
        help: str | None = None,  # noqa: A002 - Metaflow's name for it
        required: bool | None = None,
        parser: str | Callable[[str], Any] | None = None,
        plain: bool = False,
    ) -> None:
        """Describe a configuration; nothing is read yet.

        Raises:
            ParameterError: Both `default` and `default_value` are given.
        """
        if default is not None and default_value is not None:
            message = (
                f"the config {name!r} has both `default`, which is a file, and `default_value`: "
                f"leave one out"
            )
            raise mistake(message, name)
        spec = ConfigSpec(
            name, default, default_value, help or "", bool(required), parser, bool(plain)
        )
        object.__setattr__(self, "_spec", spec)

    def __set_name__(self, owner: type[Any], attribute: str) -> None:
        spec = replace(self._spec, attribute=attribute, name=self._spec.name or attribute)
        object.__setattr__(self, "_spec", spec)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return ConfigExpression(self).__getattr__(name)

    def __getitem__(self, key: object) -> Any:
        return ConfigExpression(self)[key]

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None:
            return self
        spec = self._spec
        kept = f"_asyncflow_config_{spec.attribute}"
        values = vars(instance)
        if kept not in values:
            # a copy for each task: lists within it can be changed
            values[kept] = copy.deepcopy(_values_for(owner, spec)[spec.attribute])
        return values[kept]

    def __set__(self, instance: object, value: Never) -> None:
        message = f"the config {self._spec.attribute!r} is read-only: assign to another name"
        raise AttributeError(message)

    def __delete__(self, instance: object) -> None:
        message = f"the config {self._spec.attribute!r} is read-only: it cannot be deleted"
        raise AttributeError(message)

    def __bool__(self) -> bool:
        raise _too_early(self)

    def __iter__(self) -> NoReturn:
        raise _too_early(self)

    def __repr__(self) -> str:
        return f"<Config {self._spec.name}>"


def spec_of(config: ConfigBase) -> ConfigSpec:
    """What a `Config` was made with."""
    assert isinstance(config, Config)  # noqa: S101 - nothing else extends the base class
    return config._spec  # noqa: SLF001 - a public attribute would hide a key of this name


def _values_for(owner: type, spec: ConfigSpec) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = getattr(owner, CONFIG_VALUES, None)
    if found is None:  # an instance without a run, as in a unit test
        found = {spec.attribute: _value_of(owner.__name__, spec, {}, os.environ)}
    return found


# --- expressions ------------------------------------------------------------------------------


class ConfigExpression(Expression):
    """What will be a value of a configuration, once that is known."""

    __slots__ = ("_path", "_place", "_root")

    def __init__(self, root: Config | str, path: tuple[tuple[str, Any], ...] = ()) -> None:
        self._root, self._path = root, path
        self._place = calling_line()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return ConfigExpression(self._root, (*self._path, ("attribute", name)))

    def __getitem__(self, key: object) -> Any:
        return ConfigExpression(self._root, (*self._path, ("item", key)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ConfigExpression(self._root, (*self._path, ("call", (args, kwargs))))

    def evaluate(self, values: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
        """The value, given those of the configurations by attribute and by name.

        Raises:
            ParameterError: It cannot be evaluated.
        """
        try:
            if isinstance(self._root, str):
                value = eval(self._root, {**values, **names})  # noqa: S307 - the expression stands in the flow, which is code of the user
            else:
                value = values[spec_of(self._root).attribute]
            for kind, what in self._path:
                if kind == "attribute":
                    value = getattr(value, what)
                elif kind == "item":
                    value = value[what]
                else:
                    args, kwargs = what
                    value = value(*args, **kwargs)
        except Exception as error:
            file, line = self._place
            said = f"{type(error).__name__}: {error}"
            message = f"{shown_file(file)}:{line}: {self!r} cannot be evaluated: {said}"
            raise ParameterError(message) from error
        return value

    def _refuse(self, *_: object) -> NoReturn:
        raise _too_early(self)

    __bool__ = __iter__ = __len__ = __contains__ = __str__ = __format__ = _refuse
    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __truediv__ = _refuse
    __lt__ = __gt__ = __le__ = __ge__ = __int__ = __float__ = __index__ = _refuse

    def __repr__(self) -> str:
        text = self._root if isinstance(self._root, str) else spec_of(self._root).name
        if isinstance(self._root, str) and self._path:
            text = f"({text})"
        for kind, what in self._path:
            text += f".{what}" if kind == "attribute" else f"[{what!r}]" if kind == "item" else ""
            if kind == "call":
                text += f"({', '.join(map(repr, what[0]))})"
        return text


def config_expr(expression: str) -> Any:
    """An expression of configurations, for arguments of decorators and defaults of parameters.

    `config_expr("settings.times * 2")` is evaluated as Python when the configurations of the flow
    are known. They are in it by their names. Use it for arithmetic, and where a `Config` itself is
    not in reach, as in a decorator of the class.

    Raises:
        ParameterError: It is no expression.
    """
    try:
        compile(expression, "<config_expr>", "eval")
    except (SyntaxError, TypeError, ValueError) as error:
        raise mistake(f"config_expr takes a Python expression, not {expression!r}") from error
    return ConfigExpression(expression)


def _too_early(what: object) -> TypeError:
    message = (
        f"{what!r} has no value before a run is started, only in steps: write what depends on it "
        f'as config_expr("…")'
    )
    return TypeError(message)


# --- values -----------------------------------------------------------------------------------


def configs_of(cls: type) -> dict[str, ConfigSpec]:
    """The configurations of a flow by the names of their attributes.

    Raises:
        ParameterError: Two have the same name, a parameter has it, or it cannot be one.
    """
    found: dict[str, ConfigSpec] = {}
    for base in reversed(cls.__mro__):
        for attribute, value in vars(base).items():
            if isinstance(value, Config):
                found[attribute] = spec_of(value)
            else:
                found.pop(attribute, None)
    names: dict[str, str] = {
        parameter.name: attribute for attribute, parameter in raw_parameters_of(cls).items()
    }
    for attribute, spec in found.items():
        if spec.name in RESERVED or not spec.name.replace("-", "_").isidentifier():
            message = f"a config cannot be called {spec.name!r}: rename it"
            raise ParameterError(message, parameter=spec.name)
        if names.setdefault(spec.name, attribute) != attribute:
            message = (
                f"the attributes {names[spec.name]!r} and {attribute!r} are both called "
                f"{spec.name!r}: rename one"
            )
            raise ParameterError(message, parameter=spec.name)
    return found


def config_names(cls: type) -> list[str]:
    """The names of the configurations that a run of this class can be given."""
    return [] if hasattr(cls, CONFIG_VALUES) else [spec.name for spec in configs_of(cls).values()]


def resolve_configs(
    cls: type, given: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The value of every configuration by attribute.

    It is what is given, else comes from `environ`, else is the default. What is given is a text,
    which is parsed, a path object, whose file is parsed, or the value.

    Raises:
        ParameterError: A configuration is unknown, is missing, or cannot be read.
    """
    specs = configs_of(cls)
    by_name = {spec.name: spec for spec in specs.values()}
    for name in given:
        if name not in by_name:
            raise unknown_name(cls, "config", name, by_name)
    return {
        attribute: _value_of(cls.__name__, spec, given, environ)
        for attribute, spec in specs.items()
    }


def files_by_default(
    cls: type, environ: Mapping[str, str], directory: str
) -> dict[str, os.PathLike[str]]:
    """The files of configurations that are read if nothing is given, relative to a folder."""
    said = {
        name
        for variable in (VALUES_VARIABLE, FILES_VARIABLE)
        for name in _from_environment(environ, variable)
    }
    return {
        spec.name: _Path(os.path.join(directory, spec.default))  # noqa: PTH118 - pathlib loads slowly
        for spec in configs_of(cls).values()
        if isinstance(spec.default, str | os.PathLike)
        and spec.default_value is None
        and spec.name not in said
    }


def _value_of(
    flow: str, spec: ConfigSpec, given: Mapping[str, object], environ: Mapping[str, str]
) -> Any:
    if spec.name in given:
        return _read(spec, given[spec.name], "")
    for variable, is_file in ((VALUES_VARIABLE, False), (FILES_VARIABLE, True)):
        said = _from_environment(environ, variable)
        if spec.name in said:
            value = said[spec.name]
            value = _Path(value) if is_file and isinstance(value, str) else value
            return _read(spec, value, f" (from the environment, {variable})")
    context = ParameterContext(flow, spec.name, user_name())
    for default, is_file in ((spec.default_value, False), (spec.default, True)):
        if default is None:
            continue
        value = computed_default(default, context, "the config", spec.name)
        if value is None:
            continue
        named = is_file and isinstance(value, str | os.PathLike)
        return _read(spec, _Path(value) if named else value, " (its default)")
    if spec.required:
        message = (
            f"the config {spec.name!r} is required: give it as {spec.name}=... or "
            f"--config {spec.name} FILE or --config-value {spec.name} TEXT"
        )
        raise ParameterError(message, parameter=spec.name)
    return None


class _Path:
    """A path that was given as text."""

    __slots__ = ("_path",)

    def __init__(self, path: Any) -> None:
        self._path = os.fspath(path)

    def __fspath__(self) -> str:
        return os.fsdecode(self._path)


file_named = _Path
"""A path object for the name of a file; `pathlib` loads slowly."""


def _from_environment(environ: Mapping[str, str], variable: str) -> Mapping[str, Any]:
    text = environ.get(variable)
    if not text:
        return {}
    import json

    try:
        found = json.loads(text)
    except ValueError as error:
        message = f"the environment variable {variable} holds no JSON: {error}"
        raise ParameterError(message) from None
    if not isinstance(found, dict):
        message = f"the environment variable {variable} holds no JSON object of configs by name"
        raise ParameterError(message)
    return found


def _read(spec: ConfigSpec, value: Any, source: str) -> Any:
    """The value of a text, of a file, or as it is."""
    file = ""
    if isinstance(value, os.PathLike):
        file = os.path.expanduser(os.fsdecode(value))  # noqa: PTH111 - pathlib loads slowly
        value = _text_of(spec, file, source)
    if isinstance(value, str):
        value = _parsed(spec, value, file, source)
    if spec.plain:
        return value
    if isinstance(value, dict):
        return wrapped(value)
    told = f"{_place(spec, file, source)}: it holds {_shown(value)}, and a config is a dict"
    raise ParameterError(f"{told}; plain=True allows any value", parameter=spec.name)


def _shown(value: Any) -> str:
    return shortened(f"{type(value).__name__} {value!r}", _SHOWN_CHARACTERS)


def _place(spec: ConfigSpec, file: str, source: str) -> str:
    return f"the config {spec.name!r}{source}{f': {file}' if file else ''}"


def _text_of(spec: ConfigSpec, file: str, source: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - pathlib loads slowly
            return opened.read()
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except ValueError as error:
        why = f"cannot be read as UTF-8 text: {error}"
    raise ParameterError(f"{_place(spec, file, source)} {why}", parameter=spec.name)


def _parsed(spec: ConfigSpec, text: str, file: str, source: str) -> Any:
    parser = spec.parser or _PARSERS.get(os.path.splitext(file)[1].lower(), "json.loads")  # noqa: PTH122 - pathlib loads slowly
    try:
        return named_function(parser)(text)
    except ParameterError:
        raise
    except Exception as error:
        place, message = _place(spec, file, source), str(error)
        line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
        if line is not None and column is not None:
            place += f":{line}:{column}" if file else f", line {line}, column {column}"
            message = getattr(error, "msg", message)
        form = {"json.loads": "JSON", "tomllib.loads": "TOML"}.get(
            parser if isinstance(parser, str) else "", ""
        )
        told = f"is not {form}" if form else f"is refused by its parser, {type(error).__name__}"
        text = " ".join(message.split())
        raise ParameterError(f"{place}: {told}: {text}", parameter=spec.name) from error


_PARSERS: Final = {
    ".toml": "tomllib.loads",
    ".yaml": "asyncflow.yaml_parser",
    ".yml": "asyncflow.yaml_parser",
}
"""How files are read that have this ending, if no parser is given."""


def storable(value: Any) -> Any:
    """The value as it is kept with the run: plain dicts."""
    return unwrapped(value)


def restored(spec: ConfigSpec, value: Any) -> Any:
    """The value that was kept with a run, as the flow sees it."""
    return value if spec.plain else wrapped(value)
