"""Dataclasses and named tuples that are quick to make, beside those of the standard library."""

from __future__ import annotations

import builtins
import copy
import dataclasses
import inspect
import pickle
import sys
import typing
from dataclasses import FrozenInstanceError, field
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow import _quick_classes

QUICK: Any = _quick_classes
STANDARD: Any = SimpleNamespace(dataclass=dataclasses.dataclass, NamedTuple=typing.NamedTuple)


def classes(by: Any) -> Any:
    """The same classes, made by one of the two."""
    dataclass: Any = by.dataclass
    named_tuple: Any = by.NamedTuple

    @dataclass(frozen=True, slots=True)
    class Point:
        """A frozen class with a positional field."""

        x: int
        y: int = 2
        names: list[str] = field(default_factory=list, compare=False)
        hidden: str = field(default="h", repr=False)
        made: int = field(init=False, default_factory=int, compare=False)
        fixed: int = field(init=False, default=7)

        def __str__(self):
            return "a point"

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Near(Point):
        """It has fields of its own after those of its base."""

        of: str  # type: ignore[misc]  # mypy does not see that the decorator makes it keyword-only
        far: bool = False

    @dataclass(slots=True)
    class Changing:
        """It may be changed, so it has no hash."""

        count: int = 0

        def __post_init__(self):
            self.count += 1

    @dataclass(frozen=True, slots=True)
    class Empty:
        """It has nothing."""

    @dataclass(frozen=True, slots=True)
    class Compared:  # noqa: PLW1641 - the dataclass makes its hash, which is what is tested
        """It compares itself, and has the hash of its fields."""

        key: int
        hashed: int = field(default=0, compare=False, hash=True)

        def __eq__(self, other):
            return self.key == other.key

    class Pair(named_tuple):
        """A named tuple with a method."""

        left: int
        right: str = "r"

        def both(self):
            return f"{self.left}{self.right}"

    return Point, Near, Changing, Empty, Pair, Compared


def outcome(name: str, by: Any) -> Any:
    """What a call returns, or its error."""
    try:
        return CALLS[name](classes(by))
    except (TypeError, AttributeError) as error:
        return type(error), str(error)


CALLS: Any = {
    "positional": lambda c: repr(c[0](1, 3, ["a"])),
    "defaults": lambda c: repr(c[0](1)),
    "a factory makes one for each": lambda c: c[0](1).names is c[0](1).names,
    "a factory's value given": lambda c: c[0](1, names=["b"]).names,
    "own method": lambda c: str(c[0](1)),
    "keywords": lambda c: repr(c[1](1, of="z")),
    "missing": lambda c: c[1](1),
    "too many": lambda c: c[0](1, 2, [], "h", 5, 6),
    "unknown": lambda c: c[0](1, z=2),
    "equal": lambda c: (c[0](1) == c[0](1), c[0](1) == c[0](2), c[0](1) == c[1](1, of="z")),
    "equal whatever is not compared": lambda c: c[0](1, names=["a"]) == c[0](1),
    "equal to something else": lambda c: c[0](1) == 1,
    "hash": lambda c: (hash(c[0](1)) == hash(c[0](1, names=["a"])), len({c[0](1), c[0](1)})),
    "no hash": lambda c: hash(c[2]()),
    "after init": lambda c: c[2](4).count,
    "changed": lambda c: setattr(c[2](), "count", 5),
    "set": lambda c: setattr(c[0](1), "x", 5),
    "delete": lambda c: delattr(c[0](1), "x"),
    "replace": lambda c: repr(dataclasses.replace(c[1](1, of="z"), x=4)),
    "as data": lambda c: dataclasses.asdict(c[1](1, of="z")),
    "fields": lambda c: [(f.name, f.type, f.kw_only) for f in dataclasses.fields(c[1])],
    "frozen": lambda c: [each.__dataclass_params__.frozen for each in c[:4]],
    "slots": lambda c: [each.__slots__ for each in c[:4]],
    "pattern": lambda c: [each.__match_args__ for each in c[:4]],
    "signature": lambda c: [str(inspect.signature(each)) for each in c[:4]],
    "hash with an own comparison": lambda c: len({c[5](1), c[5](1)}),
    "copies": lambda c: [copy.copy(c[0](1)) == c[0](1), copy.deepcopy(c[2](1)).count],
    "state": lambda c: c[0](1).__getstate__(),
    "empty": lambda c: (repr(c[3]()), c[3]() == c[3](), hash(c[3]()) == hash(c[3]())),
    "tuple": lambda c: (c[4](1), c[4](1).both(), c[4](left=2, right="x")._replace(left=3)),
    "tuple's fields": lambda c: (c[4]._fields, c[4]._field_defaults, c[4].__module__),
    "tuple without": lambda c: c[4](),
    "tuple's doc": lambda c: c[4].__doc__,
}


