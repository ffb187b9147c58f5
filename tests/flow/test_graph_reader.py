from __future__ import annotations

import ast
import code
import functools
import importlib
import linecache
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import FlowSpec, Parameter, environment, retry, step, timeout
from asyncflow.errors import GraphError, ParameterError
from asyncflow.flow.constants import constants_of
from asyncflow.flow.graph_reader import RESERVED_NAMES, read_graph
from asyncflow.flow.parameters import parameters_of
from asyncflow.flow.step_bytecode import from_bytecode
from asyncflow.flow.step_source import from_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncflow.flow.graph import Graph

HEAD = "from asyncflow import FlowSpec, IncludeFile, Parameter, catch, retry, step\n\n\n"


class Small(FlowSpec):
    """The smallest flow that there is."""

    @step
    def start(self):
        """Begin."""
        self.next(self.end)

    @step
    def end(self):
        """Finish."""


def flow_text(start: str, more: str = "", head: str = "def start(self):") -> str:
    """A flow as text, with this as the body of its `start`."""
    return (
        f"{HEAD}class F(FlowSpec):\n    @step\n    {head}\n"
        f"{textwrap.indent(textwrap.dedent(start).strip(), ' ' * 8)}\n\n"
        f"{textwrap.indent(textwrap.dedent(more).strip(), ' ' * 4)}\n\n"
        "    @step\n    def end(self):\n        pass\n"
    )


FOREACH = """
@step
def a(self):
    self.next(self.join)

@step
def join(self, inputs):
    self.next(self.end)
"""

BRANCHES = """
@step
def a(self):
    self.next(self.join)

@step
def b(self):
    self.next(self.join)

@step
def join(self, inputs):
    self.next(self.end)
"""


def run_file(text: str, folder: Path) -> type[FlowSpec]:
    """The flow `F` of a file with this text."""
    path = folder / "flow_file.py"
    path.write_text(text)
    namespace: dict[str, Any] = {"__name__": "flow_file"}
    exec(compile(text, str(path), "exec"), namespace)  # noqa: S102 - as an import does
    return cast("type[FlowSpec]", namespace["F"])


def run_text(text: str, _: Path) -> type[FlowSpec]:
    """The same from text that nobody can find afterwards."""
    namespace: dict[str, Any] = {"__name__": "flow_text"}
    exec(compile(text, "<nowhere>", "exec"), namespace)  # noqa: S102 - code without a file is what is tested
    return cast("type[FlowSpec]", namespace["F"])


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], type[FlowSpec]]:
    """Makes the flow of a text, with a source to read."""
    return lambda text: run_file(text, tmp_path)


@pytest.fixture(params=[run_file, run_text], ids=["source", "bytecode"])
def make_either(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], type[FlowSpec]]:
    """Makes the flow of a text, once with a source to read and once without."""
    return lambda text: request.param(text, tmp_path)


