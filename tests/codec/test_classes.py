from __future__ import annotations

import importlib.util
import operator
import os
import pickle
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from asyncflow import codec
from asyncflow.codec import classes
from asyncflow.codec.items import TRAILER_BYTES, DamagedError, Trailer
from asyncflow.errors import ArtifactPickleError
from asyncflow.values import Encoding
from tests.support.items import encode_items

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOW_FILE = """
import abc
import enum
import threading
from collections import namedtuple
from dataclasses import dataclass, field, make_dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
LOCK = threading.Lock()
TABLE = [0] * 2_000_000

@dataclass
class Point:
    x: int
    y: int = 0

    def moved(self) -> "Point":
        return Point(self.x + 1, self.y)

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

class Level(enum.IntEnum):
    LOW = 1

class Pair(NamedTuple):
    a: int
    b: str = "b"

class BadThing(Exception):
    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code
    def __reduce__(self):
        return BadThing, (self.code,)

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    def __init__(self, side):
        self.side = side
    def area(self):
        return self.side ** 2
    def grown(self):
        return super().__class__ and type(self)(self.side + 1)

class Box(Generic[T]):
    def __init__(self, value: T):
        self.value = value

class Chicken:
    def child(self):
        return Egg()

class Egg:
    def child(self):
        return Chicken()

class Outer:
    class Inner:
        value = 7

class Locking:
    def run(self):
        with LOCK:
            return 1

class Heavy:
    def look(self):
        return TABLE[0]

class Slots:
    __slots__ = ("a",)
    def __init__(self, a):
        self.a = a

def double(x):
    return 2 * x

def quadruple(x):
    return double(double(x))

def local():
    class Local:
        value = 5
    return Local()

add = lambda x: Point(x)

Hue = enum.Enum("OtherHue", "WARM COLD")
Place = namedtuple("OtherPlace", "x y")
Record = make_dataclass("OtherRecord", [("key", int)])
Kept = type(local())

class Namespace:
    Kind = enum.Enum("OtherKind", "ONE")

def kind(number):
    class Kind:
        value = number
    return Kind

class First(kind(1)): pass
class Second(kind(2)): pass
"""

RENAMED = ["Hue", "Place", "Record", "Kept", "Namespace.Kind"]
"""What the file has under another name than its own."""


def import_file(path: Path, name: str) -> types.ModuleType:
    """Run a file as a module of that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def forget() -> Iterator[None]:
    """Leave neither modules nor registrations behind."""
    modules, registered = set(sys.modules), dict(codec.by_value_modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    codec.by_value_modules.clear()
    codec.by_value_modules.update(registered)


@pytest.fixture
def flow(tmp_path: Path, forget: None) -> Any:
    """The module of a flow's file, registered as a worker does it."""
    path = tmp_path / "shapes_flow.py"
    path.write_text(FLOW_FILE)
    module = import_file(path, "shapes_flow")
    codec.pickle_by_value("shapes_flow")
    return module


def stored(value: object) -> bytes:
    """A value's bytes."""
    encoded = codec.encode(value, name="it")
    assert encoded.encoding is Encoding.PICKLE
    return b"".join(encoded.chunks)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Any:
    """Evaluate expressions over decoded values in a process that does not know the flow's file."""

    def run(encoded: list[bytes], *expressions: str, before: str = "") -> list[str]:
        (tmp_path / "values").write_bytes(pickle.dumps(encoded))
        script = f"""
            import pickle, sys
            sys.path = [entry for entry in sys.path if entry]  # not the folder of the script
            from asyncflow import codec
            {before}
            v = [codec.decode(0, each) for each in pickle.load(open("values", "rb"))]
            assert "shapes_flow" not in sys.modules or {bool(before)}
            """
        script = textwrap.dedent(script) + "".join(f"print(({each}))\n" for each in expressions)
        path = tmp_path / "elsewhere.py"
        path.write_text(script)
        done = subprocess.run(
            [sys.executable, "-P", path],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_no_flipped_byte_of_the_code_of_a_lists_items_is_unpickled(flow, monkeypatch):
    """It is code that would run."""
    data = b"".join(encode_items([flow.Point(1), flow.Square(2)]).chunks)
    trailer = Trailer.parse(data[-TRAILER_BYTES:], len(data))
    section = slice(trailer.code, trailer.code + trailer.code_size)
    assert b"Square" in data[section]
    trailer.adopt_code(data[section])
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("it was unpickled"))
    for at in range(trailer.code, section.stop):
        damaged = bytearray(data)
        damaged[at] ^= 1 + at % 255
        with pytest.raises(DamagedError, match="the code of the items' classes"):
            trailer.adopt_code(damaged[section])
        with pytest.raises(DamagedError, match="the code of the items' classes"):
            codec.decode(Encoding.ITEMS, damaged)


