"""Makes a class that extends a flow and looks like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Silent:
    """Keeps the user's `__init_subclass__` from being called for such a class."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        pass


def lookalike(cls: Any, attributes: Mapping[str, Any]) -> Any:
    """A subclass with the flow's own name, module and docstring, and with these attributes."""
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        **attributes,
    }
    bases = (cls,) if issubclass(cls, _Silent) else (_Silent, cls)
    return type(cls)(cls.__name__, bases, namespace)
