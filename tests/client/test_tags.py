"""Tags that are changed after a run was started, namespaces, and runs chosen by what they are."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow.client import Flow, Metaflow, Run, Step, Store, Task
from asyncflow.client import namespaces as chosen
from asyncflow.client.namespaces import (
    default_metadata,
    default_namespace,
    get_metadata,
    get_namespace,
    metadata,
    namespace,
)
from asyncflow.errors import JournalError, NamespaceMismatchError, NotFoundError, TagError
from asyncflow.events import RunStarted
from asyncflow.flow.current import EnteredTask, TaskContext
from asyncflow.store.run_tags import TAGS
from asyncflow.values import Status
from tests.client.test_client import LINEAR, linear, writer
from tests.support.written_runs import STARTED_AT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nothing_chosen() -> Iterator[None]:
    """No test sees the namespace or the store that another has chosen."""
    yield
    namespace(None)
    default_metadata()


@pytest.fixture
def run(store: Path) -> Run:
    """A finished run with two tags."""
    linear(store, tags=("a", "b"))
    return Run("F/100")


def own(run: Run) -> list[str]:
    """A run's own tags, as a process reads them that has just started."""
    return sorted(Run(run.pathspec, store=run.store).user_tags)


# --- changing tags --------------------------------------------------------------------------------


def test_tags_are_added_removed_and_replaced(run):
    """Each change is there at once, for this object and for any other."""
    run.add_tag("c")
    run.add_tags(["d", "e"])
    assert own(run) == sorted(run.user_tags) == ["a", "b", "c", "d", "e"]
    run.remove_tag("a")
    run.remove_tags(["b", "c", "nowhere"])
    assert own(run) == ["d", "e"]
    run.replace_tag(tag_to_remove="d", tag_to_add="f")
    run.replace_tags(tags_to_remove=["e", "f"], tags_to_add=["f", "g"])
    assert own(run) == ["f", "g"]
    assert run["train"].task.user_tags == run["train"].task["x"].user_tags == {"f", "g"}


def test_a_run_can_lose_all_of_its_tags(run):
    """None is not the same as never changed."""
    run.remove_tags(["a", "b"])
    assert own(run) == []


def test_system_tags_say_who_ran_it_and_with_what(run):
    """They are among the tags, and nothing changes them."""
    assert "user:somebody" in run.system_tags
    assert run.tags == run.user_tags | run.system_tags
    run.add_tag("user:somebody")
    assert own(run) == ["a", "b"]
    with pytest.raises(TagError, match="cannot be removed"):
        run.remove_tag("user:somebody")
    with pytest.raises(TagError):
        run.replace_tags(["a", "runtime:dev"], ["c"])
    assert own(run) == ["a", "b"]


@pytest.mark.parametrize("tag", ["", "  ", 3, None, "two\nlines", "x" * 501])
def test_what_is_no_line_of_text_is_no_tag(run, tag):
    """And nothing is changed, also if other tags are good."""
    with pytest.raises(TagError):
        run.add_tags(["good", tag])
    assert own(run) == ["a", "b"]


def test_a_tag_of_500_characters_is_one(run):
    """As many as in Metaflow."""
    run.add_tag("x" * 500)
    assert "x" * 500 in own(run)


def _add(pathspec: str, store: Path, names: list[str]) -> None:
    run = Run(pathspec, store=store)
    for name in names:
        run.add_tag(name)
        run.remove_tag(f"{name}-")


