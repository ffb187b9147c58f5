"""What a flow says of its parameters, as plain data: enough to make a form without its class."""

from __future__ import annotations

from ast import literal_eval
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.safe_text import shortened
from asyncflow.flow.parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.flow.parameters import Parameter
    from asyncflow.flow.spec import FlowSpec

_MOST_DOC: Final = 2_000  # characters
_MOST_HELP: Final = 500
_MOST_DEFAULT: Final = 1_000
_MOST_PARAMETERS: Final = 200


def signature_of(flow: type[FlowSpec]) -> dict[str, Any]:
    """The flow's docstring, and for each parameter its type, default, help and how it is given.

    Raises:
        ParameterError: A parameter of the class is wrong.
    """
    found = islice(parameters_of(flow).values(), _MOST_PARAMETERS)
    doc = flow.__doc__ if isinstance(flow.__doc__, str) else ""
    return {
        "doc": shortened(doc.strip(), _MOST_DOC),
        "parameters": {each.name: _declared(each) for each in found},
    }


def _declared(parameter: Parameter[Any]) -> dict[str, Any]:
    default = parameter.default
    is_known = not (default is None or callable(default) or parameter.is_delayed)
    declared = {
        "type": parameter.type_name,
        "required": bool(parameter.required),
        "help": shortened(str(parameter.help or ""), _MOST_HELP),
        "multiple": bool(parameter.multiple),
        "separator": None if parameter.separator is None else str(parameter.separator),
    }
    text = given_as(default, declared) if is_known else None
    return {**declared, "default": text if text is None or len(text) <= _MOST_DEFAULT else None}


def given_as(value: object, declared: Mapping[str, Any]) -> str | None:
    """A value as the text by which it is given; None if there is none."""
    separator = declared.get("separator")
    if declared.get("multiple") or separator is not None:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            return value if isinstance(value, str) else None
        return (" " if separator is None else str(separator)).join(map(str, value))
    if declared.get("type") == "JSON" and not isinstance(value, str):
        import json  # most flows have no such parameter

        with suppress(TypeError, ValueError, RecursionError):
            return json.dumps(value)
        return None
    return str(value)


def given_again(shown: str, declared: Mapping[str, Any]) -> str | None:
    """The text by which a value is given that a run's first event shows like this."""
    if declared.get("type") != "JSON" and not (
        declared.get("multiple") or declared.get("separator") is not None
    ):
        return shown
    try:
        value = literal_eval(shown)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return given_as(value, declared)
