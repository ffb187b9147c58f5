"""What a flow says of its parameters: what a form needs, as plain data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import FlowSpec, Parameter, step
from asyncflow.events.field_types import is_plain
from asyncflow.flow.parameter_types import JSONType
from asyncflow.flow.signature import given_again, given_as, signature_of


class Described(FlowSpec):
    """A flow with parameters of every kind."""

    n = Parameter("n", default=1, help="how many")
    rate = Parameter("rate", type=float, required=True)
    words = Parameter("words", default="a,b", separator=",")
    many = Parameter("many", type=int, multiple=True, default=(1, 2))
    table = Parameter("table", default={"a": [1, None]})
    made = Parameter("made", default=lambda: "now")
    long = Parameter("long", default="x" * 5000)

    @step
    def start(self) -> None:
        """Begin."""
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


def test_each_parameter_says_its_type_default_and_help():
    """A default is the text by which it is given; one that is computed or long is left out."""
    told = signature_of(Described)
    assert told["doc"] == "A flow with parameters of every kind."
    found = told["parameters"]
    assert {name: (each["type"], each["default"]) for name, each in found.items()} == {
        "n": ("int", "1"),
        "rate": ("float", None),
        "words": ("list of str", "a,b"),
        "many": ("tuple of int", "1 2"),
        "table": ("JSON", '{"a": [1, null]}'),
        "made": ("str", None),
        "long": ("str", None),
    }
    assert found["n"]["help"] == "how many"
    assert [name for name, each in found.items() if each["required"]] == ["rate"]
    assert is_plain(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 7),
        ("rate", 0.25),
        ("words", ["x", "y"]),
        ("many", (3, 4, 5)),
        ("table", [{"b": "'"}, True, None]),
    ],
)
def test_what_a_run_shows_is_given_again(name, value):
    """The text leads to the same value."""
    parameter = vars(Described)[name]
    text = given_again(str(value), signature_of(Described)["parameters"][name])
    assert text is not None
    given_text = text.split() if parameter.multiple else text
    assert parameter.convert(given_text) == value


@given(shown=st.text(max_size=30), kind=st.sampled_from(["JSON", "str", "list of str"]))
def test_no_text_in_a_store_breaks_a_form(shown, kind):
    """Whatever a damaged or hostile record has there."""
    declared = {"type": kind, "separator": "," if kind == "list of str" else None}
    again = given_again(shown, declared)
    assert again is None or isinstance(again, str)


def test_a_value_that_no_text_gives_has_none():
    """Such as one that JSON cannot say."""
    assert given_as({1, 2}, {"type": "JSON"}) is None
    assert given_as(JSONType, {"multiple": True}) is None