# --- where the file is imported ---------------------------------------------------------------


def test_a_class_of_the_flow_file_stays_the_same_class(flow):
    """What is read where the file is imported is an instance of the very class there."""
    values = [
        flow.Point(1, 2),
        flow.Colour.RED,
        flow.Level.LOW,
        flow.Pair(1),
        flow.Square(3),
        flow.Box([1]),
        flow.Outer.Inner(),
        flow.Slots(1),
        flow.Locking(),
        flow.Heavy(),
    ]
    for value, back in zip(values, codec.decode(0, stored(values)), strict=True):
        assert type(back) is type(value)
    assert codec.decode(0, stored(flow.Colour.BLUE)) is flow.Colour.BLUE
    assert codec.decode(0, stored(flow.Point)) is flow.Point
    assert codec.decode(0, stored(flow.double)) is flow.double
    generic = types.GenericAlias(list, flow.Point)
    assert codec.decode(0, stored(generic)) == generic
    error = codec.decode(0, stored(flow.BadThing(5)))
    assert (type(error), error.code) == (flow.BadThing, 5)


def test_the_same_file_under_another_name_counts_as_the_same(flow):
    """The program calls its file `__main__`, a worker something else: they share its classes."""
    data = stored(flow.Point(1))
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    module = import_file(Path(flow.__file__), "__asyncflow_alias__")
    codec.pickle_by_value("__asyncflow_alias__")
    assert type(codec.decode(0, data)) is module.Point


def test_a_file_that_has_moved_counts_as_the_same(flow, tmp_path):
    """A run of a project that was renamed since can be resumed with its classes."""
    data = stored(flow.Point(1))
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    moved = tmp_path / "renamed" / "shapes_flow.py"
    moved.parent.mkdir()
    Path(flow.__file__).rename(moved)
    module = import_file(moved, "shapes_flow")
    codec.pickle_by_value("shapes_flow")
    assert type(codec.decode(0, data)) is module.Point


def test_another_file_of_the_same_name_does_not_count(flow, tmp_path):
    """Two projects may both have a flow.py with a Point of its own."""
    data = stored(flow.Point(1, 2))
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    other = tmp_path / "other" / "shapes_flow.py"
    other.parent.mkdir()
    other.write_text("class Point: pass")
    module = import_file(other, "shapes_flow")
    codec.pickle_by_value("shapes_flow")
    back = codec.decode(0, data)
    assert type(back) is not module.Point
    assert (back.x, back.y) == (1, 2)


@pytest.mark.parametrize("name", RENAMED)
def test_a_class_under_another_name_than_its_own_is_the_files(flow, name):
    """In a worker that has not made the value, too: its file is another module there."""
    data = stored(operator.attrgetter(name)(flow))
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    module = import_file(Path(flow.__file__), "shapes_flow")
    codec.pickle_by_value("shapes_flow")
    assert codec.decode(0, data) is operator.attrgetter(name)(module)


@pytest.mark.parametrize("name", RENAMED)
def test_a_class_of_any_module_under_another_name_is_that_modules(flow, tmp_path, name):
    """A module of helpers is imported by its name wherever the value is read."""
    (tmp_path / "shapes_helpers.py").write_text(FLOW_FILE)
    reader = tmp_path / "read.py"
    reader.write_text(
        textwrap.dedent(f"""
        import sys
        from asyncflow import codec
        back = codec.decode(0, bytes.fromhex(sys.argv[1]))
        import shapes_helpers
        print(back is shapes_helpers.{name})
        """)
    )
    helpers = import_file(tmp_path / "shapes_helpers.py", "shapes_helpers")
    data = stored(operator.attrgetter(name)(helpers)).hex()
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, reader, data]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout == "True\n"


def test_a_file_that_is_imported_without_being_a_flows_has_the_classes(flow):
    """As in a program that reads artifacts and uses the flow's file as a module, by any name."""
    data = stored(flow.Colour.RED)
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    module = import_file(Path(flow.__file__), "__shapes_alias__")
    assert codec.decode(0, data) is module.Colour.RED


