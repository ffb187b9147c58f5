from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import FlowSpec, JSONType, Parameter, step
from asyncflow.errors import ParameterError
from asyncflow.flow.parameter_values import resolve_parameters
from asyncflow.flow.parameters import ParameterContext, parameters_of


class Training(FlowSpec):
    alpha = Parameter("alpha", default=0.1, help="The learning rate.")
    rounds = Parameter("max-rounds", default=10)
    fast = Parameter(default=False)
    data = Parameter(required=True)
    config = Parameter(type=JSONType)
    layers = Parameter(separator=",", type=int, default="8,8")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def resolve(cls=Training, *, environ=None, **given_values):
    """The parameters of a run that is started like this."""
    return resolve_parameters(cls, given_values, environ or {})


def flow_with(**parameters):
    """A class with these parameters."""
    return type("Flow", (), parameters)


# --- where values come from -------------------------------------------------------------------


def test_defaults():
    """What is not given has its default, by the names of the attributes."""
    assert resolve(data="x") == {
        "alpha": 0.1,
        "rounds": 10,
        "fast": False,
        "data": "x",
        "config": None,
        "layers": [8, 8],
    }


def test_an_argument_wins_over_the_environment():
    """And the environment over the default."""
    environ = {"ASYNCFLOW_RUN_ALPHA": "0.2", "ASYNCFLOW_RUN_DATA": "there"}
    assert resolve(environ=environ)["alpha"] == 0.2
    assert resolve(environ=environ, alpha=0.3)["alpha"] == 0.3
    assert resolve(environ=environ)["data"] == "there"


def test_a_name_of_its_own():
    """Keyword and environment use the parameter's name, the flow the attribute."""
    assert resolve(data="x", **{"max-rounds": "3"})["rounds"] == 3
    assert resolve(data="x", max_rounds=4)["rounds"] == 4
    assert resolve(data="x", environ={"ASYNCFLOW_RUN_MAX_ROUNDS": "5"})["rounds"] == 5


def test_a_name_of_its_own_or_the_attributes():
    """A keyword may be either where no other parameter is called so, and not both."""
    assert resolve(data="x", rounds=4)["rounds"] == 4
    with pytest.raises(ParameterError, match="is given twice, once as 'rounds': leave one out"):
        resolve(data="x", max_rounds=4, rounds=5)


def test_a_required_parameter_has_to_be_given():
    """The error tells the ways to give it."""
    with pytest.raises(ParameterError, match="'data' is required: give it as data=") as caught:
        resolve()
    assert "ASYNCFLOW_RUN_DATA" in str(caught.value)
    assert caught.value.parameter == "data"


def test_an_unknown_parameter_is_refused():
    """With the one that may have been meant."""
    with pytest.raises(ParameterError, match="no parameter 'alhpa'; did you mean 'alpha'"):
        resolve(data="x", alhpa=1)


def test_an_unknown_parameter_of_no_known_name():
    """Then all are told."""
    with pytest.raises(ParameterError, match="no parameter 'zzz'; it has alpha, max-rounds, fast"):
        resolve(zzz=1)
    with pytest.raises(ParameterError, match="it has none"):
        resolve(flow_with(), zzz=1)


def test_a_wrong_value_in_the_environment():
    """The error says where it comes from."""
    with pytest.raises(ParameterError, match="'alpha' takes a float, not 'much'; it comes from"):
        resolve(environ={"ASYNCFLOW_RUN_ALPHA": "much"}, data="x")


