"""Agents on nodes: what they do alone, and what their workers read."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from asyncflow import Engine, FlowSpec, events, step
from asyncflow.errors import JournalError, RunFailedError
from asyncflow.scheduling import task_orders
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.testing import Loopback
from asyncflow.workers.cluster.agent_thread import AgentThread
from asyncflow.workers.cluster.batches import Inbox, Outbox, pack_message
from asyncflow.workers.cluster.node_files import NodeFiles
from asyncflow.workers.messages import AttemptKey, Opening, StartTask
from asyncflow.workers.program_environment import look_around
from tests.support.loopback_agents import loopback_agents
from tests.support.pool_listener import Listener
from tests.support.waiting import until

SPY = """
    import os, sys

    def heard(event, arguments):
        if event == "open" and str(arguments[0]).endswith("/journal"):
            with open(os.environ["OPENED"], "a") as file:
                file.write(f"{arguments[0]}\\n")

    if "OPENED" in os.environ:
        sys.addaudithook(heard)
"""


class Handing(FlowSpec):
    """Hands values of all sizes on, through all kinds of transitions."""

    @step
    def start(self):
        self.word = "w" * 500  # a ref into the journal from the next task on
        self.items = [f"item {number}" for number in range(5)]
        self.next(self.middle)

    @step
    def middle(self):
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        self.seen = self.input + self.word[:1]
        self.long = self.seen * 100
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = [each.seen for each in inputs]
        self.longest = max((each.long for each in inputs), key=len)
        self.merge_artifacts(inputs, include=["word"])
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.meet)

    @step
    def right(self):
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        assert (len(self.word), len(self.longest)) == (500, 700)


class Waiting(FlowSpec):
    """The last input of its join comes when a file is there."""

    @step
    def start(self):
        self.items = range(20)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.text = f"text {self.input:04}"
        while self.index == len(self.items) - 1 and not Path(os.environ["GO"]).exists():
            time.sleep(0.01)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.texts = [each.text for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_damage_is_told_with_the_place_in_the_store(store, tmp_path, monkeypatch):
    """The file on the node is gone when somebody reads that."""
    go = tmp_path / "go"
    monkeypatch.setenv("GO", str(go))
    async with Engine(store=store, executor=Loopback(workers=1)) as engine:
        handle = await engine.start(Waiting)
        ended = 0
        async for _ in handle.events(events.TaskSucceeded):
            ended += 1
            if ended == 20:  # with `start`: all but the last
                break
        journal = store / "flows" / handle.pathspec / "journal"
        with journal.open("r+b") as file:
            file.seek(journal.read_bytes().index(b"text 0010"))
            file.write(b"T")
        go.touch()
        with pytest.raises(RunFailedError) as caught:
            await handle
    assert f"{journal}, as it was sent to this node, is damaged" in caught.value.failure.message


async def test_no_worker_of_a_node_opens_the_journal_in_the_store(store, tmp_path, monkeypatch):
    """All that it needs comes with its orders, also the inputs of a wide join."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(SPY))
    opened = tmp_path / "opened"
    opened.write_text("")
    monkeypatch.setenv("OPENED", str(opened))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(task_orders, "MAX_INPUTS_IN_ORDER", 3)
    async with Engine(store=store, executor=Loopback(workers=2, nodes=2)) as engine:
        run = await engine.run(Handing)
    assert run.data.all == [f"item {number}w" for number in range(5)]
    paths = set(opened.read_text().split())
    assert paths  # the replicas: else the spy was not there
    assert not [path for path in paths if path.startswith(str(store))]


async def test_what_was_sent_to_a_lost_node_and_not_heard_of_is_named(store, caplog):
    """Since it may have begun there, although it runs again."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Handing)
    opening = Opening(1, str(store), "Handing", run.id, look_around({}))
    start = len(HEADER).to_bytes(8, "little")
    listener = Listener()
    executor = Loopback(workers=1)(listener, size=1, scratch=store)
    await executor.start()
    await until(lambda: executor.size)
    worker = executor.start_worker()
    await until(lambda: worker.is_up)
    (agent,) = loopback_agents()
    agent.send_signal(signal.SIGSTOP)
    key = AttemptKey(1, 1, 0)
    worker.send(StartTask(key, "start", (), (), start, (), (), opening))
    await until(lambda: worker.where.connection.taken >= worker.where.posted)
    agent.kill()
    await until(lambda: listener.exits)
    await executor.close()
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "not heard of" in told
    assert f"Handing/{run.id}/start/1" in told


async def test_an_agent_without_its_driver_ends_its_workers_and_itself():
    """After the time that it was given."""
    agent, outbox = AgentThread(fence_seconds=1.0), Outbox()
    outbox.put(pack_message("start", 1))
    before = set(psutil.Process().children(recursive=True))
    await agent.push(outbox.batch())
    await until(lambda: len(set(psutil.Process().children(recursive=True)) - before) > 0)
    left = psutil.Process().children(recursive=True)
    await until(agent.ended.done)
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


async def test_an_agent_waits_for_a_driver_that_is_slow_to_connect():
    """Longer than for one that it has heard of: it has nothing that could go on without it."""
    agent = AgentThread(fence_seconds=0.0)
    looks, look = [], agent._agent._look_at_driver

    def looked():
        look()
        looks.append(agent._agent._over.is_set())

    vars(agent._agent)["_look_at_driver"] = looked
    await until(lambda: len(looks) >= 3)
    assert looks[:3] == [False] * 3
    await agent.poll(0)  # now it has
    await until(agent.ended.done)


async def test_a_batch_that_comes_twice_is_carried_out_once():
    """Since an RPC that was not answered is repeated."""
    agent, outbox, inbox = AgentThread(), Outbox(), Inbox()
    outbox.put(pack_message("start", 1))
    batch = outbox.batch()
    await agent.push(batch)
    await agent.push(batch)
    outbox.acknowledge(1)
    outbox.put(pack_message("close"))
    await agent.push(outbox.batch())
    said: list[list[object]] = []
    while not said or said[-1][0] != "closed":
        answers = [await agent.poll(inbox.received), await agent.poll(inbox.received)]
        assert answers[1][: len(answers[0])] == answers[0]  # the same until it is acknowledged
        said += [message for answer in answers for message in inbox.open(answer)]
    await until(agent.ended.done)
    assert [message[1] for message in said if message[0] == "exited"] == [1]


def test_a_replica_has_what_was_sent_and_refuses_the_rest(tmp_path):
    """A hole is no record."""
    files = NodeFiles(tmp_path)
    record = frame(b"payload")
    files.write_records(7, [(1_000_000, record)])
    with JournalReader(os.path.join(files.place_of(7), "journal")) as journal:  # noqa: PTH118 - a path as text
        assert journal.read_one(1_000_000) == b"payload"
        with pytest.raises(JournalError, match="no whole record"):
            journal.read_one(len(HEADER))
    files.forget(7)
    files.close()
    assert not files.folder.exists()


def test_the_next_agent_deletes_what_a_killed_one_has_left(tmp_path):
    """And nothing of one that lives."""
    code = "import os, pathlib, sys; from asyncflow.workers.cluster.node_files import NodeFiles; "
    code += "NodeFiles(pathlib.Path(sys.argv[1])).place_of(1); os._exit(0)"
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    (base,) = tmp_path.iterdir()
    (left,) = base.iterdir()
    living = NodeFiles(tmp_path)
    another = NodeFiles(tmp_path)
    assert not left.exists()
    assert living.folder.exists()
    living.close()
    another.close()
