"""Runs that were really run, looked back at: tags meanwhile, attempts, ways that were taken."""

from __future__ import annotations

import pickle
import sys

import pytest

from asyncflow import Artifact, Engine, Flow, FlowSpec, Run, Task, current, namespace, retry, step
from asyncflow.client.namespaces import get_namespace
from asyncflow.errors import NotFoundError, RunFailedError
from tests.support.language_flows import Choosing, Looping


class Tagging(FlowSpec):
    """Changes the tags of its run, and chooses a namespace."""

    @step
    def start(self):
        Run(current.pathspec.rpartition("/start")[0]).add_tag("by a task")
        self.chosen = get_namespace(), namespace("a task's own")
        self.next(self.end)

    @step
    def end(self):
        self.chosen_later = get_namespace()
        self.known = sorted(current.tags)


class Trying(FlowSpec):
    """Succeeds with its third attempt, and talks."""

    @retry(times=2, seconds=0)
    @step
    def start(self):
        for line in range(5):
            print(f"attempt {current.attempt} line {line}")
        print("é muttered", file=sys.stderr, end="")
        if current.attempt < 2:
            raise ValueError(current.attempt)
        self.line = line
        self.next(self.end)

    @step
    def end(self):
        raise ValueError("for good")


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("looking") / "store", workers=2) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _store(engine, monkeypatch):
    monkeypatch.setenv("ASYNCFLOW_STORE", str(engine.settings.store))


@pytest.fixture(scope="module")
async def tried(engine):
    """A failed run whose first task was tried three times."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Trying, tags=["a"])
    return caught.value.run


async def test_tags_can_be_changed_while_the_run_goes_on(engine):
    """By a task of the run and by the program; tasks know the tags of the start."""
    handle = await engine.start(Tagging, tags=["first"])
    handle_run = Run(handle.pathspec)
    handle_run.replace_tag("first", "by the program")
    run = await handle
    assert run.user_tags == {"by a task", "by the program"}
    assert run.data.known == ["first"]


async def test_a_namespace_that_a_task_chooses_ends_with_it(engine):
    """The next task in the same worker begins without one."""
    run = await engine.run(Tagging)
    assert run["start"].task.data.chosen == (None, "a task's own")
    assert run.data.chosen_later is None
    assert get_namespace() is None


async def test_a_resumed_run_keeps_the_changed_tags_of_its_origin(engine, tried):
    """Not those that were taken away."""
    tried.replace_tag("a", "b")
    with pytest.raises(RunFailedError) as caught:
        await engine.resume(Trying, origin=tried.id, tags=["c"])
    run = caught.value.run
    assert run.user_tags == {"b", "c"}
    assert run.origin_pathspec == tried.pathspec
    assert run["end"].origin_pathspec == f"{tried.pathspec}/end"
    assert run["start"].task.origin_pathspec == f"{tried.pathspec}/start/1"
    assert run["start"].task.metadata_dict["origin-run-id"] == tried.id


def test_each_attempt_can_be_looked_at(tried):
    """As if it were the task's last; pickled, it stays that attempt."""
    path = tried["start"].task.pathspec
    first, last = (Task(path, attempt=number) for number in (0, 2))
    assert [first.current_attempt, last.current_attempt] == [0, 2]
    assert first.stdout.startswith("attempt 0 line 0\n")
    assert (first.successful, last.successful, Task(path).successful) == (False, True, True)
    assert first.exception.message == "0"
    assert last.exception is None
    assert first.finished_at is not None
    assert first.finished_at <= last.created_at
    assert not list(first)
    assert first != last
    assert pickle.loads(pickle.dumps(first)) == first
    assert first.metadata_dict["attempt_ok"] == "False"
    assert last.metadata_dict["attempt_ok"] == "True"
    assert Artifact(f"{path}/line", attempt=2).data == 4
    with pytest.raises(NotFoundError):
        Artifact(f"{path}/line", attempt=0)
    for number in (3, 7, -1):
        with pytest.raises(NotFoundError, match="its last is 2"):
            Task(path, attempt=number)


def test_the_end_of_a_tasks_output_is_read_alone(tried):
    """So many lines as wanted, of either stream."""
    task = tried["start"].task
    assert task.tail(2) == "attempt 2 line 3\nattempt 2 line 4\n"
    assert task.tail() == task.stdout
    assert task.tail(0) == ""
    assert task.tail(1, "stderr") == "é muttered"
    assert (task.stdout_size, task.stderr_size) == (5 * 17, len("é muttered".encode()))
    assert [line for _, line in task.loglines("stderr", as_unicode=False)] == [
        "é muttered".encode()
    ]
    with pytest.raises(ValueError, match="stdout or stderr"):
        task.tail(1, "log")


def test_failed_tasks_are_found_by_their_status(tried):
    """A task that was tried again with success has not failed."""
    assert [task.parent.id for task in tried.tasks(status="failed")] == ["end"]
    assert tried in list(Flow("Trying").runs(status="failed"))


def test_facts_of_a_task_have_the_names_of_metaflow(tried):
    """Each is a text, with the time and the task."""
    task = tried["end"].task
    facts = {fact.name: fact.value for fact in task.metadata}
    assert facts == task.metadata_dict
    assert facts["script-name"] == "test_looking_back.py"
    assert facts["ds-root"] == str(tried.store)
    assert {"user", "runtime", "python_version", "asyncflow_version", "ds-type"} <= facts.keys()
    assert task.metadata[0].task == task
    assert task.runtime_name == "dev"


async def test_steps_know_the_steps_before_and_after_them_that_were_taken(engine):
    """A step that no task led to is left out; one that repeats follows itself."""
    run = await engine.run(Choosing)
    taken = [step.id for step in run]
    for each in run:
        for other in (*each.parent_steps, *each.child_steps):
            assert other.id in taken
    pairs = {(step.id, child.id) for step in run for child in step.child_steps}
    assert pairs == {(parent.id, step.id) for step in run for parent in step.parent_steps}
    by_task = {
        (task.parent.id, child.parent.id) for task in run.tasks() for child in task.child_tasks
    }
    assert pairs == by_task
    looped = await engine.run(Looping)
    pairs = {(step.id, child.id) for step in looped for child in step.child_steps}
    assert pairs == {
        (task.parent.id, child.parent.id) for task in looped.tasks() for child in task.child_tasks
    }


def test_every_level_completes_what_stands_in_its_brackets(tried):
    """For IPython."""
    assert tried.id in Flow("Trying")._ipython_key_completions_()
    assert tried._ipython_key_completions_() == ["start", "end"]
    assert tried["start"]._ipython_key_completions_() == ["1"]
    task = tried["start"].task
    assert task._ipython_key_completions_() == task.artifacts._ipython_key_completions_()
