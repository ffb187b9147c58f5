"""Values that are not known before a flow is configured, because they depend on a `Config`.

`asyncflow.flow.config` has what such values are made of. Few flows need that module, so the base
classes are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_VALUES: Final = "__asyncflow_configs__"
"""The attribute of a configured flow that has the values of its configurations."""
WRITTEN_CLASS: Final = "__asyncflow_written__"
"""The attribute of a configured flow that has the class as its author wrote it."""


class Expression:
    """What `asyncflow.flow.config` has to evaluate."""

    __slots__ = ()

    def evaluate(self, values: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
        """The value, given those of the flow's configurations by attribute and by name."""
        raise NotImplementedError


class ConfigBase:
    """The base class of `Config` alone."""

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
