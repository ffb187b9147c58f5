"""Records of `logging` name the task that has made them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import anyio
import pytest

from asyncflow import FlowSpec, step
from asyncflow.flow.current import EnteredTask, TaskContext
from asyncflow.flow.graph import Graph
from asyncflow.flow.log_records import name_tasks_in_records
from asyncflow.flow.node import Node
from asyncflow.testing import run_flow, run_step

GRAPH = Graph("Named", [Node("start", ("end",)), Node("end")])
TASK = TaskContext("Named", "17", "train", "3", 1, GRAPH)
NAMES = ("flow", "run", "step", "task", "attempt")


class Keeping(logging.Handler):
    """Keeps its records in a list."""

    def __init__(self, kept):
        super().__init__()
        self._kept = kept

    def emit(self, record):
        self._kept.append(record)


@pytest.fixture
def records(monkeypatch):
    """The records of a logger, while records name their tasks."""
    monkeypatch.setattr(logging.Logger, "makeRecord", logging.Logger.makeRecord)
    name_tasks_in_records()
    logger = logging.getLogger("asyncflow.tests.records")
    logger.setLevel(logging.INFO)
    kept: list[logging.LogRecord] = []
    handler = Keeping(kept)
    logger.addHandler(handler)
    yield logger, kept
    logger.removeHandler(handler)


def names_in(record):
    """What a record says of its task."""
    return tuple(getattr(record, name) for name in NAMES)


def test_a_record_names_the_task_in_which_it_was_made(records):
    """In the task, in a thread of it, and nothing after it."""
    logger, kept = records
    with EnteredTask(TASK, solo=True):
        logger.info("in the task")
        thread = threading.Thread(target=logger.info, args=("in a thread",))
        thread.start()
        thread.join()
    logger.info("after it")
    named = ("Named", "17", "train", "3", 1)
    assert [names_in(record) for record in kept] == [named, named, ("", "", "", "", 0)]
    assert [record.funcName for record in kept][::2] == [
        "test_a_record_names_the_task_in_which_it_was_made"
    ] * 2


def test_what_a_call_gives_as_extra_stays(records):
    """`extra` may have one of our names: it is no error, and it wins."""
    logger, kept = records
    with EnteredTask(TASK, solo=True):
        logger.info("step %d", 7, extra={"step": 7, "loss": 0.5})
    (record,) = kept
    assert (record.step, record.task, record.loss) == (7, "3", 0.5)
    assert logging.Formatter("%(flow)s %(step)s").format(record) == "Named 7"


def test_records_name_tasks_once(records):
    """A second call changes nothing."""
    before = logging.Logger.makeRecord
    name_tasks_in_records()
    assert logging.Logger.makeRecord is before


def test_logging_may_be_imported_later():
    """It is not imported for this, and whoever imports it later has the attributes."""
    program = (
        "import sys; from asyncflow.flow.log_records import name_tasks_in_records\n"
        "name_tasks_in_records(); name_tasks_in_records()\n"
        "assert 'logging' not in sys.modules\n"
        "import logging.config\n"
        "logging.basicConfig(format='[%(step)s%(attempt)d] %(message)s')\n"
        "logging.warning('said')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "[0] said\n")


class Logging(FlowSpec):
    @step
    def start(self):
        self.made = made_by(logging.getLogger("asyncflow.tests.steps"))
        self.names = list(range(5))
        self.next(self.each, foreach="names")

    @step
    async def each(self):
        logger = logging.getLogger("asyncflow.tests.steps")
        self.made = made_by(logger)
        await anyio.sleep(0.01)  # the others are at the same place now
        self.made += made_by(logger)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_made = [each.made for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


def made_by(logger):
    """The names in a record that the logger makes."""
    record = logger.makeRecord(logger.name, logging.INFO, "file", 1, "said", (), None)
    return [names_in(record)]


@pytest.mark.parametrize("run", [lambda: run_flow(Logging), lambda: run_step(Logging, "start")])
def test_a_run_in_a_tests_process_leaves_logging_as_it_was(run):
    """The step's records have named it; later ones are as before."""
    before = logging.Logger.makeRecord
    run()
    assert logging.Logger.makeRecord is before


async def test_async_steps_side_by_side_have_each_their_own(engine):
    """Records of tasks on one loop of a worker name the right one, before and after a wait."""
    run = await engine.run(Logging)
    assert run["start"].task.data.made == [("Logging", run.id, "start", "1", 0)]
    tasks = {task.id: [("Logging", run.id, "each", task.id, 0)] * 2 for task in run["each"]}
    assert sorted(run["join"].task.data.all_made) == sorted(tasks.values())
