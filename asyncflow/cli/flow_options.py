"""A flow's parameters as options of a command. Values stay text: the flow knows their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow.flow.parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncflow.flow.parameters import Parameter
    from asyncflow.flow.spec import FlowSpec

_PREFIX: Final = "parameter_"  # click keys values by name, and a parameter may be called `store`


def spellings(parameter: Parameter[Any]) -> list[str]:
    """The spellings of the option: `--learning_rate`, and with dashes."""
    return list(dict.fromkeys([f"--{parameter.name}", f"--{parameter.name.replace('_', '-')}"]))


def options_of(flow: type[FlowSpec]) -> list[click.Parameter]:
    """An option for each parameter."""
    return [_option(parameter) for parameter in parameters_of(flow).values()]


def _option(parameter: Parameter[Any]) -> click.Option:
    names = [f"{_PREFIX}{parameter.attribute}", *spellings(parameter)]
    if parameter.type_name == "bool":  # `--debug` alone stands for `--debug true`
        return click.Option(names, type=click.UNPROCESSED, is_flag=False, flag_value="true")
    return click.Option(names, type=click.UNPROCESSED)


def given_parameters(flow: type[FlowSpec], values: Mapping[str, Any]) -> dict[str, str]:
    """The parameters given on the command line, by name."""
    said = {
        parameter.name: values.get(f"{_PREFIX}{attribute}")
        for attribute, parameter in parameters_of(flow).items()
    }
    return {name: text for name, text in said.items() if text is not None}


def clash(flow: type[FlowSpec], taken: Collection[str]) -> str | None:
    """The first parameter whose option the command has already; None if there is none."""
    for parameter in parameters_of(flow).values():
        if any(option in taken for option in spellings(parameter)):
            return parameter.name
    return None


def parameters_section(flow: type[FlowSpec], formatter: click.HelpFormatter) -> None:
    """The parameters with types, help and defaults, as a part of `--help`."""
    rows = [(_usage(parameter), _about(parameter)) for parameter in parameters_of(flow).values()]
    with formatter.section(f"Parameters of {flow.__name__}"):
        if rows:
            formatter.write_dl(rows)
        else:
            formatter.write_text("It has none.")


def _usage(parameter: Parameter[Any]) -> str:
    kind = parameter.type_name.upper()
    if parameter.separator is not None:
        single = kind.removeprefix("LIST OF ")
        kind = f"{single}{parameter.separator}{single}{parameter.separator}…"
    return f"--{parameter.name} {kind}"


def _about(parameter: Parameter[Any]) -> str:
    notes = [*_default(parameter), f"env: {parameter.environment_name}"]
    return f"{parameter.help}  [{'; '.join(notes)}]".strip()


def _default(parameter: Parameter[Any]) -> list[str]:
    if parameter.required:
        return ["required"]
    if not parameter.show_default or parameter.default is None:
        return []
    if callable(parameter.default):
        return ["default: found out when the run starts"]
    if isinstance(parameter.default, list | tuple) and parameter.separator is not None:
        return [f"default: {parameter.separator.join(map(str, parameter.default))}"]
    return [f"default: {parameter.default}"]
