"""The values that a run's parameters have: as given, else from the environment, else defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.safe_text import shortened
from asyncflow._support.suggestions import did_you_mean
from asyncflow._support.user_name import user_name
from asyncflow.errors import ParameterError
from asyncflow.flow.parameters import ParameterContext, parameters_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from asyncflow.flow.parameters import Parameter

KEPT_CHARACTERS: Final = 200  # of a value, in a run's first event


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
            raise unknown_name(cls, "parameter", name, by_name)
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


def unknown_name(cls: type, kind: str, name: str, known: Mapping[str, object]) -> ParameterError:
    """The error that a flow has no parameter, or no config, of this name."""
    hint = did_you_mean(name, known)
    if not hint:
        hint = f"; it has {', '.join(known)}" if known else "; it has none"
    return ParameterError(f"flow {cls.__name__!r} has no {kind} {name!r}{hint}", parameter=name)


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
    return shortened(str(value), KEPT_CHARACTERS)