def test_parameters_are_inherited():
    """A subclass may replace one, by another parameter or by something else."""

    class Later(Training):
        alpha = Parameter(default=7)
        data = "here"

    assert list(parameters_of(Later)) == ["alpha", "rounds", "fast", "config", "layers"]
    assert resolve(Later)["alpha"] == 7


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given_value", "value"),
    [
        (str, "x", "x"),
        (str, "", ""),
        (int, "3", 3),
        (int, " -3 ", -3),
        (int, 3, 3),
        (int, np.int64(3), 3),
        (float, "1e-3", 0.001),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (float, Decimal("0.5"), 0.5),
        (JSONType, '{"a": [1, null]}', {"a": [1, None]}),
        (JSONType, {"a": 1}, {"a": 1}),
        (JSONType, "3", 3),
    ],
)
def test_values_of_each_type(kind, given_value, value):
    """From text, and from Python values that mean the same."""
    converted = Parameter("p", type=kind, required=True).convert(given_value)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("given_value", "value"),
    [
        *[(text, True) for text in ("true", "True", "1", "yes", "on", "Y", True, 1, np.True_)],
        *[(text, False) for text in ("false", "FALSE", "0", "no", "off", "n", False, 0)],
    ],
)
def test_values_of_bool(given_value, value):
    """The usual words are understood."""
    assert Parameter("p", default=False).convert(given_value) is value


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (str, 3, "takes a str, not 3"),
        (int, "3.5", "takes an int, not '3.5'"),
        (int, 3.0, "takes an int, not 3.0"),
        (int, True, "takes an int, not True"),
        (int, "9" * 5000, "takes an int, not '999"),
        (float, "x", "takes a float, not 'x'"),
        (float, [1.0], r"takes a float, not \[1.0\]"),
        (float, True, "takes a float, not True"),
        (float, 10**400, "takes a float, not 1000"),
        (bool, "maybe", "takes a bool, not 'maybe'"),
        (bool, 2, "takes a bool, not 2"),
        (JSONType, "{", r"takes JSON, not '{' \(Expecting"),
        (JSONType, {1, 2}, r"takes JSON, not {1, 2} \(Object of type set is not JSON"),
        (int, None, "takes an int, not None"),
    ],
)
def test_values_of_another_type(kind, value, words):
    """The error names the parameter, what it takes, and the value, cut where it is long."""
    parameter = Parameter("p", type=kind, required=True)
    with pytest.raises(ParameterError, match=f"parameter 'p' {words}") as caught:
        parameter.convert(value)
    assert caught.value.parameter == "p"
    assert len(str(caught.value)) < 200


def test_items_by_commas_where_a_list_is_json():
    """The error says how to write the list, and what to add for items by commas."""
    with pytest.raises(ParameterError, match=r"like '\[1, 2\]', or give the Parameter a separator"):
        Parameter("p", default=[1, 2]).convert("3,4")


def test_a_number_too_long_to_be_written():
    """Python refuses to show it, so the error tells its type."""
    with pytest.raises(ParameterError, match="takes a float, not something of type int"):
        Parameter("p", default=1.0).convert(10**5000)


@pytest.mark.parametrize(
    ("value", "items"),
    [("1,2", [1, 2]), ("1, 2", [1, 2]), ("", []), ([1, "2"], [1, 2]), ((3,), [3])],
)
def test_values_of_a_list(value, items):
    """Text is split at the separator; a list is taken as it is, and both item by item."""
    assert Parameter("p", separator=",", type=int, default="0").convert(value) == items


def test_a_list_is_nothing_else():
    """The error says what of."""
    parameter = Parameter("p", separator=":", type=int, default="0")
    with pytest.raises(ParameterError, match="takes list of int, not 3"):
        parameter.convert(3)
    with pytest.raises(ParameterError, match="takes list of int, not 'x'"):
        parameter.convert("1:x")


def test_none_is_a_value_only_where_it_is_the_default():
    """A parameter that always has a value cannot be given none."""
    assert Parameter("p", type=int).convert(None) is None
    with pytest.raises(ParameterError):
        Parameter("p", default=3).convert(None)


@pytest.mark.parametrize(
    ("default", "kind"),
    [
        *[("x", "str"), (3, "int"), (3.0, "float"), (True, "bool"), (None, "str")],
        *[({"a": 1}, "JSON"), ([1, 2], "JSON"), (lambda: 3, "str")],
    ],
)
def test_the_type_follows_from_the_default(default, kind):
    """Unless it is given."""
    assert Parameter("p", default=default).type_name == kind