@pytest.mark.parametrize("name", CALLS)
def test_as_in_the_standard_library(name) -> None:
    """Each call on classes that are made quickly has the outcome that it has otherwise."""
    assert outcome(name, QUICK) == outcome(name, STANDARD)


@QUICK.dataclass(frozen=True, slots=True)
class Kept:
    """One at the top of a module, which can be pickled."""

    value: int
    more: tuple[int, ...] = ()


class KeptPair(QUICK.NamedTuple):
    """Likewise."""

    value: int


def test_pickles() -> None:
    """What was pickled is what it was."""
    kept: Any = Kept
    values = [kept(1, (2, 3)), KeptPair(4)]
    assert pickle.loads(pickle.dumps(values)) == values


def test_a_subclass_without_the_decorator_is_made_by_its_base() -> None:
    """The first call of a constructor may be on a subclass."""
    point: Any = classes(QUICK)[0]

    class More(point):
        """Nothing of its own."""

    assert (More(1).x, More(2).x, point(3).x) == (1, 2, 3)


def test_asking_for_a_signature_leaves_a_constructor_of_a_subclass_in_place() -> None:
    """That may take other values, and call the constructor of its base."""
    point: Any = classes(QUICK)[0]

    class Far(point):
        """It is far whatever it is given."""

        def __init__(self, distance):
            super().__init__(distance + 100)

    assert str(inspect.signature(Far)) == "(distance)"
    assert Far(1).x == 101


def test_a_frozen_dataclass_of_the_standard_library_can_extend_one() -> None:
    """An application may add fields to a class of ours."""
    point: Any = classes(QUICK)[0]

    @dataclasses.dataclass(frozen=True, slots=True)
    class More(point):
        """One field more."""

        z: int = 3

    assert list(inspect.signature(More).parameters)[-1] == "z"
    assert More(1, z=4).z == 4
    with pytest.raises(FrozenInstanceError):
        More(1).x = 2


def test_making_them_compiles_nothing_for_dataclasses(monkeypatch) -> None:
    """That is what they are for: the first call of a constructor compiles it."""
    compiled = []
    real = builtins.exec

    def counted(*arguments, **named):
        compiled.append(arguments[0])
        return real(*arguments, **named)

    monkeypatch.setattr(builtins, "exec", counted)
    point: Any = classes(QUICK)[0]
    nothing = "def __create_fn__():\n\n return ()"  # what Python 3.13 compiles all the same
    assert {*compiled} <= {nothing}
    compiled.clear()
    point(1)
    point(2)
    assert len(compiled) == 1


# Since Python 3.13, dataclasses compare field by field, and not the tuples of their fields.
@pytest.mark.parametrize("by", [QUICK] if sys.version_info >= (3, 13) else [QUICK, STANDARD])
def test_a_single_field_equals_itself_whatever_it_is(by: Any) -> None:
    """Members of tuples are compared by identity first, so even what never equals itself does."""

    @by.dataclass(slots=True)
    class One:
        """It has a single field."""

        value: object

    one: Any = One

    for value in (float("nan"), [float("nan")]):
        assert one(value) == one(value)
    assert one(float("nan")) != one(float("nan"))
