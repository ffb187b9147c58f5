"""`@secrets`: environment variables of a step whose values come from elsewhere.

    @secrets(sources=["file./run/secrets/database.env"])

The engine reads the sources when a run starts, and hands the values to the workers, as those of
`@environment`. They are never written to the store. The graph has the types and ids of the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import FlowError
from asyncflow.flow.decorator_arguments import is_storable, is_variable_name, mistake
from asyncflow.flow.step_options import ensure_options, record, takes_configs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncflow.flow.step_options import Method, StepOptions

ENTRY_POINTS: Final = "asyncflow.secrets"
"""The group of entry points that give further types of sources."""


@takes_configs
def secrets(
    *,
    sources: Iterable[str | Mapping[str, Any]] = (),
    role: str | None = None,
    allow_override: bool = False,
) -> Callable[[Method], Method]:
    """Set environment variables while a task of the step runs, with values from these sources.

    A source is text, `TYPE.ID`, or a dict with `type`, `id` and `options`. These types are there:

    - `environment`: the variable of the program that `id` names. The option `env_vars` instead
      names several, each under the name that the step gets it as.
    - `file`: the file that `id` names, with a line `NAME=value` for each variable, or with a JSON
      object if its name ends with `.json`. With the option `env_var`, all its text is the value of
      that variable.
    - `inline`: the option `env_vars` has the values, which stand in the flow's file then.
    - Any other type is an entry point of the group `asyncflow.secrets`: a function of `id`,
      `options` and `role` that returns a dict of variables.

    Like `@environment`, it needs `@isolate` on an `async def` step.

    Args:
        sources: Where the values come from.
        role: Passed on to functions of entry points.
        allow_override: Whether a value may replace a variable of the program, of `@environment` or
            of another source; else that is refused before the run.

    Raises:
        FlowError: A source has another form.
    """
    found = [_parsed(each) for each in sources]
    if not found:
        message = '@secrets takes sources, as in @secrets(sources=["environment.PASSWORD"])'
        raise mistake(message)

    def decorate(function: Method) -> Method:
        shown = [{"type": each["type"], "id": each["id"]} for each in found]
        record("secrets", shown)(function)
        options = ensure_options(function, "secrets")
        options.secrets = [{**each, "role": each["role"] or role} for each in found]
        options.secrets_override = bool(allow_override)
        return function

    return decorate


def _parsed(source: Any) -> dict[str, Any]:
    if isinstance(source, str):
        kind, dot, name = source.partition(".")
        if not (kind and dot and name):
            raise mistake("a source of @secrets is written TYPE.ID, as in environment.PASSWORD")
        return {"type": kind, "id": name, "options": {}, "role": None}
    if not (isinstance(source, Mapping) and isinstance(source.get("type"), str)):
        raise mistake("a source of @secrets is text, TYPE.ID, or a dict with `type` and `id`")
    options = source.get("options") or {}
    if not isinstance(options, Mapping):
        raise mistake("the `options` of a source of @secrets are a dict")
    return {
        "type": source["type"],
        "id": str(source.get("id") or ""),
        "options": dict(options),
        "role": source.get("role"),
    }


def secret_variables(step: str, options: StepOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a step's secrets; its sources are read now.

    Raises:
        FlowError: A source cannot be read, or its variables are there already. No message has a
            value.
    """
    found: dict[str, str] = {}
    for source in options.secrets:
        where = f"the secret {source['type']}.{source['id']} of step {step!r}"
        for name, value in _read(where, source, environ).items():
            if not is_variable_name(name):
                raise FlowError(f"{where} gives a variable whose name cannot be used", step=step)
            if not isinstance(value, str) or not is_storable(value):
                message = f"{where} gives {name} a value that is no text for a variable"
                raise FlowError(message, step=step)
            known = {**environ, **options.variables, **found}.get(name)
            if known not in {None, value} and not options.secrets_override:
                message = (
                    f"{where} gives a variable {name}, which is there already with another value: "
                    "write allow_override=True if it is to be replaced"
                )
                raise FlowError(message, step=step)
            found[name] = value
    return found


def _read(where: str, source: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[Any, Any]:
    kind, name, options = source["type"], source["id"], source["options"]
    read = {"inline": _of_flow, "environment": _of_environment, "file": _of_file}.get(kind)
    if read is not None:
        return read(where, name, options, environ)
    from importlib.metadata import entry_points

    for each in entry_points(group=ENTRY_POINTS, name=kind):
        try:
            given = each.load()(name, options, source["role"])
        except Exception as error:  # noqa: BLE001 - whatever the provider raises
            # not its message, which may have a value
            message = f"{where} cannot be read: its provider raised {type(error).__name__}"
            raise FlowError(message) from None
        if isinstance(given, Mapping):
            return given
        raise FlowError(f"{where} cannot be read: its provider returns no dict")
    message = (
        f"{where} has an unknown type: there are environment, file, inline, and entry points of "
        f"the group {ENTRY_POINTS}"
    )
    raise FlowError(message)


def _of_flow(
    where: str, _name: str, options: Mapping[str, Any], _: Mapping[str, str]
) -> Mapping[Any, Any]:
    given = options.get("env_vars")
    if not isinstance(given, Mapping):
        raise FlowError(f"{where} has no option `env_vars`, a dict of variables")
    return given


def _of_environment(
    where: str, name: str, options: Mapping[str, Any], environ: Mapping[str, str]
) -> Mapping[Any, Any]:
    wanted = options.get("env_vars") or {name: name}
    missing = [str(each) for each in wanted.values() if each not in environ]
    if missing:
        message = f"{where} is not there: the program has no environment variable {missing[0]}"
        raise FlowError(message)
    return {each: environ[of] for each, of in wanted.items()}


def _of_file(
    where: str, name: str, options: Mapping[str, Any], _: Mapping[str, str]
) -> Mapping[Any, Any]:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise FlowError(f"{where} cannot be read: {why}") from None
    if "env_var" in options:
        return {options["env_var"]: text.rstrip("\r\n")}
    if not name.endswith(".json"):
        return _of_lines(where, text)
    import json

    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise FlowError(f"{where} cannot be read: it is no JSON object") from None
    return {
        each: value if isinstance(value, str) else json.dumps(value)
        for each, value in given.items()
    }


def _of_lines(where: str, text: str) -> dict[str, str]:
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removeprefix("export ").partition("=")
        if not equals:
            raise FlowError(f"{where} cannot be read: line {number} is not of the form NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name.strip()] = value
    return found
