"""Stores that are damaged anywhere: each question has an answer, and that says what is known."""

from __future__ import annotations

import shutil
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncflow.errors import AsyncflowError
from asyncflow.page.answers import AskedWrongly, error_answer, to_bytes
from asyncflow.page.event_list import EventChoice, event_list
from asyncflow.page.flow_pages import Durations, form_of
from asyncflow.page.log_lines import LogChoice, log_lines
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.page.run_comparison import compare
from asyncflow.page.run_overview import overview
from asyncflow.page.run_rows import Choice, RunRows
from asyncflow.page.task_detail import artifact_detail, task_detail
from asyncflow.page.task_list import TaskChoice, task_list
from asyncflow.page.timeline import TimelineChoice, timeline
from asyncflow.scheduling.resume_preview import plan_data, preview_recorded
from tests.durability.chaos import nonsense
from tests.support.page_stores import RUNS, asking, begin

RUN = RUNS["succeeded"]
FILES = ("journal", "summary", "index", "tags", "w1.seg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with two runs that are whole."""
    store = tmp_path_factory.mktemp("damage") / "whole"
    for kind in ("succeeded", "failed"):
        run = begin(store, kind, tags=("a", "b"))
        for index in range(4):
            task = run.start("work", (index,))
            run.log(task, b"line\n" * 20)
            run.fail(task, will_retry=True)
            run.start("work", task=task)
            run.succeed(task, {"score": "x" * 2000, "n2": index})
        run.run("join", best=3)
        run.run("end")
        run.finish()
    OpenedRuns(str(store)).run("Made", RUN).add_tag("c")
    return store


def questions(store, flow="Made", run=RUN, other=RUNS["failed"]):
    """All that the page asks of a run, one after the other."""
    opened = OpenedRuns(str(store))
    yield lambda: RunRows(opened).listed(Choice(text=flow, tags=["a"]))
    yield lambda: RunRows(opened).listed(Choice(status=["failed"]))
    yield lambda: Durations(opened).of(flow, 10)
    yield lambda: form_of(opened, flow, None)
    for find in (
        lambda record: overview(record, lambda: opened.resumed.of(record.place, record.run_id)),
        lambda record: timeline(record, TimelineChoice(cut_idle=True), 10**6),
        lambda record: task_list(record, TaskChoice()),
        lambda record: task_list(record, TaskChoice(order="seconds", find="1")),
        lambda record: task_detail(record, "work", "2"),
        lambda record: task_detail(record, "join", "6"),
        lambda record: artifact_detail(record, "work", "2", "score"),
        lambda record: log_lines(record, LogChoice(find="line")),
        lambda record: log_lines(record, LogChoice(task=2)),
        lambda record: log_lines(record, LogChoice(tail=True)),
        lambda record: event_list(record, EventChoice()),
        lambda record: plan_data(preview_recorded(record.stored)),
        lambda record: compare(record, opened.record(flow, other)),
    ):
        yield lambda find=find: find(opened.record(flow, run))


def test_every_question_is_answered_while_nothing_is_damaged(whole):
    """So that the next test asks what can be answered."""
    for question in questions(whole):
        assert to_bytes(question())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.sampled_from(FILES),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=40) | st.none(),
    st.booleans(),
)
def test_whatever_is_damaged_is_told_in_words(whole, tmp_path, file, where, noise, without_summary):
    """Bytes that are others, a file that is cut, with the summary and without: never a failure."""
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(whole, store)
    path = store / "flows" / "Made" / RUN / file
    if path.exists():
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        at = int(where * len(data))
        data[at : at + len(noise or b"x" * len(data))] = noise or b""
        path.write_bytes(data)
    if without_summary and file != "summary":
        (path.parent / "summary").unlink()
    check(questions(store))


def check(asked):
    """Each question has an answer of a bounded size, or an error that says what is wrong."""
    for question in asked:
        try:
            assert len(to_bytes(question())) <= 200_000
        except (AsyncflowError, AskedWrongly, OSError) as error:
            assert error_answer(error).status_code < 500  # noqa: PT017 - any of them may come


@pytest.mark.parametrize("seed", range(16))
def test_nonsense_with_right_checksums_is_told_in_words(seed, tmp_path, monkeypatch):
    """A field of another type, out of range or missing; and nothing is unpickled."""
    random, store = Random(seed), tmp_path / "store"
    monkeypatch.chdir(tmp_path)
    shutil.copytree(nonsense.GOLDEN, store)
    if seed % 4 == 0:
        nonsense.plant(store)
    nonsense.spoil(store, random)
    if seed % 4 == 1:
        nonsense.spoil_tags(store, random)
    runs = [path.name for path in (store / "flows" / nonsense.FLOW).glob("[0-9]*")]
    for run in runs:
        check(questions(store, nonsense.FLOW, run, runs[0]))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "address",
    [
        *(f"/api/runs/Made/{RUN}{view}" for view in ("", "/timeline", "/tasks", "/log", "/events")),
        f"/api/diff?a=Made/{RUNS['failed']}&b=Made/{RUN}",
        f"/api/plan?run=Made/{RUN}",
    ],
)
def test_a_run_that_is_removed_while_it_is_read_is_not_there(whole, tmp_path, monkeypatch, address):
    """It was found, and its files are gone when they are read: that is no damage."""
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    find = OpenedRuns.record

    def found(self, flow, run_id):
        record = find(self, flow, run_id)
        shutil.rmtree(store / "flows" / flow / RUN, ignore_errors=True)
        return record

    with asking(store) as client:
        monkeypatch.setattr(OpenedRuns, "record", found)
        answer = client.get(address)
    assert (answer.status_code, RUN in answer.text) == (404, True), answer.text
