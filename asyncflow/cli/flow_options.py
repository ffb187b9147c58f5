"""A flow's parameters as options of a command. Values stay text: the flow knows their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow.cli.metaflow_options import Accepted
from asyncflow.flow.delayed_values import has_configs
from asyncflow.flow.flow_decorators import flow_options_of
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
    if parameter.multiple:
        return click.Option(names, type=click.UNPROCESSED, multiple=True)
    return click.Option(names, type=click.UNPROCESSED)


def given_parameters(flow: type[FlowSpec], values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters given on the command line, by name."""
    said = {
        parameter.name: values.get(f"{_PREFIX}{attribute}")
        for attribute, parameter in parameters_of(flow).items()
    }
    return {name: text for name, text in said.items() if text is not None and text != ()}


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
    if has_configs(flow):
        _configs_section(flow, formatter)
    if "project" in flow_options_of(flow):
        with formatter.section("Its @project"):
            formatter.write_dl(
                [
                    ("--branch NAME", "The branch of the run; by default that of the user."),
                    ("--production", "Make it a run of production."),
                ]
            )


# --- configurations and the project -----------------------------------------------------------


CONFIG_OPTIONS: Final = ("config_files", "config_values")
"""The names of the options that give configurations; only flows that have some take them."""


def run_choices() -> list[click.Option]:
    """Options about configurations and the project, before and behind the command."""
    pair = {"nargs": 2, "multiple": True, "metavar": "NAME FILE"}
    value = {**pair, "metavar": "NAME TEXT"}
    return [
        Accepted(["--config", CONFIG_OPTIONS[0]], **pair),
        Accepted(["--config-value", CONFIG_OPTIONS[1]], **value),
        Accepted(["--branch"]),
        Accepted(["--production"], is_flag=True, default=None),
    ]


def given_configs(*places: Mapping[str, Any]) -> dict[str, object]:
    """The configurations that the options in these places give, by name: texts, or files."""
    if not any(values.get(name) for values in places for name in CONFIG_OPTIONS):
        return {}
    from asyncflow.flow.config import file_named

    given: dict[str, object] = {}
    for values in places:
        files, texts = (values.get(name) or () for name in CONFIG_OPTIONS)
        for name, value in [*((name, file_named(path)) for name, path in files), *texts]:
            if name in given:
                raise click.UsageError(f"the config {name!r} is given twice: leave one out")
            given[name] = value
    return given


def _configs_section(flow: type[FlowSpec], formatter: click.HelpFormatter) -> None:
    from asyncflow.flow.config import configs_of

    rows = []
    for spec in configs_of(flow).values():
        notes = ["required"] if spec.required else []
        if isinstance(spec.default, str):
            notes = [f"default: the file {spec.default}"]
        elif spec.default_value is not None and not callable(spec.default_value):
            notes = [f"default: {spec.default_value}"]
        told = f"  [{'; '.join(notes)}]" if notes else ""
        rows.append((spec.name, f"{spec.help}{told}".strip()))
    with formatter.section(
        f"Configs of {flow.__name__}, --config NAME FILE, --config-value NAME TEXT"
    ):
        formatter.write_dl(rows)


def _usage(parameter: Parameter[Any]) -> str:
    kind = parameter.type_name.upper()
    if parameter.separator is not None:
        single = kind.removeprefix("LIST OF ")
        kind = f"{single}{parameter.separator}{single}{parameter.separator}…"
    if parameter.multiple:
        kind = f"{kind.removeprefix('TUPLE OF ')}, repeatable"
    return f"--{parameter.name} {kind}"


def _about(parameter: Parameter[Any]) -> str:
    notes = [*_default(parameter), f"env: {parameter.environment_name}"]
    return f"{parameter.help}  [{'; '.join(notes)}]".strip()


def _default(parameter: Parameter[Any]) -> list[str]:
    default = parameter.default
    if parameter.required:
        return ["required"]
    if not parameter.show_default or default is None:
        return []
    if callable(default) and not parameter.is_delayed:
        return ["default: found out when the run starts"]
    if isinstance(default, list | tuple) and (parameter.multiple or parameter.separator):
        return [f"default: {(parameter.separator or ' ').join(map(str, default))}"]
    return [f"default: {default!r}" if parameter.is_delayed else f"default: {default}"]