def test_changes_of_several_processes_and_threads_add_up(run):
    """None is lost."""
    names = [[f"{who}.{each}" for each in range(10)] for who in range(4)]
    run.add_tags([f"{name}-" for each in names for name in each])
    fork = multiprocessing.get_context("fork")
    workers: list[Any] = [
        kind(target=_add, args=(run.pathspec, run.store, each))
        for kind, each in zip([fork.Process] * 2 + [threading.Thread] * 2, names, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert own(run) == sorted(["a", "b", *(name for each in names for name in each)])


def test_the_tags_of_a_running_run_can_be_changed(store):
    """The engine's own files are not touched, and its end changes no tags."""
    going = writer(store, tags=("a",))
    going.flush()
    run = Run("F/100")
    run.replace_tag("a", "now")
    going.run("start")
    going.finish()
    assert own(run) == ["now"]
    assert next(iter(run.events(RunStarted))).tags == ("a",)


def test_a_change_that_changes_nothing_writes_nothing(run):
    """So the run keeps the tags of its start, and nothing is there to be damaged."""
    run.add_tag("a")
    run.remove_tag("nowhere")
    assert not (run.store / "flows" / "F" / "100" / TAGS).exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_damaged_tags_are_an_error_that_says_what_to_do(run, damage):
    """And nobody changes them; without the file the run has the tags of its start."""
    run.add_tag("c")
    path = run.store / "flows" / "F" / "100" / TAGS
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(
        {
            "cut": data[:-1],
            "flipped": data[:-1] + bytes([data[-1] ^ 1]),
            "empty": b"\0",
            "other": b"x" * 100,
        }[damage]
    )
    for ask in (lambda: run.user_tags, lambda: run.add_tag("d")):
        with pytest.raises(JournalError):
            ask()
    with pytest.raises(JournalError, match="delete it"):
        _ = run.tags
    path.unlink()
    assert own(run) == ["a", "b"]


def test_no_changed_byte_of_changed_tags_goes_unnoticed(run):
    """Each of them is covered by the checksum."""
    run.add_tag("c")
    path = run.store / "flows" / "F" / "100" / TAGS
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(JournalError):
            _ = run.user_tags


# --- choosing runs --------------------------------------------------------------------------------


def test_runs_are_chosen_by_their_tags_of_now(store):
    """Those of users and of the system; the changed ones count."""
    for number in (1, 2, 3):
        linear(store, str(number), tags=("a",))
    Run("F/2").replace_tag("a", "b")
    flow = Flow("F")
    assert [run.id for run in flow.runs("a")] == ["3", "1"]
    assert [run.id for run in flow.runs("b", "user:somebody")] == ["2"]
    assert not list(flow.runs("b", "user:nobody"))
    assert [step.id for step in flow["2"].steps("b")] == ["start", "train", "end"]
    assert not list(flow["2"].steps("a"))
    assert not list(flow["2"]["train"].tasks("a"))


def test_runs_are_chosen_by_status_time_and_parameters(store):
    """All of what is asked for has to be true."""
    linear(store, "1", parameters={"alpha": 2.0, "name": "x"})
    writer(store, "2", parameters={"alpha": 3.0, "name": "y" * 300}).finish(Status.FAILED)
    flow = Flow("F")
    assert [run.id for run in flow.runs(status="failed")] == ["2"]
    assert [run.id for run in flow.runs(status=["failed", Status.SUCCEEDED])] == ["2", "1"]
    assert [run.id for run in flow.runs(parameters={"alpha": 2})] == ["1"]
    assert [run.id for run in flow.runs(parameters={"alpha": "2.0", "name": "x"})] == ["1"]
    assert [run.id for run in flow.runs(parameters={"name": "y" * 300})] == ["2"]
    assert not list(flow.runs(parameters={"name": "y" * 299 + "z"}))
    assert not list(flow.runs(parameters={"beta": 1}))
    assert len(list(flow.runs(since=STARTED_AT, before=STARTED_AT + timedelta(seconds=1)))) == 2
    assert not list(flow.runs(since=STARTED_AT + timedelta(seconds=1)))
    assert not list(flow.runs(before=STARTED_AT.astimezone(UTC)))
    assert not list(flow.runs(before=timedelta(days=365_000)))
    with pytest.raises(ValueError, match="a status is running, succeeded"):
        flow.runs(status="done")


def test_choosing_runs_by_tag_and_status_reads_summaries_only(store, monkeypatch):
    """No journal is opened, so it takes as long for large runs as for small ones."""
    linear(store, "1", tags=("a",))
    linear(store, "2")
    monkeypatch.setattr("asyncflow.store.local_store.LocalRun.open_journal", None)
    found = Flow("F").runs("a", status="succeeded", since=STARTED_AT)
    assert [run.id for run in found] == ["1"]


def test_tasks_are_chosen_by_status(store):
    """From the table of tasks; a failure that was caught counts as the success it became."""
    going = writer(store)
    going.run("start")
    for fails in (True, False):
        task = going.start("train")
        going.fail(task) if fails else going.succeed(task)
    going.start("train")
    going.flush()
    run = Run("F/100")
    assert [task.id for task in run.tasks(status="failed")] == ["2"]
    assert [task.id for task in run["train"].tasks(status="succeeded")] == ["3"]
    assert [task.id for task in run.tasks(status=["running", "failed"])] == ["2", "4"]
    going.finish(Status.FAILED)


# --- namespaces -----------------------------------------------------------------------------------


def test_at_first_every_run_is_found(store):
    """Whoever has started it: nothing vanishes."""
    linear(store, tags=("mine",))
    assert get_namespace() is None
    assert Run("F/100").is_in_namespace()


def test_a_namespace_hides_the_runs_without_its_tag(store):
    """Flows without such a run are hidden as well."""
    linear(store, "1", tags=("one",))
    linear(store, "2")
    hidden = Run("F/2")
    assert namespace("one") == get_namespace() == "one"
    flow = Flow("F")
    assert [run.id for run in flow] == ["1"]
    assert flow.latest_run.id == "1"
    assert "2" not in flow
    assert not hidden.is_in_namespace()
    for ask in (
        lambda: Run("F/2"),
        lambda: Step("F/2/train"),
        lambda: Task("F/2/train/2"),
        lambda: flow["2"],
    ):
        with pytest.raises(NamespaceMismatchError, match="call namespace"):
            ask()
    namespace("user:nobody")
    with pytest.raises(NotFoundError):
        Flow("F")
    assert not Store().flows
    assert "F" not in Store()
    namespace(None)
    assert len(list(Flow("F"))) == 2


def test_the_default_namespace_is_the_user_s(store, monkeypatch):
    """It is the tag that every run of this user has."""
    linear(store)
    monkeypatch.setenv("LOGNAME", "somebody")
    assert default_namespace() == get_namespace() == "user:somebody"
    assert Run("F/100").is_in_namespace()
    monkeypatch.setenv("LOGNAME", "somebody-else")
    default_namespace()
    assert not Store().flows


def test_what_was_pickled_is_found_whatever_the_namespace_is(run):
    """The object was there, and is there again."""
    pickled = pickle.dumps([run, run["train"].task])
    namespace("nowhere")
    assert pickle.loads(pickled) == [run, run["train"].task]
    assert get_namespace() == "nowhere"


def test_a_task_chooses_for_itself_alone(store):
    """What it chooses ends with it, and what the program has chosen does not reach it."""
    namespace("program's")

    def task(number: str) -> TaskContext:
        return TaskContext("F", "100", "train", number, 0, LINEAR)

    with EnteredTask(task("1"), solo=True):
        assert get_namespace() is None
        namespace("its own")
        assert get_namespace() == "its own"
    with EnteredTask(task("2"), solo=True):
        assert get_namespace() is None
    assert get_namespace() == "program's"


# --- stores ---------------------------------------------------------------------------------------


def test_a_store_has_its_flows_by_name(store):
    """`Metaflow` is the same class."""
    linear(store)
    assert Metaflow is Store
    assert [flow.id for flow in Store()] == [flow.id for flow in Store().flows] == ["F"]
    assert Store()["F"] == Flow("F")
    assert "F" in Store()
    assert "G" not in Store()
    with pytest.raises(KeyError, match="has no flow 'G'; it has F"):
        Store()["G"]
    assert pickle.loads(pickle.dumps(Store())) == Store(store)
    assert len({Store(), Store(store)}) == 1
    assert Store()._ipython_key_completions_() == ["F"]
    assert repr(Store()) == f"Store('{store}') 1 flow"


def test_metadata_leads_the_client_to_another_store(store, tmp_path):
    """Until `default_metadata`."""
    linear(store)
    (tmp_path / "other").mkdir()
    linear(tmp_path / "other" / ".asyncflow", "7")
    assert get_metadata() == f"local@{store}"
    assert metadata(f"local@{tmp_path / 'other'}") == f"local@{tmp_path / 'other' / '.asyncflow'}"
    assert [run.id for run in Flow("F")] == ["7"]
    assert metadata(str(tmp_path / "other" / ".asyncflow")) == get_metadata()
    assert default_metadata() == get_metadata() == f"local@{store}"
    assert [run.id for run in Flow("F")] == ["100"]
    with pytest.raises(ValueError, match="there is no store"):
        metadata(f"local@{tmp_path}")
    with pytest.raises(ValueError, match="folders only"):
        metadata("service@http://nowhere")
    assert chosen.get_metadata() == f"local@{store}"
