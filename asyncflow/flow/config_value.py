"""`ConfigValue`: the value of a `Config`, a dict that cannot be changed and has dotted access."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn


class ConfigValue(dict[Any, Any]):
    """A dict that cannot be changed: `value.a.b` is `value["a"]["b"]`.

    Dicts within it, also those in lists, are of this type, too. A key that is the name of a method
    of dicts, such as `items`, is reached as an item only.
    """

    __slots__ = ()

    def __init__(self, data: Any = (), /, **more: Any) -> None:
        super().__init__({key: wrapped(each) for key, each in dict(data, **more).items()})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            message = f"the configuration has no {name!r}; it has {', '.join(map(str, self))}"
            raise AttributeError(message, name=name) from None

    def to_dict(self) -> dict[Any, Any]:
        """The same as plain dicts, all the way down; a copy."""
        return {key: unwrapped(each) for key, each in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return ConfigValue, (self.to_dict(),)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("ConfigValue is immutable: change a copy of it, as to_dict() makes one")

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = _refuse
    __ior__ = clear = pop = popitem = setdefault = update = _refuse


def wrapped(value: Any) -> Any:
    """The value with each dict in it as a `ConfigValue`, and with lists of its own."""
    if isinstance(value, Mapping):
        return ConfigValue(value)
    if type(value) in (list, tuple):
        return type(value)(wrapped(each) for each in value)
    return value


def unwrapped(value: Any) -> Any:
    """The value with each `ConfigValue` in it as a plain dict."""
    if isinstance(value, ConfigValue):
        return value.to_dict()
    if type(value) in (list, tuple):
        return type(value)(unwrapped(each) for each in value)
    if type(value) is dict:
        return {key: unwrapped(each) for key, each in value.items()}
    return value
