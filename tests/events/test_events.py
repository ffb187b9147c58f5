"""Events: the same after msgpack, after JSON, and after both."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import RecordError, UnknownEventError
from asyncflow.events import (
    Event,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    event_types,
    from_json,
    from_json_data,
    to_json,
    to_json_data,
)
from asyncflow.events.manifests import pack_manifest, unpack_manifest
from asyncflow.events.output_lines import (
    PIECE_BYTES,
    count_pieces,
    split_end,
    split_lines,
    split_pieces,
    whole_characters,
)
from asyncflow.events.packing import journalled, pack_event, unpack_events
from asyncflow.events.records import STREAMS, fields_of, unpack_result
from asyncflow.events.types import from_microseconds, to_microseconds
from asyncflow.values import ArtifactRef, Encoding, Failure, Outcome, Place, TaskKey
from tests.support.output_records import pack_logged

FLOW, RUN = "F", "17"

# --- events of every type ---------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
naturals = st.integers(0, (1 << 63) - 1)
seconds = st.floats(0, 1e9)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
texts_by_name = st.dictionaries(texts, texts, max_size=3)
encodings = st.sampled_from([int(encoding) for encoding in Encoding])
inline = st.builds(
    lambda encoding, name, data: ArtifactRef(0, encoding, name, len(data), b"", "", 0, data),
    encodings,
    texts,
    st.binary(max_size=40),
)
in_files = st.builds(
    ArtifactRef,
    place=st.sampled_from([int(Place.SEGMENT), int(Place.BLOB)]),
    encoding=encodings,
    type_name=texts,
    size=st.integers(0, (1 << 18) - 1),
    digest=st.binary(min_size=32, max_size=32),
    file=st.sampled_from(["17/w123.seg", "17/journal"]),
    offset=st.integers(0, (1 << 62) - 1),
    data=st.just(b""),
)
refs = inline | in_files
run_ids = st.integers(0, (1 << 63) - 1).map(str)
manifests = st.dictionaries(texts, refs, max_size=3)
of_event = {
    "flow": st.just(FLOW),
    "run_id": st.just(RUN),
    "seq": st.integers(1, (1 << 63) - 1),
    "time": moments,
}
of_task = {
    **of_event,
    "step": texts,
    "task_id": st.integers(1, (1 << 32) - 1).map(str),
    "attempt": st.integers(0, 1000),
}
paths = st.lists(st.integers(0, (1 << 32) - 1), max_size=4).map(tuple)
items = st.one_of(st.just(b""), refs.map(msgpack.packb))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
fanouts = st.none() | st.integers(0, (1 << 32) - 1)
usage = {"cpu_seconds": st.none() | seconds, "peak_memory": st.none() | st.integers(0, 1 << 62)}
failure = {"exception_type": texts, "message": texts, "traceback": texts}

started = st.builds(
    RunStarted,
    **of_event,
    graph=st.dictionaries(texts, plain, max_size=3),
    parameters=texts_by_name,
    tags=st.lists(texts, max_size=3).map(tuple),
    manifest=manifests.map(pack_manifest),
    origin_run_id=st.none() | run_ids,
    source=st.dictionaries(texts.filter("ref".__ne__), plain, max_size=3),
    user=texts,
    pid=naturals,
    host=texts,
    versions=texts_by_name,
    signature=st.dictionaries(texts, plain, max_size=3),
)
stored: st.SearchStrategy[Event] = st.one_of(
    started,
    st.builds(TaskStarted, **of_task, path=paths, pid=naturals, item=texts),
    st.builds(
        TaskSucceeded,
        **of_task,
        path=paths,
        manifest=manifests.map(pack_manifest),
        seconds=seconds,
        pid=naturals,
        fanout=fanouts,
        items=items,
        log=naturals,
        **usage,
    ),
    st.builds(
        TaskFailed,
        **of_task,
        **failure,
        path=paths,
        will_retry=st.booleans(),
        seconds=seconds,
        pid=naturals,
        log=naturals,
        item=texts,
        **usage,
    ),
    st.builds(TaskRetried, **of_task, path=paths, after_seconds=seconds),
    st.builds(
        TaskCloned,
        **of_task,
        path=paths,
        manifest=manifests.map(pack_manifest),
        fanout=fanouts,
        items=items,
        origin_run_id=run_ids,
        origin_task_id=texts,
        item=texts,
    ),
    st.builds(RunSucceeded, **of_event, seconds=seconds),
    st.builds(
        RunFailed,
        **of_event,
        **failure,
        step=texts,
        task_id=st.just("") | st.integers(1, 1 << 32).map(str),
        attempt=st.integers(0, 1000),
        seconds=seconds,
    ),
    st.builds(RunCancelled, **of_event, reason=texts, seconds=seconds),
)
logged = st.builds(
    TaskLogged,
    **of_task,
    stream=st.sampled_from(STREAMS),
    line=texts,
    end=st.sampled_from(["", "\n", "\r\n"]),
    pid=naturals,
)

LOG = TaskLogged(
    flow=FLOW,
    run_id=RUN,
    seq=5,
    time=from_microseconds(1_795_472_682_985_927),
    step="train",
    task_id="3",
    attempt=0,
    stream="stdout",
    line="",
)


@given(stored)
def test_an_event_is_the_same_after_the_journal(event):
    """Every type, every field."""
    assert list(unpack_events(pack_event(event), FLOW, RUN)) == [event]


@given(stored | logged)
def test_an_event_is_the_same_after_json(event):
    """Through the text, as another program would read it."""
    text = json.dumps(to_json_data(event))
    assert from_json_data(json.loads(text)) == event


@given(stored | logged)
def test_an_event_is_the_same_after_a_line_of_json(event):
    """As the command line prints it, and as a program reads it back."""
    line = to_json(event)
    assert "\n" not in line
    assert from_json(line) == from_json(line.encode()) == event


@given(stored | logged, st.dictionaries(st.sampled_from(["new", "newer"]), plain, min_size=1))
def test_json_of_a_later_version_is_read_as_far_as_it_is_known(event, later):
    """What was added is passed over; what is missing takes its default."""
    assert from_json_data({**to_json_data(event), **later}) == event


def test_json_without_artifacts_tells_of_none_and_others_may_have_some():
    """A later version may leave them out where there are none, and add them elsewhere."""
    seen: dict[str, Any] = {"flow": FLOW, "run_id": RUN, "seq": 2, "time": datetime.now(UTC)}
    key: dict[str, Any] = {"step": "start", "task_id": "1", "attempt": 0}
    ref = ArtifactRef(Place.INLINE, Encoding.BYTES, "bytes", 1, b"", "", 0, b"x")
    ended = TaskSucceeded(**seen, **key, manifest=pack_manifest({"x": ref}))
    began = TaskStarted(**seen, **key)
    data = to_json_data(ended)
    artifacts = data.pop("artifacts")
    assert from_json_data(data) == replace(ended, manifest=pack_manifest({}))
    assert from_json_data({**to_json_data(began), "artifacts": artifacts}) == began


@given(started, refs)
def test_a_class_that_was_pickled_is_named_in_json_too(event, ref):
    """A flow of a notebook is known by a ref, whose bytes JSON cannot say."""
    event = replace(event, source={**event.source, "kind": "pickle", "ref": list(ref)})
    assert from_json(to_json(event)) == event
    assert list(unpack_events(pack_event(event), FLOW, RUN)) == [event]


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", '{"type": "RunSucceeded"}'])
def test_what_is_no_event_is_refused(text):
    """With what a program would catch."""
    with pytest.raises(ValueError, match=r"Expecting value|not the JSON of an event"):
        from_json(text)


@given(manifests)
def test_a_manifest_is_the_same_after_packing(manifest):
    """Refs come back as refs."""
    again = unpack_manifest(pack_manifest(manifest))
    assert again == manifest
    assert all(isinstance(ref, ArtifactRef) for ref in again.values())


@given(moments)
def test_times_are_kept_to_the_microsecond(moment):
    """No float comes between."""
    assert from_microseconds(to_microseconds(moment)) == moment


def test_a_time_of_another_zone_is_the_same_moment():
    """What is stored is UTC."""
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 11, 23, 22, 24, 42, 987, tzinfo=zone)
    assert from_microseconds(to_microseconds(moment)) == moment
    assert from_microseconds(to_microseconds(moment)).tzinfo is UTC


def test_every_type_has_its_own_code_in_order():
    """Codes are for ever: journals hold them."""
    assert [cls.code for cls in event_types()] == list(range(1, 13))
    assert [cls.__name__ for cls in event_types()] == [
        "RunStarted",
        "TaskStarted",
        "TaskLogged",
        "TaskSucceeded",
        "TaskFailed",
        "TaskRetried",
        "TaskCloned",
        "RunSucceeded",
        "RunFailed",
        "RunCancelled",
        "TaskYielded",
        "CardUpdated",
    ]


# --- other versions ---------------------------------------------------------------------------


@given(stored, st.lists(st.just(7), min_size=1, max_size=3))
def test_fields_of_a_later_version_are_passed_over(event, later):
    """They are only ever added at the end."""
    values = msgpack.unpackb(pack_event(event), strict_map_key=False)
    fields = len(dataclasses.fields(event)) - len(dataclasses.fields(Event))
    assert len(values) == 3 + fields
    record = msgpack.packb([*values, *later])
    assert list(unpack_events(record, FLOW, RUN)) == [event]


@given(refs)
def test_fields_that_a_later_version_adds_to_a_ref_are_passed_over(ref):
    """Wherever an event has one, in the journal and in JSON."""
    longer = [*ref, "of a later version"]
    task: dict[str, Any] = {"step": "train", "task_id": "3", "attempt": 0, "path": ()}
    about: dict[str, Any] = {"flow": FLOW, "run_id": RUN, "seq": 1, "time": from_microseconds(0)}
    manifest, items = msgpack.packb({"model": longer}), msgpack.packb(longer)
    done = TaskSucceeded(**about, **task, manifest=manifest, items=items)
    begun = RunStarted(**about, graph={}, manifest=manifest, source={"ref": longer})
    told = to_json_data(done)
    plain = to_json_data(
        replace(done, manifest=pack_manifest({"model": ref}), items=msgpack.packb(ref))
    )
    assert told == plain
    assert done.artifacts == begun.artifacts == {"model": ref}
    assert to_json_data(begun)["source"]["ref"] == told["items"]
    told["artifacts"]["model"]["newer"] = told["items"]["newer"] = 7
    assert from_json_data(told) == from_json_data(plain)


def test_fields_that_an_older_version_did_not_have_take_their_defaults():
    """An old journal stays readable."""
    record = msgpack.packb([TaskStarted.code, 9, 0, "train", 3, 1])
    [event] = unpack_events(record, FLOW, RUN)
    assert event == TaskStarted(
        flow=FLOW,
        run_id=RUN,
        seq=9,
        time=from_microseconds(0),
        step="train",
        task_id="3",
        attempt=1,
        path=(),
        pid=0,
    )


def test_an_event_of_a_later_version_is_passed_over():
    """A reader need not know every code."""
    assert list(unpack_events(msgpack.packb([99, 1, 0, "new"]), FLOW, RUN)) == []


def test_json_of_an_unknown_type_is_an_error():
    """There is nothing that it could become."""
    with pytest.raises(UnknownEventError, match="TaskBlessed"):
        from_json_data({"type": "TaskBlessed", "time": "2026-01-01T00:00:00+00:00"})


# --- what somebody else wrote -----------------------------------------------------------------

WRONG: list[object] = [None, True, -1, 1 << 63, 1.5, float("nan"), "x", b"x", [], [[]], {}]


@given(stored, st.integers(0, 18), st.sampled_from(WRONG))
def test_a_record_with_one_wrong_field_is_an_event_or_is_refused(event, at, wrong):
    """Its checksum is right; whatever the field is, no other error comes of it."""
    values = msgpack.unpackb(pack_event(event), strict_map_key=False)
    values[at % len(values)] = wrong
    try:
        again = list(unpack_events(msgpack.packb(values), FLOW, RUN))
    except RecordError:
        return
    for each in again:
        try:
            assert from_json(to_json(each)) == each
        except RecordError:  # its manifest or its items, which are packed by themselves
            assert wrong == b"x"


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        *[(1, 0), (2, 1 << 60), (4, 0), (4, 1 << 32), (5, -1), (6, [1 << 32]), (6, ["0"])],
        *[(8, -1.0), (15, -0.5), (15, float("nan")), (16, -1), (16, 1 << 63)],
    ],
)
def test_numbers_that_nothing_can_have_are_refused(at, wrong):
    """A time that no clock shows, an id that no table holds, an index that no item has."""
    event = TaskSucceeded(
        flow=FLOW, run_id=RUN, seq=1, time=LOG.time, step="a", task_id="1", attempt=0
    )
    values = msgpack.unpackb(pack_event(event))
    values[at] = wrong
    with pytest.raises(RecordError):
        unpack_events(msgpack.packb(values), FLOW, RUN)


def test_a_run_that_ended_before_it_began_by_a_clock_set_back_took_no_time():
    """An earlier version journalled such durations: its runs stay readable."""
    ended = RunSucceeded(flow=FLOW, run_id=RUN, seq=9, time=LOG.time, seconds=-5.0)
    assert list(unpack_events(pack_event(ended), FLOW, RUN)) == [replace(ended, seconds=0.0)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"place": 3},
        {"encoding": 4},
        {"size": 16 << 20},
        {"digest": b""},
        {"file": "../secret"},
        {"file": "17/../secret"},
        {"file": "/etc/passwd"},
        {"offset": -1},
        {"offset": 1 << 62},
    ],
    ids=str,
)
def test_a_ref_to_what_the_store_cannot_have_is_refused(wrong):
    """A value in a segment lies in the folder of a run of the flow, and is short."""
    ref = ArtifactRef(1, 0, "int", 5, bytes(32), "17/w1.seg", 0, b"")
    assert unpack_manifest(pack_manifest({"x": ref})) == {"x": ref}
    with pytest.raises(RecordError, match="invalid ref"):
        unpack_manifest(pack_manifest({"x": ref._replace(**wrong)}))


@given(st.binary(max_size=60))
def test_what_is_no_record_at_all_is_refused(data):
    """Be it MessagePack or not; numbers in it claim no memory."""
    try:
        values = fields_of(data)
    except RecordError:
        return
    assert isinstance(values[0], int)


def test_a_record_that_claims_to_hold_more_than_it_has_bytes_is_refused():
    """A thousand arrays within each other, said to have a million elements each: none is made."""
    data = (b"\xdd" + (1 << 20).to_bytes(4, "big")) * 1000
    with pytest.raises(RecordError):
        fields_of(data + bytes(1 << 10))


# --- text that is not text --------------------------------------------------------------------


@pytest.mark.parametrize("cls", [TaskFailed, RunFailed])
def test_a_message_that_is_not_unicode_is_journalled_as_it_would_be_shown(cls):
    """The name of a file that is not UTF-8 gets into messages; the run must not end over it."""
    event = cls(
        flow=FLOW,
        run_id=RUN,
        seq=1,
        time=from_microseconds(0),
        step="a",
        task_id="1",
        attempt=0,
        message="no file caf\udce9",
    )
    [again] = unpack_events(pack_event(event), FLOW, RUN)
    assert again == replace(event, message="no file caf\\udce9")
    assert journalled(event) == (pack_event(event), again)  # and so subscribers are told


# --- output -----------------------------------------------------------------------------------

outputs = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r", b"\n", b"a", "é".encode(), b"\xff", b" "]), max_size=40).map(
        b"".join
    ),
)


def pieces_of(data: bytes, first_seq: int = 5) -> list[TaskLogged]:
    """The events of one record of output."""
    record = pack_logged(first_seq, to_microseconds(LOG.time), ("train", 3, 0), 0, 4, data, 0)
    return list(unpack_events(record, FLOW, RUN))  # type: ignore[arg-type]  # no other in such a record


@given(outputs)
def test_output_is_cut_into_lines_and_nothing_is_lost(data):
    """Only the last piece may lack its line end; a carriage return ends no line."""
    pieces = split_pieces(data)
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    assert all(b"\n" not in piece[:-1] for piece in pieces)
    assert all(pieces)


@given(outputs)
def test_lines_are_the_text_of_the_pieces(data):
    """Whichever way is taken: the short one is for text that is plain."""
    assert split_lines(data) == [split_end(piece) for piece in split_pieces(data)]


def test_an_event_of_output_is_like_one_that_is_made_by_hand():
    """It is made past the checks: nothing may be missing, and it cannot be changed either."""
    [event] = pieces_of(b"text\n")
    assert event == replace(LOG, line="text", pid=4)
    assert hash(event) == hash(replace(LOG, line="text", pid=4))
    assert repr(event) == repr(replace(LOG, line="text", pid=4))
    with pytest.raises(FrozenInstanceError):
        event.line = "other"  # type: ignore[misc]  # a frozen event has to refuse it


@given(outputs.filter(bool))
def test_pieces_are_counted_without_being_made(data):
    """The engine numbers events that nobody watches."""
    assert count_pieces(data) == len(split_pieces(data))


def test_pieces_of_a_long_line_are_counted_too():
    """Where they are cut depends on the characters."""
    data = "€".encode() * PIECE_BYTES + b"\nshort"
    assert count_pieces(data) == len(split_pieces(data)) == 5


@given(outputs)
def test_a_record_of_output_stands_for_as_many_events_as_it_has_pieces(data):
    """Their seq goes on without gaps, and their text is the output's."""
    found = pieces_of(data)
    assert [event.seq for event in found] == list(range(5, 5 + len(split_pieces(data))))
    text = "".join(event.line + event.end for event in found)
    assert text == data.decode("utf-8", "backslashreplace")
    assert all(
        event == replace(LOG, seq=event.seq, line=event.line, end=event.end, pid=4)
        for event in found
    )