def test_the_type_of_items_follows_from_the_default():
    """A list of numbers holds numbers."""
    parameter = Parameter("p", default=[1, 2], separator=",")
    assert parameter.type_name == "list of int"
    assert parameter.convert("3,4") == [3, 4]


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text()))
def test_a_value_given_as_text_is_the_value(value):
    """What Python writes for a value, a parameter of its type reads."""
    parameter = Parameter("p", default=value)
    assert parameter.convert(str(value)) == value
    assert parameter.convert(value) == value


# --- callable defaults ------------------------------------------------------------------------


def test_a_default_that_is_found_out_when_the_run_starts():
    """It is called for each run, and not if a value is given."""
    count = itertools.count(1)
    cls = flow_with(p=Parameter("p", default=lambda: next(count), type=int))
    assert [resolve(cls)["p"], resolve(cls)["p"]] == [1, 2]
    assert resolve(cls, p=9)["p"] == 9
    assert next(count) == 3


def test_a_default_that_wants_to_know():
    """A function of one argument is told flow, parameter and user."""
    cls = flow_with(
        p=Parameter("p", default=lambda context: f"{context.flow_name}.{context.parameter_name}")
    )
    assert resolve(cls)["p"] == "Flow.p"
    assert isinstance(ParameterContext("F", "p", "me").user_name, str)


def test_a_default_that_fails():
    """The error names the parameter, and keeps the cause."""
    cls = flow_with(p=Parameter("p", default=lambda: 1 / 0, type=int))
    with pytest.raises(
        ParameterError, match="default of parameter 'p' failed: ZeroDivisionErr"
    ) as e:
        resolve(cls)
    assert isinstance(e.value.__cause__, ZeroDivisionError)


def test_a_default_that_gives_something_else():
    """It is checked like any value."""
    with pytest.raises(ParameterError, match="takes an int, not 'x'"):
        resolve(flow_with(p=Parameter("p", default=lambda: "x", type=int)))


# --- what cannot be a parameter ---------------------------------------------------------------


def test_tags_is_no_parameter():
    """Every run has tags."""
    with pytest.raises(ParameterError, match="cannot be called 'tags': every run has tags"):
        parameters_of(flow_with(labels=Parameter("tags", default="")))


@pytest.mark.parametrize("name", ["two words", "1st", "--p"])
def test_a_name_is_one_word(name):
    """It is written on the command line and as a keyword."""
    with pytest.raises(ParameterError, match="use letters, digits and underscores"):
        parameters_of(flow_with(p=Parameter(name, default="")))


@pytest.mark.parametrize(("one", "other"), [("p", "p"), ("p", "P"), ("a-b", "a_b")])
def test_two_parameters_of_one_name(one, other):
    """Nor of two names that differ in case or dashes: the environment could not tell them apart."""
    cls = flow_with(a=Parameter(one, default=1), b=Parameter(other, default=2))
    with pytest.raises(ParameterError, match="'a' and 'b' are both called"):
        parameters_of(cls)


def test_a_default_of_another_type():
    """It is found when the flow is checked, not when somebody relies on the default."""
    with pytest.raises(ParameterError, match="'p' takes an int, not 'x'"):
        parameters_of(flow_with(p=Parameter("p", default="x", type=int)))


def test_a_type_that_no_parameter_has():
    """The error lists those that there are."""
    with pytest.raises(ParameterError, match="'p' has the type <class 'dict'>; it can be str, int"):
        Parameter("p", type=dict)


# --- as an attribute --------------------------------------------------------------------------


