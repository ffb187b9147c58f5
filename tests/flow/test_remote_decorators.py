from __future__ import annotations

import logging

import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    batch,
    conda,
    conda_base,
    kubernetes,
    pypi,
    schedule,
    step,
    trigger,
)
from asyncflow.errors import FlowError
from asyncflow.flow.graph_reader import read_graph


@conda_base(python="3.11", libraries={"numpy": "1.26"})
class _Base(FlowSpec):
    @conda(libraries={"pandas": "2.0"})
    @step
    def start(self):
        self.x = 1
        self.next(self.end)

    @kubernetes
    @pypi(packages={"scipy": "1.0"})
    @batch()
    @step
    def end(self):
        pass


@trigger(event="uploaded")
@schedule
class Scheduled(_Base):
    pass


def test_the_graph_holds_what_decorators_for_other_machines_say():
    """With arguments and without, on steps and on flows, and from base classes."""
    graph = read_graph(Scheduled)
    assert graph["start"].options["conda"] == {"libraries": {"pandas": "2.0"}}
    assert graph["end"].options["kubernetes"] == {}
    assert graph["end"].options["pypi"] == {"packages": {"scipy": "1.0"}}
    assert graph["end"].options["batch"] == {}
    assert graph.options == {
        "conda_base": {"python": "3.11", "libraries": {"numpy": "1.26"}},
        "schedule": {},
        "trigger": {"event": "uploaded"},
    }
    assert "schedule" not in read_graph(_Base).options


async def test_a_run_says_once_which_decorators_do_nothing(tmp_path, caplog):
    """In one line at its start; a second run of the same flow says nothing."""
    caplog.set_level(logging.WARNING, "asyncflow")
    async with Engine(store=tmp_path, workers=1) as engine:
        run = await engine.run(Scheduled)
        await engine.run(Scheduled)
    assert run.data.x == 1
    (record,) = [each for each in caplog.records if "do nothing" in each.getMessage()]
    words = "@conda (start), @pypi (end), @batch (end), @kubernetes (end), @conda_base, "
    assert record.getMessage().endswith(f": {words}@schedule, @trigger")


def test_a_decorator_of_flows_stands_once_and_on_a_class():
    """The error names the class, or what it stands on."""
    with pytest.raises(FlowError, match=r"@schedule is used twice on .*Scheduled"):
        schedule(weekly=True)(Scheduled)
    with pytest.raises(FlowError, match="@trigger decorates a flow"):

        @trigger(event="x")  # type: ignore[type-var]  # the mistake
        def start(self):
            pass
