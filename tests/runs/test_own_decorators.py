"""Decorators of the user's own on real workers: code before and after a step, sync and async."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import (
    USER_SKIP_STEP,
    Engine,
    FlowSpec,
    UserStepDecorator,
    catch,
    current,
    retry,
    step,
    timeout,
    user_step_decorator,
)
from asyncflow.errors import FlowError, GraphError, RunFailedError
from asyncflow.flow.graph_reader import read_graph


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("own"), workers=2) as opened:
        yield opened


@user_step_decorator
def plain(step_name, flow, inputs=None):
    """Takes no attributes."""
    flow.log = [*getattr(flow, "log", []), f"before {step_name}"]
    yield
    flow.log += [f"after {step_name}"]


@user_step_decorator
async def waiting(step_name, flow, inputs=None, attributes=None):
    """Awaits before and after the step."""
    await asyncio.sleep(0)
    flow.told = attributes
    try:
        yield
    except LookupError as error:
        await asyncio.sleep(0)
        flow.caught = repr(error)


def fail(error):
    """Raise it, unknown to whoever reads the step."""
    raise error


class Both(UserStepDecorator):
    """A class whose methods are async."""

    _allowed_kwargs = ("mark",)

    def init(self, mark="none"):
        self.mark = mark

    async def pre_step(self, step_name, flow, inputs=None):
        await asyncio.sleep(0)
        flow.mark = self.mark

    async def post_step(self, step_name, flow, exception=None):
        await asyncio.sleep(0)
        flow.seen = type(exception).__name__
        return exception


class AsyncSteps(FlowSpec):
    log: list[str]

    @plain
    @waiting(key=1)
    @Both(mark="m")
    @step
    async def start(self):
        await asyncio.sleep(0)
        self.log += ["body"]
        fail(KeyError("k"))
        self.next(self.end)

    @step
    async def end(self):
        pass


async def test_an_async_step_has_generators_of_both_kinds_and_async_methods(engine):
    """The outermost begins and ends; a failure that one catches is hidden from those around it."""
    data = (await engine.run(AsyncSteps)).data
    assert data.log == ["before start", "body", "after start"]
    assert (data.told, data.caught) == ({"key": 1}, "KeyError('k')")
    assert (data.mark, data.seen) == ("m", "KeyError")


async def test_a_def_step_cannot_have_an_async_decorator():
    """It is refused before the run, and says which of the two to change."""

    class Mixed(FlowSpec):
        @waiting
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    with pytest.raises(GraphError, match="'waiting' is `async def`: write the step as `async def`"):
        read_graph(Mixed)


@user_step_decorator
def stopping(step_name, flow, inputs=None, attributes=None):
    """Catches a StopIteration."""
    try:
        yield
    except StopIteration as error:
        flow.caught = error.value


class Stops(FlowSpec):
    @stopping
    @step
    def start(self):
        fail(StopIteration())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_stop_iteration_of_the_step_is_an_error_like_any_other(engine):
    """A generator would make another error of it."""
    assert (await engine.run(Stops)).data.caught is None


@user_step_decorator
def fans_out(step_name, flow, inputs=None, attributes=None):
    """Skips the step."""
    flow.items = [1, 2, 3]
    yield attributes or USER_SKIP_STEP


class Skipped(FlowSpec):
    @fans_out
    @step
    def start(self):
        self.items = []
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.kind = "odd" if self.input % 2 else "even"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.kinds = [each.kind for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_is_skipped_fans_out_over_what_the_decorator_has_set(engine):
    """The transition is that of the source."""
    assert (await engine.run(Skipped)).data.kinds == ["odd", "even", "odd"]


class WrongWay(FlowSpec):
    @fans_out(foreach="items")
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_decorator_cannot_lead_where_the_source_does_not(engine):
    """Arguments for `self.next` that do not fit fail the task."""
    with pytest.raises(RunFailedError, match="has the file changed since"):
        await engine.run(WrongWay)


class Chooses(UserStepDecorator):
    def pre_step(self, step_name, flow, inputs=None):
        flow.way = "long"
        self.skip_step = True


class Replaces(UserStepDecorator):
    _allowed_args = True

    def init(self, *made):
        self.made = made

    def post_step(self, step_name, flow, exception=None):
        return self.made[0] if len(self.made) == 1 else self.made


class Conditional(FlowSpec):
    @Chooses
    @step
    def start(self):
        self.next({"long": self.middle, "short": self.end}, condition="way")

    @Replaces(None, {"foreach": None})
    @step
    def middle(self):
        self.passed = True
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_skipped_condition_chooses_by_what_is_set(engine):
    """A pair of `post_step` has arguments for `self.next`, which here change nothing."""
    assert (await engine.run(Conditional)).data.passed


class OtherFailure(FlowSpec):
    @Replaces(LookupError("another"))
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_post_step_returns_is_raised(engine):
    """Also if the step itself has not failed."""
    with pytest.raises(RunFailedError, match="another"):
        await engine.run(OtherFailure)


class Nonsense(FlowSpec):
    @Replaces(3)
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_post_step_that_returns_something_else_fails_the_task(engine):
    """The error says what it may return."""
    with pytest.raises(RunFailedError, match="return an exception, or None"):
        await engine.run(Nonsense)


@user_step_decorator
def never(step_name, flow, inputs=None, attributes=None):
    """Yields at no step."""
    if step_name == "nothing":
        yield


class Never(FlowSpec):
    @never
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_generator_that_does_not_yield_fails_the_task(engine):
    """The error names it."""
    with pytest.raises(RunFailedError, match="'never' has ended without `yield`"):
        await engine.run(Never)


@user_step_decorator
def once_more(step_name, flow, inputs=None, attributes=None):
    """Fails the first attempt, after the step."""
    flow.attempts = current.retry_count
    yield
    if current.retry_count == 0:
        raise ValueError("again")


class Retried(FlowSpec):
    @once_more
    @retry(times=1)
    @step
    def start(self):
        self.next(self.caught)

    @catch(var="failure")
    @never
    @step
    def caught(self):
        self.next(self.end)

    @step
    def end(self):
        self.said = self.failure.message


async def test_retry_and_catch_see_what_decorators_let_out(engine):
    """In whatever order they stand."""
    data = (await engine.run(Retried)).data
    assert data.attempts == 1
    assert "without `yield`" in data.said


@user_step_decorator
def clinging(step_name, flow, inputs=None, attributes=None):
    """Catches what it should let go."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - what is tested
        print("saw", type(error).__name__)