def test_a_parameter_explains_itself():
    """To people, and to the command line."""
    parameter = Training.alpha
    assert repr(parameter) == "<Parameter alpha: float, default=0.1>"
    assert repr(Training.data) == "<Parameter data: str, required>"
    assert (parameter.name, parameter.attribute) == ("alpha", "alpha")
    assert (Training.rounds.name, Training.rounds.attribute) == ("max-rounds", "rounds")
    assert Training.rounds.environment_name == "ASYNCFLOW_RUN_MAX_ROUNDS"
    assert parameter.help == "The learning rate."


def test_a_parameter_is_read_only():
    """The error says so, rather than that there is no setter."""
    flow = Training(use_cli=False)
    with pytest.raises(AttributeError, match="parameter 'alpha' is read-only"):
        flow.alpha = 3  # type: ignore[assignment]  # the mistake that is examined
    with pytest.raises(AttributeError, match="parameter 'alpha' is read-only"):
        del flow.alpha


def test_outside_a_run_a_parameter_has_its_default():
    """So that a method can be tried in a unit test."""
    flow = Training(use_cli=False)
    assert flow.alpha == 0.1
    assert flow.layers == [8, 8]
    with pytest.raises(AttributeError, match="'data' has no value here"):
        _ = flow.data


TYPED = """
from typing import Any, assert_type
from asyncflow import FlowSpec, JSONType, Parameter
from asyncflow.flow.parameters import ParameterContext

def from_context(context: ParameterContext) -> int:
    return 3

class F(FlowSpec):
    number = Parameter("number", default=0.1)
    flag = Parameter(default=True)
    text = Parameter("text", default="x", help="Words.")
    whole = Parameter("whole", default=3)
    wider = Parameter("wider", default=1, type=float)
    needed = Parameter("needed", type=int, required=True)
    needed_text = Parameter("needed_text", required=True)
    optional = Parameter("optional")
    optional_number = Parameter("optional_number", type=float)
    none = Parameter("none", default=None, type=int)
    json = Parameter("json", type=JSONType, default='{"a": 1}')
    structure = Parameter("structure", default={"a": 1})
    words = Parameter("words", separator=",", default="a,b")
    numbers = Parameter("numbers", separator=",", type=int, default="1,2")
    items = Parameter("items", separator=",", default=[1, 2])
    optional_words = Parameter("optional_words", separator=",")
    optional_items = Parameter("optional_items", separator=",", type=int)
    needed_items = Parameter("needed_items", separator=",", type=float, required=True)
    called = Parameter("called", default=lambda: 5)
    told = Parameter("told", default=from_context, type=int)
    needed_json = Parameter("needed_json", type=JSONType, required=True)
    positional = Parameter("positional", 0.1)

    def check(self) -> None:
        assert_type(self.number, float)
        assert_type(self.flag, bool)
        assert_type(self.text, str)
        assert_type(self.whole, int)
        assert_type(self.wider, float)
        assert_type(self.needed, int)
        assert_type(self.needed_text, str)
        assert_type(self.optional, Any)
        assert_type(self.optional_number, Any)
        assert_type(self.none, Any)
        assert_type(self.json, Any)
        assert_type(self.structure, dict[str, int])
        assert_type(self.words, list[str])
        assert_type(self.numbers, Any)
        assert_type(self.items, Any)
        assert_type(self.optional_words, Any)
        assert_type(self.optional_items, Any)
        assert_type(self.needed_items, Any)
        assert_type(self.called, Any)
        assert_type(self.told, Any)
        assert_type(self.needed_json, Any)
        assert_type(self.positional, Any)
        self.number = 3.0  # type: ignore[assignment]  # refused: that is examined
        self.anything = self.something_else

assert_type(F.number, Parameter[float])
"""


@pytest.mark.slow
def test_a_type_checker_knows_the_value(tmp_path):
    """From the default, else from the type, else it is `Any`; and nothing can be assigned."""
    pytest.importorskip("mypy", reason="only where the linters are installed")
    (tmp_path / "typed.py").write_text(textwrap.dedent(TYPED))
    root = Path(__file__).parents[2]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "typed.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout.startswith("Success"), checked.stdout