def test_a_lambda_of_the_flow_file_uses_the_live_classes(flow):
    """A function without a name is stored whole, and what it refers to is the file's own."""
    assert type(codec.decode(0, stored(flow.add))(3)) is flow.Point


def test_cloudpickle_itself_is_left_as_it_was(flow):
    """What the user's step does with cloudpickle is not changed by what the store does."""
    stored(flow.Point(1))
    assert cloudpickle.list_registry_pickle_by_value() == set()


def test_a_class_is_pickled_once(flow, monkeypatch):
    """Its code is kept, so that a thousand small instances do not cost a thousand picklings."""
    first = stored(flow.Point(1))
    monkeypatch.setattr(classes, "_code_of", lambda value: pytest.fail("again"))
    assert len(stored(flow.Point(2))) == len(first)


def test_a_module_that_is_not_imported_is_left_alone(forget):
    """Registering a name that nobody has imported does nothing."""
    codec.pickle_by_value("no_such_module")
    assert "no_such_module" not in codec.by_value_modules


# --- where it is not --------------------------------------------------------------------------


def test_values_open_without_the_file(flow, elsewhere):
    """A notebook reads instances of the flow file's classes without importing the script."""
    values = [
        flow.Point(1, 2),
        flow.Colour.BLUE,
        flow.Level.LOW,
        flow.Pair(4),
        flow.Square(3),
        flow.Box([1]),
        flow.Outer.Inner(),
        flow.Slots(9),
        flow.BadThing(5),
        flow.quadruple,
        flow.Chicken(),
        flow.local(),
        flow.add,
    ]
    expressions = {
        "v[0], v[0].moved().x, v[0] == v[0].moved(), v[0] == type(v[0])(1, 2)": (
            "(Point(x=1, y=2), 2, False, True)"
        ),
        "v[1], v[1] is type(v[1]).BLUE, list(type(v[1]))": (
            "(<Colour.BLUE: 2>, True, [<Colour.RED: 1>, <Colour.BLUE: 2>])"
        ),
        "repr(v[2]), v[2] + 1": "('<Level.LOW: 1>', 2)",
        "v[3], v[3].b": "(Pair(a=4, b='b'), 'b')",
        "v[4].area(), v[4].grown().area(), type(v[4]).__mro__[1].__name__": "(9, 16, 'Shape')",
        "v[5].value": "[1]",
        "v[6].value, type(v[6]).__qualname__": "(7, 'Outer.Inner')",
        "v[7].a": "9",
        "repr(v[8]), v[8].code, isinstance(v[8], Exception)": "(\"BadThing('code 5')\", 5, True)",
        "v[9](3)": "12",
        "type(v[10].child().child()) is type(v[10])": "True",
        "v[11].value": "5",
        "v[12](3)": "Point(x=3, y=0)",
    }
    told = elsewhere([stored(value) for value in values], *expressions)
    assert told == list(expressions.values())


def test_classes_under_other_names_open_without_the_file(flow, elsewhere):
    """They keep the names that they were given."""
    values = [flow.Hue.COLD, flow.Place(1, 2), flow.Record(5), flow.Kept(), flow.Namespace.Kind.ONE]
    told = elsewhere(
        [stored(value) for value in values],
        "v[0] is type(v[0]).COLD, repr(v[0]), v[1], v[2], v[3].value, v[4].name",
    )
    assert told == [
        "(True, '<OtherHue.COLD: 2>', OtherPlace(x=1, y=2), OtherRecord(key=5), 5, 'ONE')"
    ]


def test_local_classes_of_one_name_are_not_taken_for_each_other(flow, elsewhere):
    """A function makes a base class with each call."""
    told = elsewhere([stored(flow.First()), stored(flow.Second())], "v[0].value, v[1].value")
    assert told == ["(1, 2)"]


def test_artifacts_share_their_class(flow, elsewhere):
    """Instances in several artifacts are of one class, and so compare as they did."""
    data = [
        stored(flow.Point(1)),
        stored([flow.Point(1)]),
        stored(flow.add),
        stored(flow.Chicken()),
    ]
    told = elsewhere(
        [*data, stored(flow.Egg())],
        "v[0] == v[1][0], type(v[0]) is type(v[1][0])",
        "type(v[2](1)) is type(v[0])",
        "type(v[3].child()) is type(v[4]), type(v[4].child()) is type(v[3])",
    )
    assert told == ["(True, True)", "True", "(True, True)"]