def ways(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Which steps follow which."""
    return {node.name: node.next for node in graph}


# --- what is read -----------------------------------------------------------------------------


def test_a_transition_to_one_step(make_either):
    """`self.next(self.end)` leads to `end`."""
    assert ways(read_graph(make_either(flow_text("self.next(self.end)")))) == {
        "start": ("end",),
        "end": (),
    }


def test_a_transition_to_several_steps(make_either):
    """In the order of the code."""
    graph = read_graph(make_either(flow_text("self.next(self.b, self.a)", BRANCHES)))
    assert graph["start"].next == ("b", "a")
    assert graph["join"].is_join
    assert not graph["a"].is_join


def test_a_foreach(make_either):
    """`foreach` names an artifact."""
    graph = read_graph(make_either(flow_text('self.next(self.a, foreach="items")', FOREACH)))
    assert (graph["start"].next, graph["start"].foreach) == (("a",), "items")


def test_async_steps_are_known(make_either):
    """`async def` is read as `def` is."""
    text = flow_text(
        """
        async for each in self.things():
            await each
        async with self.thing() as self.x:
            pass
        self.next(self.end)
        """,
        head="async def start(self):",
    )
    graph = read_graph(make_either(text))
    assert graph["start"].is_async
    assert not graph["end"].is_async
    assert graph["start"].next == ("end",)


@pytest.mark.parametrize(
    "call",
    [
        "self.next(self.end)  # and then",
        "self.next(self.end)\n'that is all'",
        "self.next(self.end)\npass\n...\nreturn",
        "self.next(self.end)\nreturn None",
        "self.next(\n    self.end,\n)",
        "self.next \\\n    (self.end)",
        "x = 1; self.next(self.end)",
    ],
)
def test_how_a_transition_may_be_written(make_either, call):
    """After it there may be what does nothing."""
    assert read_graph(make_either(flow_text(call)))["start"].next == ("end",)


@pytest.mark.parametrize(
    "before",
    [
        "if self.x:\n    return",
        "for x in self.y:\n    if x:\n        break\nelse:\n    raise ValueError",
        "while self.x:\n    continue",
        "try:\n    self.f()\nexcept ValueError:\n    self.x = 1\nfinally:\n    self.y = 1",
        "try:\n    self.f()\nexcept ValueError:\n    return",
        "with open('x') as f, self.y:\n    self.x = f",
        "match self.x:\n    case 1:\n        self.y = 1\n    case [a, *b]:\n        return",
        "self.f = lambda: self.x",
        "x = [self.y for z in self.w if z]",
        "x = 1 if self.y else 2\nassert x and self.y",
        "def inner():\n    self.next(self.nothing)",
        "next(iter(self.x))\nself.x.next(self.y)",
        "global thing\nimport os",
        "self.x += 1\nself.y.z = 2\nself.w[0] = 3",
    ],
)
def test_what_may_come_before_a_transition(make_either, before):
    """Anything, as long as the step goes on to its last statement or is left early."""
    graph = read_graph(make_either(flow_text(f"{before}\nself.next(self.end)")))
    assert graph["start"].next == ("end",)


def test_text_at_the_margin_does_not_confuse(make_either):
    """A long string need not follow the indentation of the code."""
    text = flow_text("self.text = MARK\nself.next(self.end)").replace("MARK", "'''\nleft\n'''")
    assert read_graph(make_either(text))["start"].next == ("end",)


def test_self_may_have_another_name(make_either):
    """It is the first argument, whatever it is called."""
    text = flow_text("this.next(this.end)", head="def start(this):")
    assert read_graph(make_either(text))["start"].next == ("end",)


def test_a_second_argument_makes_a_join(make_either):
    """Whatever it is called."""
    more = BRANCHES.replace("inputs", "parts")
    assert (
        read_graph(make_either(flow_text("self.next(self.a, self.b)", more)))["join"].joins
        == "start"
    )


def test_a_step_knows_where_it_stands(tmp_path):
    """The line is that of its `def`, under all decorators."""
    text = flow_text("self.next(self.end)").replace(
        "@step\n", "@retry(\n        times=2\n    )\n    @step\n"
    )
    node = read_graph(run_file(text, tmp_path))["start"]
    assert node.file == str(tmp_path / "flow_file.py")
    assert text.splitlines()[node.line - 1].strip() == "def start(self):"


def test_a_step_keeps_its_docstring():
    """Without the indentation of the code."""
    assert read_graph(Small)["start"].doc == "Begin."


def test_what_decorators_say_is_in_the_graph():
    """As plain data, whichever side of `@step` they stand on."""

    class Decorated(FlowSpec):
        @retry(times=4, seconds=1)
        @step
        @timeout(minutes=1)
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    options = read_graph(Decorated)["start"].options
    assert options["retry"]["times"] == 4
    assert options["timeout"] == {"seconds": 60.0}
    assert not read_graph(Decorated)["end"].options


def forgetful(function):
    """A decorator without `functools.wraps`."""

    def wrapper(*args):
        return function(*args)

    return wrapper


def with_options(times):
    """One that is called first."""

    def outer(function):
        def inner(self):
            return [function(self) for _ in range(times)]

        return inner

    return outer


class Counting:
    """One that is a class."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)


@pytest.mark.parametrize(
    ("decorator", "told"),
    [
        (forgetful, "'wrapper', which the decorator 'forgetful' puts in its place: .*wraps"),
        (with_options(2), "'inner', which the decorator 'with_options' puts in its place: .*wraps"),
        (Counting, "'Counting' is a decorator, have it call functools.update_wrapper"),
    ],
)
def test_a_decorator_that_hides_its_step_is_named(decorator, told):
    """With what it has to do so that the step is seen."""

    class Hidden(FlowSpec):
        @step
        @decorator
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    with pytest.raises(GraphError, match=told):
        read_graph(Hidden)


def test_steps_under_decorators_of_the_user():
    """Those that use `functools.wraps` are seen through, to what the user wrote."""

    def quiet(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    class Wrapped(FlowSpec):
        @quiet
        @step
        def start(self):
            self.next(self.a, self.b)

        @step
        @quiet
        async def a(self):
            self.next(self.join)

        @step
        @quiet
        def b(self):
            self.next(self.join)

        @step
        @quiet
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass

    graph = read_graph(Wrapped)
    assert graph["start"].next == ("a", "b")
    assert graph["a"].is_async
    assert graph["join"].is_join


def test_a_flow_inherits_steps():
    """From a flow, or from a mixin; what it defines itself wins."""

    class Mixin:
        @step
        def finish(self: Any):
            self.next(self.end)

    class Longer(Mixin, Small):
        @step
        def start(self):
            self.next(self.finish)

    assert ways(read_graph(Longer)) == {"start": ("finish",), "finish": ("end",), "end": ()}
    assert ways(read_graph(Small)) == {"start": ("end",), "end": ()}
    assert read_graph(Longer).flow == "Longer"


def test_a_mixin_may_come_after_the_flow():
    """The order of base classes is Python's affair."""

    class Mixin:
        @step
        def end(self):
            pass

    class Mixed(FlowSpec, Mixin):
        @step
        def start(self):
            self.next(self.end)

    assert ways(read_graph(Mixed)) == {"start": ("end",), "end": ()}


def test_a_flow_inside_a_function_sees_its_surroundings():
    """Indentation and closures do not matter."""
    factor = 3

    def make():
        if factor:

            class Inner(FlowSpec):
                @step
                def start(self):
                    self.x = factor
                    self.next(self.end)

                @step
                def end(self):
                    pass

            return Inner
        return None

    assert read_graph(make())["start"].next == ("end",)


def test_a_graph_is_read_once():
    """The second time it is the same object."""
    assert read_graph(Small) is read_graph(Small)


def test_reading_runs_nothing(make_either):
    """Neither steps nor properties."""
    more = "@property\ndef bad(self):\n    raise SystemExit"
    text = flow_text("self.bad\nexit(self.x())\nself.next(self.end)", more)
    assert read_graph(make_either(text))["start"].next == ("end",)


def test_a_transition_after_a_raise_is_read_from_the_source(tmp_path):
    """While a step is being written it may end early."""
    flow = run_file(flow_text("raise NotImplementedError\nself.next(self.end)"), tmp_path)
    assert read_graph(flow)["start"].next == ("end",)


# --- where flows come from --------------------------------------------------------------------


def test_a_flow_in_a_package_with_relative_imports(tmp_path, monkeypatch):
    """Its module is never run on its own."""
    package = tmp_path / "a_package" / "flows"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "words.py").write_text("WORD = 'good'\n")
    (package / "flow.py").write_text(
        "from .words import WORD\n" + flow_text("self.x = WORD\nself.next(self.end)")
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("a_package.flows.flow")
    assert read_graph(module.F)["start"].next == ("end",)


def test_a_flow_in_a_cell_of_a_notebook():
    """IPython leaves the text of a cell where `linecache` finds it."""
    text = flow_text("self.next(self.end)")
    name = "<ipython-input-7-0123456789ab>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), namespace)  # noqa: S102 - as IPython does
    node = read_graph(namespace["F"])["start"]
    assert node.next == ("end",)
    assert text.splitlines()[node.line - 1].strip() == "def start(self):"


def test_a_flow_typed_at_the_prompt():
    """Python up to 3.12 keeps no text of what was typed."""
    console = code.InteractiveConsole()
    for line in flow_text("self.x = 1\nself.next(self.a, self.b)", BRANCHES).splitlines():
        # at the prompt an empty line ends a class
        if line or not console.buffer:
            console.push(line)
    console.push("")
    graph = read_graph(console.locals["F"])
    assert ways(graph) == {
        "start": ("a", "b"),
        "a": ("join",),
        "b": ("join",),
        "join": ("end",),
        "end": (),
    }


def test_a_flow_on_the_command_line():
    """`python -c` has no file either."""
    text = flow_text("self.next(self.end)") + (
        "\nfrom asyncflow.flow.graph_reader import read_graph\nprint(read_graph(F)['start'].next)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "('end',)\n"


def test_a_file_that_was_edited_since_is_not_believed(tmp_path):
    """What runs is what was compiled, so that is what is read."""
    more = "@step\ndef other(self):\n    self.next(self.end)"
    flow = run_file(flow_text("self.next(self.other)", more), tmp_path)
    (tmp_path / "flow_file.py").write_text(flow_text("self.next(self.end)"))
    assert read_graph(flow)["start"].next == ("other",)


def test_a_file_that_became_something_else_is_not_believed(tmp_path):
    """Be it no Python any more."""
    flow = run_file(flow_text("self.next(self.end)"), tmp_path)
    (tmp_path / "flow_file.py").write_text("(((")
    assert read_graph(flow)["start"].next == ("end",)


# --- what is refused --------------------------------------------------------------------------


NOT_LAST = [
    "if self.x:\n    self.next(self.end)",
    "if self.x:\n    pass\nelif self.y:\n    self.next(self.end)",
    "for x in self.y:\n    self.next(self.end)",
    "while self.x:\n    self.next(self.end)",
    "while True:\n    self.next(self.end)",
    "try:\n    self.next(self.end)\nexcept ValueError:\n    pass",
    "try:\n    self.next(self.end)\nfinally:\n    self.x = 1",
    "try:\n    self.f()\nexcept ValueError:\n    self.next(self.end)",
    "with self.x:\n    self.next(self.end)",
    "match self.x:\n    case 1:\n        self.next(self.end)",
    "self.next(self.end)\nprint('done')",
    "self.next(self.end)\nself.x = 1",
    "x = self.next(self.end)",
    "print(self.next(self.end))",
    "return self.next(self.end)",
    "self.x and self.next(self.end)",
]


@pytest.mark.parametrize("body", NOT_LAST)
def test_a_transition_that_is_not_the_last_statement(make, body):
    """The error names the step, the file and the line, and says where to put it."""
    flow = make(flow_text(body))
    with pytest.raises(GraphError, match=r"step 'start' has a self\.next\(\.\.\.\) that") as caught:
        read_graph(flow)
    assert caught.value.step == "start"
    lines = flow_text(body).splitlines()
    assert "self.next" in lines[caught.value.line - 1]
    assert str(caught.value).startswith(f"{caught.value.file}:{caught.value.line}: ")


@pytest.mark.parametrize(
    "body",
    [
        *NOT_LAST,
        "if self.x:\n    self.next(self.end)\nself.next(self.end)",
        "self.next()",
        "self.next('end')",
        "self.next(self)",
        "self.next(self.end())",
        "self.next(self.x.end)",
        "self.next(*self.steps)",
        "self.next(self.x, 1)",
        "x = 1\nself.next(x, self.end)",
        "self.next(self.end, foreach=self.items)",
        "self.next(self.end, foreach='self.items')",
        "self.next(self.end, condition='x')",
        "self.next({'a': self.end}, condition='x')",
        "self.next(self.end, **self.options)",
        "way = self.next\nway(self.end)",
    ],
)
def test_a_step_without_source_has_a_plain_transition(tmp_path, body):
    """Whatever is not plain is not guessed at: the error says what can be read, and what to do."""
    with pytest.raises(GraphError, match=r"no source that can be found.*save the flow in a file"):
        read_graph(run_text(flow_text(body), tmp_path))


def test_where_a_transition_belongs(make):
    """At the end of the step, by itself."""
    flow = make(flow_text("if self.x:\n    self.next(self.end)"))
    with pytest.raises(GraphError, match="is not its last statement: put it at the end"):
        read_graph(flow)


def test_a_step_without_a_transition(make_either):
    """It would end the run nowhere."""
    with pytest.raises(
        GraphError, match=r"step 'start' has no self\.next\(\.\.\.\): add"
    ) as caught:
        read_graph(make_either(flow_text("self.x = 1")))
    assert caught.value.line in {
        5,
        6,
    }  # of `@step` or of `def`: bytecode knows the first line alone


def test_a_step_with_two_transitions(make):
    """Which of them is taken would depend on the run."""
    body = "if self.x:\n    self.next(self.end)\nself.next(self.end)"
    with pytest.raises(GraphError, match=r"more than one self\.next\(\.\.\.\) \(lines 8, 9\)"):
        read_graph(make(flow_text(body)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("self.next()", "names no step"),
        ("self.next('end')", r"'end' is not the name of a step; write self\.next\(self\.end\)"),
        ("self.next(self)", "cannot be understood"),
        ("self.next(end)", "cannot be understood"),
        ("self.next(self.end())", "cannot be understood"),
        ("self.next(self.x.end)", "cannot be understood"),
        ("self.next(*self.steps)", "cannot be understood"),
        ("self.next(getattr(self, self.x))", "cannot be understood"),
        ("self.next(self.end if self.x else self.a)", "cannot be understood"),
        ("self.next(self.end, foreach=self.items)", "cannot be understood"),
        ("self.next(self.end, foreach='self.items')", "write the name of an artifact"),
        ("self.next(self.end, foreach=3)", "foreach is 3"),
        ("self.next(self.end, condition='x')", "cannot be understood"),
        ("self.next(self.end, whenever='x')", "'whenever' is not an argument of it; it takes"),
        ("self.next(self.end, **self.options)", "cannot be understood"),
        ("way = self.next\nway(self.end)", "cannot be understood"),
    ],
)
def test_a_transition_that_cannot_be_understood(make, call, words):
    """The error shows what is not understood, and what to write."""
    with pytest.raises(GraphError, match=words) as caught:
        read_graph(make(flow_text(call)))
    assert (caught.value.step, caught.value.line) == ("start", 7)


CONDITION = """
from asyncflow import FlowSpec, step

class F(FlowSpec):
    @step(start=True)
    def first(self):
        cases = None
        self.next(
            {"again": self.first, 2: self.other, True: self.other, -1: self.last}, condition="kind"
        )

    @step
    def other(self):
        self.next(self.last)

    @step(end=True)
    def last(self):
        pass
"""


def test_a_condition_is_read_with_its_cases(tmp_path):
    """Each case leads to a step; a step that several cases lead to follows once."""
    graph = read_graph(run_file(CONDITION, tmp_path))
    first = graph["first"]
    assert (first.fanout, first.condition) == ("condition", "kind")
    assert first.cases == (("again", "first"), (2, "other"), (True, "other"), (-1, "last"))
    assert first.next == ("first", "other", "last")


def test_the_first_and_the_last_step_may_have_any_name(tmp_path):
    """`@step(start=True)` and `@step(end=True)` say which they are."""
    graph = read_graph(run_file(CONDITION, tmp_path))
    assert (graph.start, graph.end) == ("first", "last")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("self.next({}, condition='x')", "a condition without cases"),
        ("self.next({1: self.end})", "a condition is written"),
        ("self.next({1: self.end}, self.end, condition='x')", "a condition is written"),
        ("self.next({1: self.end}, condition='x', foreach='y')", "leave foreach out"),
        ("self.next({1: self.end}, condition='x', num_parallel=2)", "leave num_parallel out"),
        ("self.next({1: self.end}, cond='x')", "foreach, condition or num_parallel; did you mean"),
        ("self.next({1: self.end}, condition=self.x)", "condition is self.x; write the name"),
        ("self.next({self.x: self.end}, condition='x')", "self.x is not a case"),
        ("self.next({b'x': self.end}, condition='x')", "b'x' is not a case"),
        ("self.next({1: self.end, True: self.end}, condition='x')", "the case True twice"),
        ("self.next({1: 'end'}, condition='x')", "'end' is not the name of a step"),
        ("self.next({**self.x}, condition='x')", "a condition is written"),
    ],
)
def test_a_condition_that_cannot_be_understood(tmp_path, call, words):
    """The error shows what is not understood, and what to write."""
    with pytest.raises(GraphError) as caught:
        read_graph(run_file(flow_text(call), tmp_path))
    assert words in str(caught.value)
    assert (caught.value.step, caught.value.line) == ("start", 7)


GANG = """
from asyncflow import FlowSpec, parallel, step

class F(FlowSpec):
    @step
    def start(self):
        self.size = 3
        self.next(self.train, num_parallel=NUMBER)

    @parallel
    @step
    def train(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.mark.parametrize("number", ["3", "self.size", "2 * len(self.hosts) + 1"])
def test_the_size_of_a_gang_may_be_any_expression(tmp_path, number):
    """The graph has it as it is written."""
    graph = read_graph(run_file(GANG.replace("NUMBER", number), tmp_path))
    assert graph["start"].num_parallel == number
    assert graph["train"].is_gang


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("0", "has num_parallel=0: a gang has a number of tasks"),
        ("-2", "has num_parallel=-2: a gang has"),
        ("True", "has num_parallel=True: a gang has"),
        ("None", "has num_parallel=None: a gang has"),
        ("'3'", "has num_parallel='3': a gang has"),
        ("2, foreach='size'", "a gang is written self.next(self.STEP, num_parallel=NUMBER)"),
    ],
)
def test_a_gang_that_cannot_be(tmp_path, number, words):
    """It is refused before anything runs."""
    with pytest.raises(GraphError) as caught:
        read_graph(run_file(GANG.replace("NUMBER", number), tmp_path))
    assert words in str(caught.value)


def test_the_end_has_no_transition(make_either):
    """It is the last step."""
    text = flow_text("self.next(self.end)").replace("pass", "self.next(self.start)")
    with pytest.raises(GraphError, match="step 'end' is the last one: remove its") as caught:
        read_graph(make_either(text))
    assert caught.value.line == len(text.splitlines())


def test_the_end_is_no_join(make):
    """A join comes before it."""
    text = flow_text("self.next(self.end)").replace("def end(self)", "def end(self, inputs)")
    with pytest.raises(GraphError, match="step 'end' takes `inputs`, but cannot be a join"):
        read_graph(make(text))


@pytest.mark.parametrize("arguments", ["", "self, inputs, more", "self, *inputs", "self, **more"])
def test_a_step_takes_self_and_perhaps_inputs(make, arguments):
    """Nothing else, since nobody would give it."""
    text = flow_text("self.next(self.end)", head=f"def start({arguments}):")
    with pytest.raises(GraphError, match="step 'start' has the wrong arguments: it takes `self`"):
        read_graph(make(text))


def test_a_step_is_no_generator(make):
    """Results are kept on `self`."""
    with pytest.raises(GraphError, match="step 'start' contains `yield`"):
        read_graph(make(flow_text("yield 1\nself.next(self.end)")))


def test_an_unknown_step(make):
    """The structure is checked too."""
    with pytest.raises(GraphError, match="leads to 'edn', but there is no such step; did you"):
        read_graph(make(flow_text("self.next(self.edn)")))


def test_a_method_without_the_decorator_is_no_step(make):
    """The error says what is missing."""
    more = "def train(self):\n    self.next(self.end)"
    with pytest.raises(GraphError, match="leads to 'train', which is not a step: put @step on it"):
        read_graph(make(flow_text("self.next(self.train)", more)))


def test_a_decorated_method_without_step_is_reported(make):
    """Somebody wanted it to be one."""
    more = "@retry\ndef train(self):\n    self.next(self.end)"
    with pytest.raises(GraphError, match="step 'train' has decorators of a step, but not @step"):
        read_graph(make(flow_text("self.next(self.end)", more)))


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["@step\ndef a(self):\n    self.next(self.end)", "a = 3"])
def test_two_things_of_one_name(make, other):
    """The second would replace the first without a word."""
    more = f"{other}\n\n@step\ndef a(self):\n    self.next(self.end)"
    with pytest.raises(
        GraphError, match="'a' has the name of something else in its class"
    ) as caught:
        read_graph(make(flow_text("self.next(self.a)", more)))
    assert "first on line" in str(caught.value)


def test_overriding_a_step_is_no_clash():
    """A subclass may say again what its base class said."""

    class Other(Small):
        @step
        def end(self):
            pass

    assert len(read_graph(Other)) == 2


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_a_step_cannot_have_a_reserved_name(make, name):
    """`self.next` and its kind mean something else."""
    more = f"@step\ndef {name}(self):\n    self.next(self.end)"
    with pytest.raises(GraphError, match=f"has a step '{name}', a name that means") as caught:
        read_graph(make(flow_text("self.next(self.end)", more)))
    assert caught.value.step == name
    assert caught.value.line > 1


def test_a_parameter_cannot_have_a_reserved_name(tmp_path):
    """The error tells where the class stands."""
    text = flow_text("self.next(self.end)", "index = Parameter(default=1)")
    namespace = run_file(text, tmp_path)
    with pytest.raises(GraphError, match="'F' has a parameter 'index', a name that means"):
        read_graph(namespace)


def test_an_attribute_cannot_have_a_reserved_name(make):
    """Nor can a method."""
    with pytest.raises(GraphError, match="has an attribute 'input'"):
        read_graph(make(flow_text("self.next(self.end)", "input = 3")))


@pytest.mark.parametrize("name", ["index", "end"])
@pytest.mark.parametrize("statement", ["self.{} = 1", "for self.{} in self.x:\n    pass"])
def test_an_artifact_cannot_have_the_name_of_something_else(make_either, name, statement):
    """Neither a reserved one nor that of another step; the error names the line."""
    body = statement.format(name) + "\nself.next(self.end)"
    with pytest.raises(GraphError, match=rf"assigns to self\.{name}, which") as caught:
        read_graph(make_either(flow_text(body)))
    assert caught.value.line == 7


class HasIndex(FlowSpec):
    """Has an attribute where a flow has something of its own."""

    index = 3

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def test_a_method_with_the_name_of_something_else_is_refused_where_it_stands(make):
    """With its line and its file."""
    text = flow_text("self.next(self.end)", "def index(self):\n    pass")
    with pytest.raises(GraphError, match="'F' has a method 'index'") as caught:
        read_graph(make(text))
    assert text.splitlines()[caught.value.line - 1].strip() == "def index(self):"
    assert caught.value.file.endswith(("flow_file.py", "<nowhere>"))


def test_an_attribute_with_the_name_of_something_else_is_refused_where_its_class_stands():
    """Nobody knows the line of an attribute."""
    with pytest.raises(GraphError, match="'HasIndex' has an attribute 'index'") as caught:
        read_graph(HasIndex)
    assert (caught.value.file, caught.value.step) == (__file__, "")
    assert linecache.getline(__file__, caught.value.line).startswith("class HasIndex")


def test_catch_cannot_keep_its_exception_under_such_a_name(make):
    """It would be an artifact."""
    text = flow_text("self.next(self.end)").replace("@step\n", "@catch(var='end')\n    @step\n", 1)
    with pytest.raises(GraphError, match=r"catches into self\.end, which means something else"):
        read_graph(make(text))


@pytest.mark.parametrize(
    "member",
    [
        "p = None",
        'p = Parameter("given")',
        'p = IncludeFile("given")',
        "@property\ndef p(self):\n    return 1",
    ],
)
def test_catch_cannot_keep_its_exception_where_nothing_can_be_assigned(make, member):
    """A parameter, a file that a run is started with and a property are read-only."""
    text = flow_text("self.next(self.end)", member).replace(
        "@step\n", "@catch(var='p')\n    @step\n", 1
    )
    with pytest.raises(GraphError, match=r"catches into self\.p, which means something else"):
        read_graph(make(text))


def test_catch_may_keep_its_exception_where_something_can_be_assigned(make):
    """In what is no artifact of the class, and through a property that can be set."""
    settable = "@property\ndef p(self):\n    return 1\n@p.setter\ndef p(self, value):\n    pass"
    for member in ("p: object", settable):
        text = flow_text("self.next(self.end)", member)
        read_graph(make(text.replace("@step\n", "@catch(var='p')\n    @step\n", 1)))


def test_an_init_that_needs_arguments_is_refused(make):
    """Each task calls it, and has none; those with a default are no matter."""
    text = "def __init__(self, {}use_cli=True, *more, **options):\n    super().__init__(use_cli)"
    read_graph(make(flow_text("self.next(self.end)", text.format(""))))
    with pytest.raises(GraphError, match="has an `__init__` that needs config, and each task"):
        read_graph(make(flow_text("self.next(self.end)", text.format("config, "))))


def test_a_step_cannot_begin_with_an_underscore(make):
    """Such names are for what is not shown."""
    more = "@step\ndef _a(self):\n    self.next(self.end)"
    with pytest.raises(GraphError, match="'_a' has a name that begins with an underscore"):
        read_graph(make(flow_text("self.next(self._a)", more)))


def test_parameters_are_checked_with_the_graph():
    """So that `check` finds all that keeps a flow from running."""

    class Tagged(Small):
        tags = Parameter("tags", default="x")

    with pytest.raises(ParameterError, match="cannot be called 'tags'"):
        read_graph(Tagged)


# --- without source ---------------------------------------------------------------

_LEAVES = st.sampled_from(
    [
        "self.x = 1",
        "x = self.y",
        "print(self.x)",
        "self.f(lambda: self.x)",
        "x = [z for z in self.y]",
        "return",
        "raise ValueError",
        "del x",
        "x = 1 if self.y else self.z",
        "assert self.x",
        "pass",
    ]
)
_AWAITING = st.sampled_from(["await self.x()", "x = [z async for z in self.y]"])
_HEADS = st.sampled_from(
    [
        "if self.a:",
        "if self.a and self.b or c:",
        "for x in self.y:",
        "while self.x:",
        "while True:",
        "with self.x as y:",
        "try:|except ValueError:\n    self.x = 1",
        "try:|except ValueError as error:\n    return",
        "try:|finally:\n    self.y = 1",
        "if self.a:|else:\n    self.b = 1",
        "for x in self.y:|else:\n    x = 2",
        "match self.x:\n    case 1:>",
    ]
)
_ASYNC_HEADS = st.sampled_from(["async for x in self.y:", "async with self.x as y:"])


def _compound(head: str, inner: list[str]) -> str:
    opening, _, closing = head.partition("|")
    if opening.endswith(">"):
        return opening[:-1] + "\n" + textwrap.indent("\n".join(inner), " " * 8)
    return "\n".join([opening, textwrap.indent("\n".join(inner), "    "), *filter(None, [closing])])


def _bodies(leaves, heads):
    def extended(statements):
        return st.builds(_compound, heads, st.lists(statements, min_size=1, max_size=3))

    statements = st.recursive(leaves, extended, max_leaves=6)
    return st.lists(statements, max_size=4)


_LAST = st.sampled_from(
    ["self.next(self.a)", "self.next(self.a, self.b)", "self.next(self.a, foreach='items')"]
)
_AFTER = st.sampled_from(["", "pass", "'text'", "return", "..."])


def _definition(body: list[str], head: str) -> tuple[ast.FunctionDef, Any]:
    text = f"{head}\n{textwrap.indent(chr(10).join(body), '    ')}\n"
    namespace: dict[str, Any] = {}
    exec(compile(text, "<generated>", "exec"), namespace)  # noqa: S102 - nothing of it is run
    return cast("ast.FunctionDef", ast.parse(text).body[0]), namespace["start"].__code__


@given(_bodies(_LEAVES, _HEADS), _LAST, _AFTER)
def test_bytecode_tells_what_source_tells(body, last, after):
    """Whatever a step does before, its way is read the same from text and from bytecode."""
    definition, compiled = _definition([*body, last, after or "pass"], "def start(self):")
    _assert_same(definition, compiled)


@given(_bodies(_LEAVES | _AWAITING, _HEADS | _ASYNC_HEADS), _LAST, _AFTER)
def test_bytecode_of_async_steps_tells_what_source_tells(body, last, after):
    """So it is for `async def`."""
    definition, compiled = _definition([*body, last, after or "pass"], "async def start(self):")
    _assert_same(definition, compiled)


def _assert_same(definition: ast.FunctionDef, compiled: Any) -> None:
    from_text, from_code = from_source(definition), from_bytecode(compiled)
    if from_code.calls:  # none where it cannot be reached, and the compiler left it out
        assert from_text.calls == from_code.calls
    assert from_text.calls[0].is_last
    assert from_code.assigned.keys() <= from_text.assigned.keys()


def test_variables_of_an_async_step_that_shares_its_process() -> None:
    """They would be those of other tasks too: the message tells where, and both ways out."""

    class Coloured(Small):
        @environment(vars={"COLOUR": "red"})
        @step
        async def start(self):
            self.next(self.end)

    with pytest.raises(GraphError, match=r"put @isolate on it too, or write it as `def`") as caught:
        read_graph(Coloured)
    line = Coloured.start.__code__.co_firstlineno
    assert caught.value.step == "start"
    assert caught.value.file == __file__
    assert caught.value.line >= line


class OnlyStart(FlowSpec):
    """Has one step, without a mark and without a transition."""

    @step
    def start(self):
        pass


def test_the_only_step_of_a_flow_is_its_first_and_its_last():
    """It needs no mark and no transition; another step beside it needs both."""
    graph = read_graph(OnlyStart)
    assert (graph.start, graph.end, graph["start"].next) == ("start", "start", ())

    class Two(OnlyStart):
        @step
        def end(self):
            pass

    with pytest.raises(GraphError, match=r"step 'start' has no self\.next"):
        read_graph(Two)


class KeepsSize:
    """A plain mixin with a step, a parameter, a constant and a decorator."""

    size = Parameter("size", default=2)
    unit = "cm"

    @retry(times=4)
    @step
    def end(self):
        pass


class Mixed(KeepsSize, OnlyStart):
    @step
    def start(self):
        self.next(self.end)


def test_a_plain_mixin_gives_steps_parameters_decorators_and_constants():
    """An override has its own decorators alone."""

    class Overrides(Mixed):
        @step
        def end(self):
            super().end()

    assert read_graph(Mixed)["end"].options["retry"]["times"] == 4
    assert "retry" not in read_graph(Overrides)["end"].options
    assert list(parameters_of(Mixed)) == ["size"]
    assert constants_of(Overrides) == {"unit": "cm"}
