"""Mutators: what they may change in a flow and its steps, when, and that only that flow changes."""

from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import pytest

from asyncflow import (
    Engine,
    FlowMutator,
    FlowSpec,
    Parameter,
    StepMutator,
    card,
    catch,
    environment,
    limit,
    retry,
    schedule,
    secrets,
    step,
    timeout,
    trigger,
    user_step_decorator,
)
from asyncflow.errors import FlowError
from asyncflow.flow.graph_reader import read_graph
from asyncflow.flow.mutators import MutableFlow, MutableStep
from asyncflow.flow.parameters import parameters_of
from asyncflow.flow.step_options import options_of


@user_step_decorator
def marked(step_name, flow, inputs=None, attributes=None):
    """Marks the step."""
    flow.marked = attributes
    yield


class Noting(FlowMutator):
    """Notes when it is called, and adds a parameter."""

    _allowed_args = True
    order: ClassVar[list[str]] = []

    def init(self, *names):
        self.names = names

    def pre_mutate(self, mutable_flow):
        self.order.append("flow pre")
        for name in self.names:
            mutable_flow.add_parameter(name, Parameter(name, default=7))

    def mutate(self, mutable_flow):
        self.order.append("flow")
        for name, mutable_step in mutable_flow.steps:
            self.order.append(name)
            mutable_step.add_decorator(marked, deco_kwargs={"of": name})


class Hardened(StepMutator):
    """Notes when it is called, and has the step retried."""

    def pre_mutate(self, mutable_step):
        Noting.order.append(f"{mutable_step.name} pre")

    def mutate(self, mutable_step):
        Noting.order.append(f"{mutable_step.name} step")
        assert mutable_step.has_decorator("marked")
        mutable_step.add_decorator("retry:times=2,minutes_between_retries=0")


class Base(FlowSpec):
    @Hardened
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@Noting("size")
class Mutated(Base):
    @step
    def end(self):
        self.twice = 2 * self.size
        super().end()


class Derived(Mutated):
    pass


async def test_a_flow_runs_as_its_mutators_have_made_it(tmp_path):
    """With the parameters that they add, and their decorators; in the engine and in workers."""
    async with Engine(store=tmp_path, workers=1) as engine:
        run = await engine.run(Mutated, size=4)
        other = await engine.run(Derived)
    assert (run.data.twice, other.data.twice) == (8, 14)
    assert run.data.marked == {"of": "end"}
    assert run.parameters.size == 4


def test_mutators_are_called_once_for_each_flow_and_in_order():
    """First `pre_mutate` of the flow and of its steps, then `mutate` of both."""
    Noting.order.clear()

    class Another(Mutated):
        pass

    for _ in range(2):
        graph = read_graph(Another)
    order = ["flow pre", "start pre", "flow", "end", "start", "start step"]
    assert Noting.order == order
    assert graph["start"].options["retry"]["times"] == 2


def test_only_the_flow_with_the_mutator_is_changed():
    """Those that share its steps keep theirs, but for mutators of their own."""
    read_graph(Mutated)

    class Plain(FlowSpec):
        start = Base.start
        end = Base.end

    with pytest.raises(AssertionError):
        read_graph(Plain)  # its step's mutator finds no @marked
    assert not options_of(Base.end).own
    assert "size" not in parameters_of(Base)
    assert "retry" not in options_of(Base.start).options


class Many(FlowSpec):
    gone = Parameter("gone", default=1)

    @card(type="html")
    @limit("api", 2)
    @limit("disk")
    @timeout(minutes=1)
    @environment(vars={"N": 3})
    @retry(times=1, on=ValueError)
    @marked(of="x")
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def flow_of(base):
    """A flow like this one, for a mutator."""
    return MutableFlow(type("Made", (base,), {"__asyncflow_mutated__": set()}))


def test_the_decorators_of_a_step_can_be_listed():
    """By name, with their module and with arguments that would make them again."""
    mutable_step = MutableStep(flow_of(Many), "start")
    found = {each.name: (each.args, each.kwargs) for each in mutable_step.decorator_specs}
    assert found["environment"] == ([], {"vars": {"N": "3"}})
    assert found["timeout"] == ([], {"seconds": 60.0})
    assert found["retry"][1]["minutes_between_retries"] == 0
    assert found["retry"][1]["on"] == (ValueError,)
    assert found["marked"] == ([], {"of": "x"})
    assert [each.args for each in mutable_step.get_decorator_specs("limit")] == [
        ["disk", 1],
        ["api", 2],
    ]
    (spec,) = mutable_step.get_decorator_specs(f"{__name__}.marked")
    assert spec.full_name == f"{__name__}.marked"


