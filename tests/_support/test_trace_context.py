"""Where the spans of a run's tasks belong, from what its first event says."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow._support.trace_context import (
    SpanName,
    derived_id,
    span_of_attempt,
    span_of_run,
)

names = st.builds(
    SpanName,
    st.integers(1, (1 << 128) - 1),
    st.integers(1, (1 << 64) - 1),
    st.integers(0, 255),
)


@given(names)
def test_a_traceparent_names_the_span_that_it_was_made_of(name):
    """As text and back."""
    assert span_of_run({"traceparent": name.traceparent()}) == name


@given(names, st.integers(1, 1 << 32), st.integers(0, 9))
def test_the_id_of_an_attempt_is_as_the_page_on_events_says(name, task, attempt):
    """Anybody can find the span of an attempt."""
    trace = {"traceparent": name.traceparent(), "attempts": "derived"}
    _, of_trace, of_span, _ = trace["traceparent"].split("-")
    text = f"{of_trace}-{of_span}/{task}/{attempt}".encode("ascii")
    expected = hashlib.blake2b(text, digest_size=8).hexdigest()
    found = span_of_attempt(trace, task, attempt)
    assert found == name._replace(span_id=int(expected, 16))
    assert derived_id(name, task, attempt) == found.span_id
    del trace["attempts"]
    assert span_of_attempt(trace, task, attempt) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"01-{'1' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"00-{'G' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01\n",
    ],
)
def test_what_is_no_traceparent_names_nothing(text):
    """A journal may have been written by anybody."""
    assert span_of_run({"traceparent": text}) is None
    assert span_of_attempt({"traceparent": text, "attempts": "derived"}, 1, 0) is None
