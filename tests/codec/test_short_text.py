"""The short text of a value: always there in time, never an exception, never long."""

from __future__ import annotations

import signal
import time
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.codec import short_text
from asyncflow.codec.short_text import ShortTexts
from asyncflow.values import MOST_ITEM_CHARACTERS


def text_of(value: object) -> str:
    """The text of one value."""
    return ShortTexts().of(value)


class Colour(Enum):
    RED = 1


@dataclass
class Order:
    number: int
    parts: list[int] = field(default_factory=list)
    secret: str = field(default="", repr=False)


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - untyped code has these


class Plain:
    def __init__(self) -> None:
        self.name = "berlin"


class Own:
    def __init__(self, say: Any) -> None:
        self.say = say

    def __repr__(self) -> Any:
        return self.say()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (None, "None"),
        ("a\nb", r"'a\nb'"),
        (b"x", "b'x'"),
        ((1,), "(1,)"),
        ([], "[]"),
        ({"id": 42, "tags": {"x"}}, "{'id': 42, 'tags': {'x'}}"),
        (list(range(1_000_000)), "[0, 1, 2, 3, 4, 5, …]"),
        ([[[[1]]]], "[[[[…]]]]"),
        (10**100_000, "<int of 332,193 bits>"),
        (Path("/data/a.csv"), "'/data/a.csv'"),
        (date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (Colour.RED, "Colour.RED"),
        (Order(3, [1] * 1000, "no"), "Order(number=3, parts=[1, 1, 1, 1, 1, 1, …])"),
        (Pair(1, "b"), "Pair(left=1, right='b')"),
        (Plain(), "Plain(name='berlin')"),
        (Own(lambda: "as it says"), "as it says"),
        (Own(lambda: "<Thing at 0x7f00dead>"), "<Thing>"),
    ],
    ids=count(),
)
def test_a_short_value_is_called_by_its_repr_and_a_long_one_by_the_beginning(value, text):
    """The same value has the same text in every process: no address is in it."""
    assert text_of(value) == text


def test_of_a_long_text_the_beginning_and_the_end_are_shown():
    """The end of a file's name says most."""
    text = text_of("s3://bucket/" + "deep/" * 100 + "part-00012.parquet")
    assert text.startswith("'s3://bucket/deep/")
    assert text.endswith("part-00012.parquet'")
    assert "…" in text


def test_an_array_is_called_by_its_shape():
    """Its values would take long, and say little."""
    np = pytest.importorskip("numpy", reason="NumPy is not installed")
    assert text_of(np.zeros((3, 4))) == "<ndarray (3, 4) float64>"


def _raise(error: BaseException) -> Any:
    raise error


def _hang() -> None:
    while True:
        time.sleep(1)


@pytest.mark.parametrize(
    "say",
    [
        lambda: _raise(ValueError("no")),
        lambda: _raise(SystemExit(3)),
        lambda: _raise(KeyboardInterrupt()),
        lambda: _say_again(),  # noqa: PLW0108 - it is defined below
        lambda: 7,
        _hang,
    ],
    ids=["raises", "exits", "interrupts", "recurses", "says no text", "hangs"],
)
def test_a_hostile_repr_gives_the_name_of_its_class(say):
    """In the main thread, where steps run, it may not even take its time."""
    assert text_of(Own(say)) == "<Own>"


def _say_again() -> str:
    return repr(Own(_say_again))


def test_a_slow_class_is_asked_once():
    """100,000 items of it do not take 100,000 times as long."""
    asked = []

    def slow() -> str:
        asked.append(1)
        time.sleep(0.05)
        return ""

    texts = ShortTexts()
    assert [texts.of(Own(slow)) for _ in range(3)] == ["<Own>"] * 3
    assert asked == [1]


def test_a_timer_of_the_program_goes_on():
    """A step may have set one for itself."""
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 600)
        assert text_of(Own(lambda: "short")) == "short"
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert text_of(Own(lambda: "short")) == "short"
        deadline = time.monotonic() + 180
        while not rung and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung == [1]


def test_wherever_the_timer_comes_it_ends_the_call_alone(monkeypatch):
    """On a busy machine it may come before the call has begun, or after it has returned."""
    before, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    texts = ShortTexts()
    for seconds in range(1, 400):
        monkeypatch.setattr(short_text, "_CALL_SECONDS", seconds * 1e-6)
        assert texts.of(Own(lambda: "short")) in {"short", "<Own>"}
        texts._slow.clear()
    assert signal.getsignal(signal.SIGALRM) is before
    left, interval = signal.getitimer(signal.ITIMER_REAL)  # that of the test itself
    assert 0 < timer[0] - left < timer[0] / 2
    assert interval == 0


def test_in_another_thread_it_works_too():
    """A large list of an async step is stored in a thread."""
    found: list[str] = []
    thread = Thread(target=lambda: found.append(text_of(Own(lambda: "short"))))
    thread.start()
    thread.join()
    assert found == ["short"]


values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(values)
def test_no_text_is_long(value):
    """Whatever the value, a text fits into a line of a log."""
    assert 0 < len(text_of(value)) <= MOST_ITEM_CHARACTERS