def test_two_workers_store_a_class_alike(flow, tmp_path):
    """The bytes do not depend on the process, so equal values of two workers are equal blobs."""
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, importlib
            from asyncflow import codec
            sys.path.insert(0, sys.argv[1])
            flow = importlib.import_module("shapes_flow")
            codec.pickle_by_value("shapes_flow")
            values = flow.Point(1), flow.Chicken(), flow.Colour.RED, flow.Square(1), flow.Box(1)
            sys.stdout.write(b"".join(codec.encode(values).chunks).hex())
            """
        )
    )

    def worker(seed: str) -> str:
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.run(
            [sys.executable, "-P", script, tmp_path],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed},
        ).stdout

    assert worker("1") == worker("2")


def test_a_class_whose_code_cannot_be_stored_does_not_fail_its_artifact(flow, elsewhere):
    """A lock or a large table in a global leaves the class to those who have the file imported."""
    data = [stored(flow.Locking()), stored(flow.Heavy())]
    assert max(map(len, data)) < 1000
    before = "import shapes_flow"
    sys.path.insert(0, str(Path(flow.__file__).parent))
    try:
        assert elsewhere(data, "v[0].run(), v[1].look()", before=before) == ["(1, 0)"]
    finally:
        sys.path.pop(0)
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    with pytest.raises(pickle.UnpicklingError, match=r"import .*shapes_flow.py first"):
        codec.decode(0, data[0])


def test_what_was_built_can_be_stored_again(flow, forget):
    """A value read without its file, kept in another flow, is stored with its classes again."""
    data = stored([flow.Point(1), flow.Chicken()])
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()  # as where it never was imported
    point, chicken = codec.decode(0, data)
    assert type(point) is not flow.Point
    again, egg = codec.decode(0, stored([point, chicken.child()]))
    assert again == point
    assert type(egg.child()) is type(chicken)
    assert "shapes_flow" not in sys.modules


def test_an_edited_class_is_another_class(flow):
    """A notebook that reads artifacts from before and after an edit has both classes."""
    before = stored(flow.Point(1))
    path = Path(flow.__file__)
    path.write_text(FLOW_FILE.replace("self.x + 1", "self.x + 100"))
    module: Any = import_file(path, "shapes_flow")
    codec.pickle_by_value("shapes_flow")
    after = stored(module.Point(1))
    del sys.modules["shapes_flow"], codec.by_value_modules["shapes_flow"]
    old, new = codec.decode(0, before), codec.decode(0, after)
    assert (old.moved().x, new.moved().x) == (2, 101)


def test_a_foreach_list_stores_a_class_once(flow, elsewhere):
    """Ten thousand items of one class do not carry its code ten thousand times."""
    encoded = encode_items([flow.Point(i) for i in range(100)])
    single = len(stored(flow.Point(1)))
    assert encoded.size < 100 * single / 4  # each names its file, whose path may be long
    data = b"".join(encoded.chunks)
    assert type(codec.decode(encoded.encoding, data)[7]) is flow.Point
    told = elsewhere([stored([data])], "codec.decode(2, v[0][0])[7].moved()")
    assert told == ["Point(x=8, y=0)"]


def test_classes_of_a_notebook_open_elsewhere(elsewhere, monkeypatch):
    """`__main__` is another module in every process, so its classes always come with their code."""
    main: Any = sys.modules["__main__"]

    class Cell:
        value = 3

    Cell.__qualname__, Cell.__module__ = "Cell", "__main__"
    monkeypatch.setattr(main, "Cell", Cell, raising=False)
    back, again = codec.decode(0, stored(Cell())), codec.decode(0, stored([Cell()]))[0]
    assert type(back) is Cell
    assert type(again) is Cell
    assert elsewhere([stored(Cell())], "v[0].value") == ["3"]


def test_an_unpicklable_member_within_the_flow_files_class_is_named(flow):
    """Storing classes by value does not hide what is wrong with an instance."""
    box = flow.Box({"lock": flow.LOCK})
    with pytest.raises(ArtifactPickleError, match=r"self\.it\.value\['lock'\] is a _thread\.lock"):
        stored(box)
