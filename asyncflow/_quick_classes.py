"""Dataclasses and named tuples that are quick to make: a run makes more than a hundred of them.

`dataclasses.dataclass` compiles six methods for each class, and `typing.NamedTuple` compiles each
annotation. Both take longer than the rest of a module's import, and most of those methods are never
called. Here an `__init__` is compiled when it is first called, the other methods of dataclasses are
written by hand, and annotations stay text. Everything else is as in the standard library; what is
made is a dataclass for `fields`, `replace` and `asdict`, and a `collections.namedtuple`.

Type checkers are told that these are the names of the standard library. So they are, too, with
versions of Python on which the ones here have not been tested.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NamedTuple", "dataclass"]

# --- dataclasses --------------------------------------------------------------------------------


def _dataclass(
    *,
    frozen: bool = False,
    slots: bool = True,
    kw_only: bool = False,
    init: bool = True,
    repr: bool = True,  # noqa: A002 - `dataclasses.dataclass` calls it so
    eq: bool = True,
) -> Callable[[type], type]:
    """Make a class a dataclass, as `dataclasses.dataclass` does; it always has slots."""
    assert slots  # noqa: S101 - no class without is made here

    def made(cls: type) -> type:
        own = set(vars(cls))
        if "__eq__" in own and vars(cls).get("__hash__") is None:
            own.discard("__hash__")  # Python has set it, not the class
        parts = _with_fields(cls, kw_only=kw_only, frozen=frozen)
        methods: dict[str, Any] = {"__replace__": _replace}
        if init:
            methods |= {"__init__": _first_init(parts), "__signature__": _Signature()}
        if repr:
            methods["__repr__"] = _repr
        if eq:
            fields = dataclasses.fields(parts)
            compared = [each for each in fields if each.compare]
            hashed = [each for each in fields if (each.compare if each.hash is None else each.hash)]
            methods |= {"__eq__": _eq(compared), "__hash__": _hash(hashed) if frozen else None}
        if frozen:
            methods |= {
                "__setattr__": _refuse_to_set,
                "__delattr__": _refuse_to_delete,
                "__getstate__": _getstate,
                "__setstate__": _setstate,
            }
        for name, method in methods.items():
            if name not in own:
                setattr(parts, name, method)
        made_class: type = parts
        return made_class

    return made


def _with_fields(cls: type, *, kw_only: bool, frozen: bool) -> Any:
    """The class with its fields and slots, and no methods yet."""
    above = [
        vars(base)["__dataclass_params__"]
        for base in cls.__mro__[1:]
        if "__dataclass_params__" in vars(base)
    ]
    for parameters in above:  # else this class would have to be frozen from the beginning
        parameters.frozen = False
    make: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)
    parts: Any = make(cls)
    for parameters in (*above, parts.__dataclass_params__):
        parameters.frozen = frozen
    return parts


class _MadeByFactory:
    """The default of a parameter whose field has a factory; signatures show it."""

    def __repr__(self) -> str:
        return "<factory>"


_MADE_BY_FACTORY: Final = _MadeByFactory()


def _first_init(cls: type) -> Callable[..., None]:
    """An `__init__` that compiles the real one, puts it in its own place, and calls it."""

    def __init__(self: object, /, *values: object, **named: object) -> None:  # noqa: N807 - tracebacks show this name
        _compiled_init(cls)(self, *values, **named)

    return __init__


def _compiled_init(cls: Any) -> Callable[..., None]:
    """Compile and install the `__init__` of a class."""
    fields = [each for each in dataclasses.fields(cls) if each.init]
    known: dict[str, Any] = {"_MISSING": _MADE_BY_FACTORY}
    parameters = [_parameter(each, known) for each in fields if not each.kw_only]
    named = [_parameter(each, known) for each in fields if each.kw_only]
    if named:
        parameters += ["*", *named]
    lines = [f"def __init__({', '.join(['self', *parameters])}):", "    pass"]
    for each in dataclasses.fields(cls):
        value = each.name
        if each.default_factory is not MISSING:
            known[f"_make_{value}"] = each.default_factory
            fresh = f"_make_{value}()"
            value = f"{fresh} if {value} is _MISSING else {value}" if each.init else fresh
        elif not each.init and each.default is MISSING:
            continue  # `__post_init__` sets it
        elif not each.init:
            known[value := f"_default_{value}"] = each.default
        known[f"_set_{each.name}"] = getattr(cls, each.name).__set__  # its slot
        lines.append(f"    _set_{each.name}(self, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    exec("\n".join(lines), known)  # noqa: S102 - nothing but names of fields stands in it
    compiled: Callable[..., None] = known["__init__"]
    compiled.__qualname__ = f"{cls.__qualname__}.__init__"
    compiled.__module__ = cls.__module__
    compiled.__annotations__ = {each.name: each.type for each in fields} | {"return": None}
    cls.__init__ = compiled
    return compiled


def _parameter(field: dataclasses.Field[Any], known: dict[str, Any]) -> str:
    """A field as a parameter of `__init__`; its default is among what is `known` there."""
    if field.default_factory is not MISSING:
        return f"{field.name}=_MISSING"
    if field.default is MISSING:
        return field.name
    known[f"_default_{field.name}"] = field.default
    return f"{field.name}=_default_{field.name}"


_FIRST_INIT: Final = _first_init(object).__code__


class _Signature:
    """The signature of a dataclass whose `__init__` may not be compiled yet."""

    def __get__(self, instance: object, owner: type) -> object:
        import inspect

        init: Any = owner.__init__  # type: ignore[misc]  # it is read from the class, never from an instance
        if getattr(init, "__code__", None) is _FIRST_INIT:  # else it is that of a subclass
            (cell,) = init.__closure__
            init = _compiled_init(cell.cell_contents)
        signature = inspect.signature(init)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (each.name for each in dataclasses.fields(self) if each.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"


def _key(fields: list[dataclasses.Field[Any]]) -> Callable[[Any], Any]:
    names = [each.name for each in fields]
    if len(names) == 1:
        (name,) = names
        return lambda self: (getattr(self, name),)  # tuples ask for identity before equality
    return attrgetter(*names) if names else lambda _: ()


def _eq(fields: list[dataclasses.Field[Any]]) -> Callable[[Any, Any], Any]:
    key = _key(fields)

    def __eq__(self: object, other: object) -> Any:  # noqa: N807 - tracebacks show this name
        if other.__class__ is not self.__class__:
            return NotImplemented
        return key(self) == key(other)

    return __eq__


def _hash(fields: list[dataclasses.Field[Any]]) -> Callable[[Any], int]:
    key = _key(fields)

    def __hash__(self: object) -> int:  # noqa: N807 - tracebacks show this name
        return hash(key(self))

    return __hash__


def _refuse_to_set(self: object, name: str, value: object) -> None:  # noqa: ARG001 - Python hands all three over
    message = f"cannot assign to field {name!r}"
    raise FrozenInstanceError(message)


def _refuse_to_delete(self: object, name: str) -> None:  # noqa: ARG001 - Python hands both over
    message = f"cannot delete field {name!r}"
    raise FrozenInstanceError(message)


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=False):
        object.__setattr__(self, each.name, value)


def _replace(self: Any, /, **changes: Any) -> Any:
    return dataclasses.replace(self, **changes)


# --- named tuples -------------------------------------------------------------------------------

_NOT_COPIED: Final = frozenset({"__annotations__", "__module__", "__name__", "__qualname__"})


class _NamedTupleMeta(type):
    """Makes a `collections.namedtuple` of a class body."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        annotations = body.get("__annotations__", {})
        defaults = [body[field] for field in annotations if field in body]
        make: Any = collections.namedtuple  # noqa: PYI024 - `typing.NamedTuple` is what is replaced here
        made = make(name, annotations, defaults=defaults, module=body["__module__"])
        made.__annotations__ = made.__new__.__annotations__ = annotations
        for key, value in body.items():
            if key not in annotations and key not in _NOT_COPIED:
                setattr(made, key, value)
        return made


class _NamedTuple(metaclass=_NamedTupleMeta):
    """The base class of named tuples."""


if TYPE_CHECKING or sys.version_info >= (3, 14):  # later versions keep annotations elsewhere
    from dataclasses import dataclass
    from typing import NamedTuple
else:
    dataclass = _dataclass
    NamedTuple = _NamedTuple