def test_decorators_are_removed_by_name_and_by_arguments():
    """The answer tells whether there was one."""
    mutable_step = MutableStep(flow_of(Many), "start")
    for name in ("environment", "retry", "marked", "card"):
        assert mutable_step.remove_decorator(name)
        assert not mutable_step.has_decorator(name)
        assert not mutable_step.remove_decorator(name)
    assert not mutable_step.remove_decorator("timeout", deco_kwargs={"seconds": 1.0})
    assert mutable_step.remove_decorator("timeout", deco_kwargs={"seconds": 60.0})
    assert mutable_step.remove_decorator(
        "limit", deco_args=["api", 2], deco_kwargs={"per_second": None}
    )
    assert [each.args for each in mutable_step.decorator_specs] == [["disk", 1]]


def test_secrets_are_added_and_removed_with_their_sources():
    """What a mutator has taken away is not read any more."""
    mutable_step = MutableStep(flow_of(Many), "end")
    mutable_step.add_decorator(secrets, deco_kwargs={"sources": ["environment.HOME"]})
    (spec,) = mutable_step.get_decorator_specs("secrets")
    assert spec.kwargs["sources"][0]["id"] == "HOME"
    assert mutable_step.remove_decorator("secrets")
    assert options_of(mutable_step.flow.cls.end).secrets == []  # type: ignore[attr-defined] # the flow has this step
    mutable_step.add_decorator("secrets", deco_kwargs=spec.kwargs)
    assert mutable_step.get_decorator_specs("secrets") == [spec]


def test_a_decorator_that_is_there_already_is_kept_refused_or_replaced():
    """As `duplicates` says."""
    mutable_step = MutableStep(flow_of(Many), "start")
    mutable_step.add_decorator(timeout, deco_kwargs={"seconds": 5})
    assert mutable_step.get_decorator_specs("timeout")[0].kwargs == {"seconds": 60.0}
    with pytest.raises(FlowError, match="has the decorator @timeout already"):
        mutable_step.add_decorator("timeout:seconds=5", duplicates=MutableStep.ERROR)
    mutable_step.add_decorator("timeout:seconds=5", duplicates=MutableStep.OVERRIDE)
    assert mutable_step.get_decorator_specs("timeout")[0].kwargs == {"seconds": 5.0}
    mutable_step.add_decorator(catch)
    assert mutable_step.has_decorator("catch")
    with pytest.raises(FlowError, match="there is no decorator 'nothing'"):
        mutable_step.add_decorator("nothing")
    with pytest.raises(FlowError, match="@catch cannot be put on step 'start' of Made"):
        mutable_step.add_decorator("catch:often=1", duplicates=MutableStep.OVERRIDE)


@schedule(daily=True)
class Scheduled(Many):
    pass


def test_a_flow_mutator_changes_parameters_and_decorators_of_the_flow():
    """Parameters before `mutate` only."""
    flow = flow_of(Scheduled)
    assert [name for name, _ in flow.parameters] == ["gone"]
    with pytest.raises(FlowError, match="has 'gone' already"):
        flow.add_parameter("gone", Parameter("gone", default=2))
    assert flow.remove_parameter("gone")
    assert not flow.remove_parameter("gone")
    assert parameters_of(flow.cls) == {}
    assert not hasattr(flow.cls, "gone")
    flow.add_decorator(trigger, deco_kwargs={"event": "e"})
    assert flow.remove_decorator("schedule")
    assert [each.name for each in flow.decorator_specs] == ["trigger"]
    flow.takes_parameters = False
    with pytest.raises(FlowError, match="in `pre_mutate` only"):
        flow.add_parameter("late", Parameter("late", default=2))


FILE = """
from asyncflow import FlowMutator, FlowSpec, Parameter, step

class Adds(FlowMutator):
    def pre_mutate(self, mutable_flow):
        mutable_flow.add_parameter("added", Parameter("added", default=1))

@Adds
class Added(FlowSpec):
    @step
    def start(self):
        print("added is", self.added)
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    Added()
"""


def test_an_added_parameter_is_an_option_of_the_command_line(tmp_path):
    """Like any other parameter of the flow."""
    (tmp_path / "flow.py").write_text(FILE, encoding="utf-8")
    command = [sys.executable, "flow.py", "run", "--added", "5"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=100
    )
    assert "added is 5" in done.stdout


@pytest.mark.parametrize("command", [["run"], ["check"]])
def test_a_mutator_that_fails_is_told_of_with_its_traceback(tmp_path, command):
    """And nothing runs."""
    text = FILE.replace("mutable_flow.add_parameter(", "raise LookupError('on purpose')\n        (")
    (tmp_path / "flow.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "flow.py", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 2
    assert "a mutator of Added has failed" in done.stderr
    assert "LookupError: on purpose" in done.stderr
    assert "asyncflow/" not in done.stderr  # the user's own frames alone