class Late(FlowSpec):
    @clinging
    @timeout(seconds=0.2)
    @step
    async def start(self):
        await asyncio.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_decorator_sees_that_its_task_is_stopped_and_cannot_keep_it(engine):
    """Its code runs, and the task has failed all the same."""
    handle = await engine.start(Late)
    with pytest.raises(RunFailedError, match="longer than"):
        await handle


def test_arguments_are_refused_unless_the_class_allows_them():
    """The error says what it takes."""

    class Bare(UserStepDecorator):
        pass

    with pytest.raises(FlowError, match="@Bare takes no arguments, not 1"):
        Bare(1)
    with pytest.raises(FlowError, match="@Bare takes no arguments by name, not 'alpha'"):
        Bare(alpha=1)
    with pytest.raises(FlowError, match="@Both takes mark, not 'other'"):
        Both(other=1)
    with pytest.raises(FlowError, match="@plain takes arguments by name only"):
        plain(1)  # type: ignore[call-overload]  # the mistake
    with pytest.raises(FlowError, match="write `init`"):

        class Wrong(UserStepDecorator):
            def __init__(self):
                pass


def test_a_decorator_leaves_the_method_as_it_is():
    """With arguments and without, and the graph holds them."""

    def method(self):
        """The user's."""

    assert plain(method) is method
    assert Both(mark="x")(step(method)) is method
    graph = read_graph(AsyncSteps)
    assert [each["name"].rpartition(".")[2] for each in graph["start"].options["own"]] == [
        "plain",
        "waiting",
        "Both",
    ]
    assert graph["start"].options["own"][1]["kwargs"] == {"key": 1}
    assert "own" not in graph["end"].options


FILE = """
from asyncflow import FlowSpec, step, user_step_decorator

@user_step_decorator
def beside(step_name, flow, inputs=None, attributes=None):
    print("beside", step_name, attributes)
    yield

class Named(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    Named()
"""


@pytest.mark.parametrize("wanted", ["beside:alpha=1", "tools.beside:alpha=1"])
def test_the_command_line_puts_a_decorator_on_every_step(tmp_path, wanted):
    """By its name in the flow's file, or with its module; it is the outermost one."""
    (tmp_path / "flow.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "tools.py").write_text(FILE.partition("class")[0], encoding="utf-8")
    command = [sys.executable, "flow.py", "--with", wanted, "run"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    )
    for name in ("start", "end"):
        assert f"beside {name} {{'alpha': 1}}" in done.stdout


class Described(FlowSpec):
    """What it is for."""

    number = 3

    @plain
    @retry(times=1)
    @step
    def start(self):
        """Begins."""
        self.way = "on"
        self.found = current.graph
        self.next({"on": self.middle, "off": self.end}, condition="way")

    @step
    async def middle(self):
        self.mine = (current.run.id, current.task.id)
        self.same = self.mine == (current.run_id, current.task_id)
        self.earlier = current.run["start"].task.data.way
        self.folder = current.tempdir
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_current_tells_of_the_graph_and_looks_back(engine):
    """The graph as plain data, and the client's objects, in async steps too."""
    run = await engine.run(Described)
    graph = run["start"].task.data.found
    assert (graph["doc"], graph["start_step"], graph["end_step"]) == (
        "What it is for.",
        "start",
        "end",
    )
    assert graph["constants"] == [{"name": "number", "type": "int"}]
    start = graph["steps"]["start"]
    assert (start["type"], start["doc"], start["next"]) == (
        "split-switch",
        "Begins.",
        ["middle", "end"],
    )
    assert (start["condition"], start["switch_cases"]) == ("way", {"on": "middle", "off": "end"})
    assert [each["name"] for each in start["decorators"]] == ["retry", f"{__name__}.plain"]
    assert [graph["steps"][name]["type"] for name in ("middle", "end")] == ["linear", "end"]
    data = run["middle"].task.data
    assert data.same
    assert data.earlier == "on"
    assert Path(data.folder).is_dir()
