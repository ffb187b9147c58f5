"""Configures a flow: evaluates what its decorators and parameters say about its configurations.

A configured flow is a class that extends the flow and looks like it. It has the values of the
configurations, the steps whose decorators use them, and the parameters whose defaults do. So two
runs of one flow with other configurations are runs of two classes, beside each other. The engine
makes it when a run starts, and each worker when it opens the run, from the values that are kept
with the run.
"""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.config import configs_of, resolve_configs, restored, storable
from asyncflow.flow.delayed_values import CONFIG_VALUES, WRITTEN_CLASS, evaluated, has_expression
from asyncflow.flow.flow_decorators import delayed_of
from asyncflow.flow.lookalike import lookalike
from asyncflow.flow.mutators import copy_of_step
from asyncflow.flow.parameters import raw_parameters_of
from asyncflow.flow.step_options import is_step, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEPT: Final = 32  # configured classes: an application has a handful of flows and configurations

_configured: OrderedDict[tuple[type, bytes], type] = OrderedDict()
_lock = threading.RLock()  # runs are made in several threads


def configure(cls: type, values: Mapping[str, Any]) -> type:
    """The flow with these values of its configurations, by attribute.

    Raises:
        ParameterError: An expression cannot be evaluated.
        FlowError: A decorator does not take the value of one.
    """
    key = None
    with suppress(Exception):  # a parser may make anything; storing it will say why it cannot be
        key = cls, pickle.dumps(storable(dict(values)))
    with _lock:
        if key is not None and key in _configured:
            _configured.move_to_end(key)
            return _configured[key]
        made = _made(cls, values)
        if key is not None:
            _configured[key] = made
            if len(_configured) > _KEPT:
                _configured.popitem(last=False)
    return made


def configured_with(cls: type, given: Mapping[str, object], environ: Mapping[str, str]) -> type:
    """The flow with its configurations as given, else from `environ`, else their defaults.

    Raises:
        ParameterError: A configuration is unknown, is missing, or cannot be read.
        FlowError: A decorator does not take the value of an expression.
    """
    return configure(cls, resolve_configs(cls, given, environ))


def configured_from(
    cls: type, load: Callable[[str], Any], known: Mapping[str, Any], environ: Mapping[str, str]
) -> type:
    """The flow as a run has it that keeps the values of configurations in `known`.

    `load` reads one of them. A configuration that is new since then has its default.

    Raises:
        ParameterError: A new configuration has no value.
        ArtifactError: A value cannot be read.
    """
    specs = configs_of(cls)
    values = {
        attribute: restored(spec, load(attribute))
        for attribute, spec in specs.items()
        if attribute in known
    }
    if len(values) < len(specs):
        given = {specs[attribute].name: storable(value) for attribute, value in values.items()}
        values = resolve_configs(cls, given, environ) | values
    return configure(cls, values)


def config_values_of(cls: type) -> dict[str, Any]:
    """The values of the configurations of a configured flow, by attribute."""
    return dict(getattr(cls, CONFIG_VALUES, {}))


def stored_configs_of(cls: type) -> dict[str, Any]:
    """The same values as they are kept with a run."""
    return {name: storable(value) for name, value in config_values_of(cls).items()}


def _made(cls: Any, values: Mapping[str, Any]) -> type:
    names = {spec.name: values[attribute] for attribute, spec in configs_of(cls).items()}

    def evaluate(value: Any) -> Any:
        return evaluated(value, values, names)

    attributes: dict[str, Any] = {
        CONFIG_VALUES: dict(values),
        WRITTEN_CLASS: getattr(cls, WRITTEN_CLASS, cls),
    }
    for name, parameter in raw_parameters_of(cls).items():
        if parameter.is_delayed:
            attributes[name] = parameter.evaluated(lambda value: storable(evaluate(value)))
    made: type = lookalike(cls, attributes)
    for name in dir(cls):
        method = getattr(cls, name, None)
        if is_step(method) and _is_delayed(method):
            setattr(made, name, _evaluated_step(method, evaluate))
    for decorator, args, kwargs in delayed_of(cls):
        decorator(*evaluate(args), **evaluate(kwargs))(made)
    return made


def _is_delayed(method: Any) -> bool:
    options = options_of(method)
    if options is None:
        return False
    own = [*options.own, *options.mutators]
    return bool(options.delayed) or any(has_expression((each.args, each.kwargs)) for each in own)


def _evaluated_step(method: Any, evaluate: Callable[[Any], Any]) -> Any:
    made = copy_of_step(method)
    options = options_of(made)
    assert options is not None  # noqa: S101 - it is a step
    for place in (options.own, options.mutators):
        place[:] = [each.evaluated(evaluate) for each in place]
    delayed, options.delayed = options.delayed, []
    for decorator, args, kwargs in delayed:
        decorator(*evaluate(args), **evaluate(kwargs))(made)
    return made
