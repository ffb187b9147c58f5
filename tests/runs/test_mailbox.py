"""Other processes reach a run through its mailbox: they cancel it, wherever its engine is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from asyncflow import Flow, FlowSpec, Run, step
from asyncflow.errors import RecordError, RunCancelledError, RunNotActiveError, StoreError
from asyncflow.events import RunCancelled
from asyncflow.store import mailbox, open_store
from asyncflow.store.frames import frame
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from asyncflow.values import Status
from tests.support.waiting import until


class Waits(FlowSpec):
    """Would take a minute."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        time.sleep(60)


class Short(FlowSpec):
    """Takes no time."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def asyncflow(*arguments, store):
    """Call the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "asyncflow", *arguments, "--store", str(store)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_another_process_cancels_a_run(engine):
    """The last event says who has, and why."""
    handle = await engine.start(Waits)
    done = await asyncio.to_thread(
        asyncflow, "cancel", handle.pathspec, "--reason", "wrong data", store=engine.settings.store
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{handle.pathspec} was cancelled (")
    with pytest.raises(RunCancelledError, match=r"by \S+@\S+ \(process \d+\): wrong data"):
        await handle
    last = list(handle.run.events())[-1]
    assert isinstance(last, RunCancelled)
    assert last.reason.endswith(": wrong data")


async def test_a_view_of_the_run_cancels_it(engine):
    """It returns when the run has ended."""
    handle = await engine.start(Waits)
    assert await asyncio.to_thread(Run(handle.pathspec, store=engine.settings.store).cancel)
    with pytest.raises(RunCancelledError):
        await handle
    assert handle.status is Status.CANCELLED


async def test_one_may_go_on_before_the_run_has_ended(engine):
    """The answer says that it has not."""
    handle = await engine.start(Waits)
    assert not await asyncio.to_thread(handle.run.cancel, seconds=0)
    with pytest.raises(RunCancelledError):
        await handle


@pytest.mark.parametrize("again", [False, True])
async def test_a_run_that_has_ended_is_not_cancelled(engine, again):
    """The answer says how it has ended, and the exit status is 1."""
    run = await engine.run(Short)
    if again:
        mailbox.post(run._record.stored, mailbox.CANCEL)
    with pytest.raises(RunNotActiveError, match="has ended already: it succeeded"):
        run.cancel()
    done = await asyncio.to_thread(asyncflow, "cancel", run.id, store=engine.settings.store)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {run.pathspec} has ended already: it succeeded\n"


def test_nobody_is_there_to_cancel_an_interrupted_run(store, tmp_path):
    """The answer says how to go on."""
    flow = tmp_path / "waits.py"
    flow.write_text(
        "import time\nfrom asyncflow import FlowSpec, step\n\n"
        "class Left(FlowSpec):\n"
        "    @step\n    def start(self):\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        print('here', flush=True)\n        time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "asyncflow", "run", str(flow), "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while "here" not in process.stdout.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
    run = Flow("Left", store=store).latest_run
    while run.status is Status.RUNNING:  # its lock goes with its process
        time.sleep(0.01)
    with pytest.raises(RunNotActiveError, match="its engine is gone; to go on: asyncflow resume"):
        run.cancel()


async def test_what_this_version_does_not_know_is_passed_over(engine, caplog):
    """A later version may send it."""
    handle = await engine.start(Waits)
    with caplog.at_level(logging.WARNING):
        mailbox.post(handle.run._record.stored, "dance", how="slowly")
        await asyncio.to_thread(handle.run.cancel)
    assert "does not know: 'dance'" in caplog.text
    with pytest.raises(RunCancelledError):
        await handle


def told(caplog):
    """What the log says of a mailbox; a busy machine may have it say other things, too."""
    found = [each.getMessage() for each in caplog.records]
    return [text for text in found if "mailbox is damaged" in text]


async def test_a_damaged_mailbox_is_told_once_and_the_run_goes_on(engine, caplog):
    """Nothing of it is done."""
    handle = await engine.start(Waits)
    stored = handle.run._record.stored
    with caplog.at_level(logging.WARNING):
        stored.put_file(mailbox.MAILBOX, b"no message, but some bytes")
        await until(lambda: told(caplog))
        await asyncio.sleep(1.0)  # in which it is looked at some four times
    (warning,) = told(caplog)
    assert warning.startswith(f"{stored.place}/mailbox is damaged at byte 0; what is sent to the")
    assert handle.status is Status.RUNNING
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    damage = verify.verify(Layout(engine.settings.store)).damage
    mine = [each.file for each in damage if handle.run.id in each.file]
    assert ["mailbox" in file for file in mine] == [True]


# --- the file -------------------------------------------------------------------------------------


@pytest.fixture
def stored(store):
    """A run that nobody runs."""
    run = open_store(store, create=True).make_run("F")
    run.begin_journal().close()
    return run


SENDER = """
import sys
from asyncflow.store import mailbox, open_store
run = open_store(sys.argv[1]).run("F", sys.argv[2])
for number in range(20):
    mailbox.post(run, "say", number=str(number))
"""


def test_messages_of_several_processes_follow_one_another(stored, store):
    """None is lost, and each sender's stay in order."""
    command = [sys.executable, "-c", SENDER, str(store), stored.run_id]
    senders = [subprocess.Popen(command) for _ in range(4)]
    assert [sender.wait(timeout=60) for sender in senders] == [0] * 4
    messages, upto = mailbox.messages_in(stored, 0)
    assert upto == stored.file_size(mailbox.MAILBOX)
    by_sender: dict[str, list[str]] = {}
    for message in messages:
        by_sender.setdefault(message.by, []).append(message.arguments["number"])
    assert list(by_sender.values()) == [[str(number) for number in range(20)]] * 4
    assert len({message.id for message in messages}) == 80


def test_a_reader_goes_on_where_it_was(stored):
    """Each message is read once."""
    assert mailbox.messages_in(stored, 0) == ([], 0)
    first = mailbox.post(stored, "say", what="a")
    found, upto = mailbox.messages_in(stored, 0)
    assert found == [first]
    second = mailbox.post(stored, "say", what="b")
    assert mailbox.messages_in(stored, upto)[0] == [second]


@pytest.mark.parametrize(
    "data",
    [b"\0", b"\0" * 8, b"\xff" * 100, frame(b"\xc1"), frame(b"\x93\x01\x02\x03")],
)
def test_bytes_that_are_no_message_are_an_error(stored, data):
    """It names the file."""
    stored.put_file(mailbox.MAILBOX, data)
    with pytest.raises(RecordError):
        mailbox.messages_in(stored, 0)


def test_a_full_mailbox_takes_no_more(stored):
    """So nobody fills the disk with it."""
    mailbox.post(stored, "say", what="x" * 600_000)
    with pytest.raises(StoreError, match="is full"):
        mailbox.post(stored, "say", what="x" * 600_000)
