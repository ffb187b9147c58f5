"""The JSON of events that is put together from records says what that of the events says."""

from __future__ import annotations

import json

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.events.manifests import pack_changes, pack_manifest
from asyncflow.events.packing import events_of
from asyncflow.events.records import STARTED, SUCCEEDED, fields_of
from asyncflow.page.answers import to_bytes
from asyncflow.page.event_list import LONG, MOST_NAMES, event_data
from asyncflow.page.event_texts import EventTexts
from asyncflow.values import ArtifactRef, Encoding, Place

NOW = 1_795_472_682_985_927
REF = ArtifactRef(Place.INLINE, Encoding(0), "int", 1, b"", "", 0, b"x")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "a, b", "\u2028\x00\x7f", "\x85\u2029", "x" * LONG, "y" * (LONG + 1)]
)
numbers = st.integers(0, 1 << 32) | st.just((1 << 62) - 1)
times = st.integers(NOW - 10_000, NOW + 10_000) | st.just(0)
lists = st.lists(st.integers(1, 1 << 31), max_size=3) | st.just([*range(1, MOST_NAMES + 2)])
seconds = st.floats(0, 1e12) | st.integers(0, 10)
manifests = st.sampled_from(
    [
        b"\x80",
        b"",
        b"not a manifest",
        pack_manifest({"score": REF, 'a "name"': REF, "x" * 300: REF}),
        pack_manifest({f"a{number}": REF for number in range(MOST_NAMES + 1)}),
        pack_changes(99, {"score": REF}, ()),
    ]
)
heads = st.tuples(texts, st.integers(1, 1 << 31), st.integers(0, 300), lists)
started = st.tuples(numbers, lists, texts, texts).map(lambda rest: (STARTED, rest))
succeeded = st.tuples(
    *(
        manifests,
        seconds,
        numbers,
        st.none() | st.integers(0, 9),
        st.just(b""),
        numbers,
        numbers,
        texts,
    ),
    *(st.none() | seconds, st.none() | numbers, st.just(b"")),
).map(lambda rest: (SUCCEEDED, rest))


def whole(_):
    """What a manifest says with the one that it changes."""
    return {"of another record": REF}


@given(st.lists(st.tuples(times, heads, started | succeeded), min_size=1, max_size=4))
def test_a_text_made_of_fields_is_that_of_the_event(records):
    """Byte for byte, whatever the fields hold; of unusual records there is none."""
    made, usual = EventTexts(NOW), 0
    for seq, (time, head, (code, rest)) in enumerate(records, 1):
        values = fields_of(msgpack.packb([code, seq, time, *head, *rest]))
        text = made.of(values)
        (event,) = events_of(values, "F", "17", whole)
        assert text in {None, to_bytes(event_data(event, NOW))}
        assert text is None or len(text.decode().splitlines()) == 1
        usual += text is not None
        is_long = any(len(each) > LONG for each in values if isinstance(each, str))
        if not is_long and not any(len(each) > MOST_NAMES for each in values if type(each) is list):
            assert (text is None) == (code == SUCCEEDED and values[7][:1] in {b"\x93", b"n"})


def test_records_of_other_kinds_and_versions_have_no_such_text():
    """Events are made of them."""
    made = EventTexts(NOW)
    usual = [STARTED, 1, NOW, "work", 3, 0, [], 7, [], "", ""]
    assert made.of(usual) is not None
    assert made.of([*usual, "a field of a later version"]) is None
    assert made.of([99, *usual[1:]]) is None


def test_any_text_is_one_line_of_json():
    """A client that divides a stream of events with `str.splitlines` gets each whole."""
    said = "".join(map(chr, range(0x3000)))
    answer = to_bytes({said: said})
    assert len(answer.decode().splitlines()) == 1
    assert json.loads(answer) == {said: said}
