"""`run_step`: one step in the test's own process."""

from __future__ import annotations

import os
import threading
from unittest.mock import MagicMock, Mock

import pytest

from asyncflow import FlowSpec, Parameter, current, environment, isolate, retry, shared, step
from asyncflow.errors import ArtifactPickleError, GraphError, NotFoundError, ParameterError
from asyncflow.testing import run_step
from tests.cli.test_spin import Spun


def fetch():
    """What a test replaces."""
    raise ConnectionError


class Stepped(FlowSpec):
    """One step for each thing that a step may be given."""

    factor = Parameter("factor", default=3)
    names = ("a", "b")

    @shared
    def offset():
        yield 100

    @retry(times=3)
    @step
    def start(self):
        self.rows = fetch()
        self.thread = threading.get_ident()
        self.next(self.each, foreach="rows")

    @isolate
    @environment(vars={"STEPPED_HERE": "yes"})
    @step
    async def each(self, *, offset):
        self.product = self.input * self.factor + offset
        self.where = current.step_name, self.index, os.environ["STEPPED_HERE"]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.products = [(each.input, each.product) for each in inputs]
        self.merge_artifacts(inputs, include=["kind"])
        self.next({"small": self.small, "large": self.large}, condition="kind")

    @step
    def small(self):
        self.rows.append(4)
        self.next(self.left, self.right)

    @step
    def large(self):
        self.lock = threading.Lock()
        self.next(self.end)

    @step
    def left(self):
        self.side = "left"
        self.next(self.sides)

    @step
    def right(self):
        self.side = "right"
        self.next(self.sides)

    @step
    def sides(self, inputs):
        self.sides_seen = inputs.left.side, inputs.right.side
        self.next(self.end)

    @step
    def end(self):
        self.answer = self.model.predict(self.names)


@pytest.fixture(autouse=True)
def _fetched(monkeypatch):
    monkeypatch.setattr(f"{__name__}.fetch", lambda: [1, 2])


def test_what_the_test_has_replaced_is_replaced_for_the_step(monkeypatch):
    """It runs in the test's own thread."""
    made = run_step(Stepped, "start")
    assert (made.rows, made.thread) == ([1, 2], threading.get_ident())
    assert (made.next_steps, made.fanout) == (("each",), 2)
    monkeypatch.setattr(f"{__name__}.fetch", Mock(side_effect=KeyError("gone")))
    with pytest.raises(KeyError, match="gone"):
        run_step(Stepped, "start")


def test_an_async_step_has_its_item_its_parameters_and_what_is_shared():
    """And its environment, and `current`."""
    made = run_step(Stepped, "each", input=7, parameters={"factor": "2"})
    assert made.artifacts == {"product": 114, "where": ("each", 0, "yes")}


def test_a_join_has_what_other_steps_have_come_to_and_a_condition_chooses():
    """Or plain values."""
    inputs = [run_step(Stepped, "each", input=each, artifacts={"kind": "large"}) for each in (1, 2)]
    made = run_step(Stepped, "join", inputs=inputs)
    assert made.artifacts == {"products": [(1, 103), (2, 106)], "kind": "large"}
    assert made.next_steps == ("large",)
    plain = [{"product": 1, "kind": "small"}]
    assert run_step(Stepped, "join", inputs=plain).next_steps == ("small",)
    assert run_step(Stepped, "sides", inputs=[{"side": 1}, {"side": 2}]).sides_seen == (1, 2)


def test_a_step_has_a_copy_of_what_it_is_given():
    """As in a run, where another process has made it."""
    rows = [1, 2]
    made = run_step(Stepped, "small", artifacts={"rows": rows})
    assert (made.rows, rows) == ([1, 2, 4], [1, 2])
    assert made.next_steps == ("left", "right")


def test_a_mock_may_be_an_artifact_and_stays_the_same():
    """In whatever value it is."""
    model = MagicMock()
    model.predict.return_value = 5
    made = run_step(Stepped, "end", artifacts={"model": model, "models": [model]})
    assert made.answer == 5
    assert made.next_steps == ()
    model.predict.assert_called_once_with(("a", "b"))
    assert made.models[0] is model


def test_what_cannot_be_stored_is_an_error():
    """Given or made."""
    with pytest.raises(ArtifactPickleError, match="lock"):
        run_step(Stepped, "large")
    with pytest.raises(ArtifactPickleError, match="held"):
        run_step(Stepped, "end", artifacts={"held": threading.Lock()})


@pytest.mark.parametrize(
    ("name", "given", "error", "said"),
    [
        ("strat", {}, NotFoundError, "did you mean 'start'"),
        ("join", {}, TypeError, "is a join"),
        ("join", {"inputs": [], "artifacts": {"a": 1}}, TypeError, "inherits nothing"),
        ("start", {"inputs": []}, TypeError, "takes no inputs"),
        ("start", {"input": 1}, TypeError, "is in no foreach"),
        ("sides", {"inputs": [{}]}, TypeError, "joins left, right"),
        ("start", {"parameters": {"facto": 1}}, ParameterError, "did you mean 'factor'"),
    ],
)
def test_what_makes_no_sense_is_refused(name, given, error, said):
    """Before anything is run."""
    with pytest.raises(error, match=said):
        run_step(Stepped, name, **given)


def test_an_artifact_that_is_not_there_has_suggestions():
    """On the result, as on a flow."""
    with pytest.raises(AttributeError, match="did you mean 'rows'"):
        _ = run_step(Stepped, "start").row


def test_a_flow_of_the_test_itself_is_run():
    """Though nothing else could find its class, or store it."""
    lock = threading.Lock()

    class Local(FlowSpec):
        @step(start=True, end=True)
        def only(self):
            with lock:
                self.done = True

    assert run_step(Local, "only").done

    class Wrong(FlowSpec):
        @step
        def start(self):
            self.next(self.nowhere)

    with pytest.raises(GraphError):
        run_step(Wrong, "start")


def test_each_foreach_around_a_step_has_a_place():
    """The innermost has the item."""
    made = run_step(Spun, "inner", input=5)
    assert made.product == 15
    assert made.where[0] == [(0, 1, None), (0, 1, 5)]
    joined = run_step(Spun, "join_inner", inputs=[made, made])
    assert (joined.products, joined.seen_items) == ([15, 15], [5, 5])