@given(st.text(max_size=30), st.integers(0, 40), st.sampled_from(["x", "é", "€", "😀"]))
def test_a_long_line_is_cut_between_characters(text, offset, character):
    """No piece is longer than the limit, and none ends within a character."""
    fill = character * (2 * PIECE_BYTES // len(character.encode()))
    data = ("y" * offset + fill + text).encode("utf-8", "ignore") + b"\n"
    pieces = split_pieces(data)
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= PIECE_BYTES
    for piece in pieces:
        piece.decode()


@given(st.binary(max_size=12))
def test_whole_characters_leaves_at_most_three_bytes(data):
    """And never cuts what would have been whole."""
    at = whole_characters(data)
    assert len(data) - 3 <= at <= len(data)
    try:
        data.decode()
    except UnicodeDecodeError:
        pass
    else:
        assert at == len(data)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), st.integers(0, 3)
)
def test_whole_characters_finds_the_last_whole_one(text, cut):
    """Text cut anywhere is whole up to there, and the rest is the beginning of one character."""
    data = text.encode()
    data = data[: max(0, len(data) - cut)]
    at = whole_characters(data)
    assert text.startswith(data[:at].decode())
    assert len(data[:at].decode() + "?" * bool(data[at:])) <= len(text)


def test_ten_megabytes_without_a_line_end_are_cut_in_linear_time():
    """The pieces are small, and there are no more of them than needed."""
    pieces = split_pieces(b"x" * 10_000_000)
    assert len(pieces) == -(-10_000_000 // PIECE_BYTES)


@pytest.mark.parametrize(
    ("piece", "line", "end"),
    [
        (b"a\n", "a", "\n"),
        (b"a\r\n", "a", "\r\n"),
        (b"a\r", "a\r", ""),
        (b"\n", "", "\n"),
        (b"a", "a", ""),
        (b"\xff\xc3\n", "\\xff\\xc3", "\n"),
    ],
)
def test_the_line_end_stands_apart(piece, line, end):
    """And bytes that are not UTF-8 are shown."""
    assert split_end(piece) == (line, end)


# --- what events say of themselves ------------------------------------------------------------


@given(stored)
def test_an_event_made_of_a_record_is_of_its_class_and_cannot_be_changed(event):
    """Its fields are set without its constructor: nothing of that is left to be seen."""
    (made,) = unpack_events(pack_event(event), FLOW, RUN)
    assert type(made) is type(event)
    assert asdict(made) == asdict(event)
    with pytest.raises(FrozenInstanceError):
        made.seq = 1  # type: ignore[misc]  # a frozen event has to refuse it
    with pytest.raises(FrozenInstanceError):
        del made.seq


def test_an_event_cannot_be_changed():
    """It has happened."""
    with pytest.raises(FrozenInstanceError):
        LOG.line = "other"  # type: ignore[misc]  # a frozen event has to refuse it
    (made,) = unpack_events(pack_logged(5, 0, ("a", 1, 0), 0, 4, b"text", 0), FLOW, RUN)
    with pytest.raises(FrozenInstanceError):
        made.seq = 1  # type: ignore[misc]  # a frozen event has to refuse it


def test_events_name_their_run_and_their_task():
    """The pathspec is the one that the client takes."""
    ended = RunSucceeded(flow=FLOW, run_id=RUN, seq=1, time=LOG.time)
    assert (LOG.pathspec, ended.pathspec) == ("F/17/train/3", "F/17")


@given(st.sampled_from([TaskStarted, TaskSucceeded, TaskFailed, TaskCloned]), paths)
def test_the_key_names_the_task_within_the_graph(cls, path):
    """The same in every run, whatever the task's id."""
    event = cls(
        flow=FLOW, run_id=RUN, seq=1, time=LOG.time, step="a", task_id="4", attempt=0, path=path
    )
    assert event.key == TaskKey("a", path)


@pytest.mark.parametrize("cls", [TaskFailed, RunFailed])
def test_a_failure_outlives_its_event(cls):
    """As a value of its own."""
    event = cls(
        flow=FLOW,
        run_id=RUN,
        seq=1,
        time=LOG.time,
        step="a",
        task_id="4",
        attempt=2,
        exception_type="ValueError",
        message="no",
        traceback="Traceback …",
    )
    assert event.failure == Failure("a", "4", 2, "ValueError", "no", "Traceback …")


@pytest.mark.parametrize("kind", [TaskSucceeded, TaskCloned])
def test_an_event_has_each_field_of_an_outcome(kind):
    """By the same name, with the same default: the engine hands an outcome to an event as it is."""
    defaults = {each.name: each.default for each in fields(kind)}
    assert {name: defaults[name] for name in Outcome._fields} == Outcome()._asdict()


@given(stored)
def test_a_worker_reads_what_was_handed_on_without_the_event(event):
    """Faster, and the same; what hands nothing on is refused."""
    record = pack_event(event)
    if not isinstance(event, RunStarted | TaskSucceeded | TaskCloned):
        with pytest.raises(RecordError, match="passes nothing on"):
            unpack_result(record)
        return
    result = unpack_result(record)
    assert unpack_manifest(result.outcome.manifest) == event.artifacts
    if not isinstance(event, RunStarted):
        assert (result.step, str(result.task_id)) == (event.step, event.task_id)
        assert tuple(result.path) == event.path
        assert result.outcome == Outcome(event.manifest, event.fanout, event.items)
