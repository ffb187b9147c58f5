"""Following a run from another process, while engine and followers are killed at any moment."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from asyncflow import FlowSpec, Parameter, Run, events, step
from asyncflow.cli.command_table import invoke
from asyncflow.client.event_stream import EventStream
from asyncflow.errors import JournalError, NotFoundError, RunInterruptedError
from asyncflow.flow.graph_reader import read_graph
from asyncflow.values import Status
from tests.support.flows import Linear
from tests.support.written_runs import RunWriter

HERE = Path(__file__)


class Talking(FlowSpec):
    """Many short tasks that each print, one of which fails at first."""

    width = Parameter("width", default=60)
    seconds = Parameter("seconds", default=0.02)
    awaited = Parameter("awaited", default="")  # a file that the last of them waits for

    @step
    def start(self):
        print("to begin with")
        self.items = range(self.width)
        self.next(self.talk, foreach="items")

    @step
    def talk(self):
        print(f"talk {self.input}\nmore", file=sys.stderr if self.input % 2 else sys.stdout)
        time.sleep(self.seconds)
        while self.awaited and self.index == self.width - 1 and not Path(self.awaited).exists():
            time.sleep(0.01)
        self.next(self.join)

    @step
    def join(self, inputs):
        print(len(inputs))
        self.next(self.end)

    @step
    def end(self):
        print("that was it", end="")


@pytest.fixture
def written(store):
    """A run that is being written: it goes on until `finish`, or is interrupted by `close`."""
    writer = RunWriter(store, "Linear", "100", read_graph(Linear))
    writer.run("start")
    writer.flush()
    yield writer
    writer.close()


def asyncflow(*arguments, **options):
    """Start a command in a process of its own."""
    return subprocess.Popen(command(*arguments), text=True, stdout=subprocess.PIPE, **options)


def command(*arguments):
    """How it is called."""
    return [sys.executable, "-m", "asyncflow", *map(str, arguments)]


@contextmanager
def running(store, *options):
    """`Talking`, run by another process: that process, and the run's pathspec."""
    file = store.with_name(f"id-{random.random()}")
    verb = "resume" if "--origin-run-id" in options else "run"
    spec = f"{HERE}:Talking"
    process = asyncflow(verb, spec, "--quiet", "--workers=2", "--run-id-file", file, *options)
    try:
        while not file.exists() and process.poll() is None:
            time.sleep(0.005)
        yield process, f"Talking/{file.read_text()}"
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


# --- in Python ----------------------------------------------------------------------------------


def test_a_for_loop_follows_a_run_to_its_end(written):
    """It gets what is there, then waits for what comes."""
    stream = Run("Linear/100").events(follow=True)
    got = [next(stream) for _ in range(3)]
    assert stream.waiting == 0

    def go_on():
        written.run("middle")
        written.run("end")
        written.finish()

    later = threading.Timer(0.05, go_on)
    later.start()
    got += stream
    later.join()
    assert [event.seq for event in got] == list(range(1, 9))
    assert isinstance(got[-1], events.RunSucceeded)
    assert list(stream) == []


async def test_an_async_for_loop_follows_a_run_to_its_end(written):
    """And leaves the event loop free while it waits."""
    run = Run("Linear/100")
    got = []

    async def follow():
        async for event in run.events(follow=True):
            got.append(event)  # noqa: PERF401 - looked at while it goes on

    following = asyncio.ensure_future(follow())
    while len(got) < 3:  # noqa: ASYNC110 - it must be seen from outside that the loop is free
        await asyncio.sleep(0.001)
    written.run("middle")
    written.finish()
    await following
    assert got == list(run.events())


async def test_a_follower_that_is_cancelled_while_it_waits_loses_nothing(written):
    """A timeout around each event is a usual way to follow something."""
    stream = Run("Linear/100").events(follow=True)
    got: list[events.Event] = []
    chance = random.Random(1)
    given_up = 0

    async def follow():
        nonlocal given_up
        while True:
            try:
                async with asyncio.timeout(chance.random() * 0.003):
                    got.append(await anext(stream))
            except TimeoutError:
                given_up += 1
            except StopAsyncIteration:
                return

    following = asyncio.ensure_future(follow())
    for _ in range(30):
        written.run("middle")
        written.flush()
        await asyncio.sleep(0.002)
    written.finish()
    await following
    assert got == list(Run("Linear/100").events())
    assert given_up > 3


def test_without_follow_the_events_that_are_there_are_all(written):
    """Also of a run that goes on."""
    assert len(list(Run("Linear/100").events())) == 3


def test_a_follower_gets_only_what_it_asks_for(written):
    """Types and a number to begin behind, in both ways of looking."""
    written.run("end")
    written.finish()
    run = Run("Linear/100")
    for follow in (False, True):
        stream = run.events(events.TaskSucceeded, since=3, follow=follow)
        assert [event.seq for event in stream] == [5]
    with pytest.raises(TypeError, match="not a type of event"):
        run.events(str)  # type: ignore[type-var]  # a type checker knows it too


def test_a_run_whose_engine_is_gone_ends_the_following_and_says_so(written):
    """After its last event, with how to go on."""
    written.close()
    stream = Run("Linear/100").events(follow=True)
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(RunInterruptedError, match=r"was interrupted.*\n.*--origin-run-id 100"):
        next(stream)
    assert len(list(Run("Linear/100").events())) == 3


def test_a_torn_record_is_waited_for(written):
    """It is being written: what is there of it is neither told nor an error."""
    stream = Run("Linear/100").events(follow=True)
    for _ in range(3):
        next(stream)
    at = written.start("middle")
    record = written._waiting.pop()
    os.write(written.journal._descriptor, record[:-5])
    later = threading.Timer(0.05, os.write, (written.journal._descriptor, record[-5:]))
    later.start()
    assert f"/{at}" in next(stream).pathspec
    later.join()


def test_what_a_later_version_has_added_is_passed_over(written):
    """A record of an unknown kind, and fields behind those that are known."""
    written.seq += 1
    written.append(msgpack.packb([99, written.seq, 0, "news of a later version"]))
    written.seq += 1
    written.append(msgpack.packb([events.RunSucceeded.code, written.seq, 0, 1.5, "a new field"]))
    written.flush()
    for follow in (False, True):
        got = list(Run("Linear/100").events(follow=follow))
        assert [event.seq for event in got] == [1, 2, 3, 5]
        assert getattr(got[-1], "seconds", None) == 1.5


def test_a_finished_run_that_was_cut_is_damaged_and_not_interrupted(written):
    """Its summary tells how long its journal was."""
    written.finish()
    written.close()
    with written.journal.path.open("r+b") as file:
        file.truncate(written.journal.size - 3)
    with pytest.raises(JournalError, match=r"had \d+ when the run ended"):
        list(Run("Linear/100").events(follow=True))


def test_a_run_looked_at_for_its_first_event_is_not_read(written):
    """Looking at a hundred runs must not read a hundred journals."""
    for _ in range(5000):
        written.run("middle")
    written.flush()
    stream = Run("Linear/100").events()
    next(stream)
    assert stream.waiting < 10
    assert isinstance(stream, EventStream)


# --- on the command line ------------------------------------------------------------------------


def told(process):
    """The events that `events --json` prints."""
    return [events.from_json(line) for line in process.stdout]


def test_events_and_logs_are_followed_from_the_command_line(store):
    """They print what they print of a run that has ended, while it goes on."""
    with running(store) as (engine, pathspec):
        run = Run(pathspec)
        assert run.status is Status.RUNNING
        follow = asyncflow("events", pathspec, "--follow", "--json")
        log = asyncflow("logs", pathspec, "-f")
        of_step = asyncflow("logs", f"{pathspec}/join", "--follow", "--stdout")
        of_task = asyncflow("logs", f"{pathspec}/talk/4", "-f", stderr=subprocess.PIPE)
        assert told(follow) == list(run.events())
        assert engine.wait() == 0
    assert log.stdout.read() == subprocess.check_output(command("logs", pathspec), text=True)
    assert of_step.stdout.read().endswith(" 60\n")
    assert of_task.communicate() == (run["talk"]["4"].stdout, run["talk"]["4"].stderr)
    assert [each.wait() for each in (follow, log, of_step, of_task)] == [0, 0, 0, 0]
    for each in (follow, log, of_step):
        each.stdout.close()


def test_since_leaves_out_what_one_has(written, capsys):
    """With and without `--follow`."""
    written.finish()
    assert invoke(["events", "Linear/100", "--since", "3"]) == 0
    assert invoke(["events", "Linear/100", "--since", "2", "-f"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["4", "3", "4"]


@pytest.mark.parametrize("verb", ["events", "logs"])
def test_an_interrupted_run_ends_the_command_with_status_1(written, verb, capsys):
    """And with the command that goes on."""
    written.close()
    assert invoke([verb, "Linear/100", "--follow"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "Linear/100 was interrupted" in captured.err
    assert "asyncflow resume FILE:Linear --origin-run-id 100\n" in captured.err


@pytest.mark.parametrize("verb", ["events", "logs"])
def test_the_command_that_goes_on_names_the_store_if_it_must(
    written, store, monkeypatch, capsys, verb
):
    """It can be pasted where the other command was."""
    written.close()
    monkeypatch.delenv("ASYNCFLOW_STORE")
    assert invoke([verb, "Linear/100", "--follow", "--store", str(store)]) == 1
    wanted = shlex.join(["--origin-run-id", "100", "--store", str(store)])
    assert f"asyncflow resume FILE:Linear {wanted}\n" in capsys.readouterr().err


def test_a_task_that_never_comes_is_told_of(written, capsys):
    """As is a step that the flow does not have."""
    written.finish()
    assert invoke(["logs", "Linear/100/middle/9", "--follow"]) == 2
    assert "has no task middle/9" in capsys.readouterr().err
    assert invoke(["logs", "Linear/100/muddle", "--follow"]) == 2
    assert "no step 'muddle'; it has start, middle, end" in capsys.readouterr().err


def test_the_output_of_a_task_is_that_of_its_attempt_now(written, capsys):
    """What earlier ones printed is not repeated; what later ones print follows, and the failure."""
    task = written.start("middle")
    written.log(task, b"first\n")
    written.fail(task, will_retry=True)
    written.start("middle", task=task)
    written.log(task, b"second\n")
    written.log(task, b"to the other\n", stream=1)
    written.flush()
    later = threading.Timer(0.1, lambda: (written.fail(task), written.flush()))
    later.start()
    assert invoke(["logs", f"Linear/100/middle/{task}", "-f"]) == 0
    later.join()
    assert capsys.readouterr() == ("second\n", "to the other\nTraceback …\n")


# --- killed at random ---------------------------------------------------------------------------


class Followers:
    """`asyncflow events --follow`: killed again and again, and each time begun anew.

    Kills are counted in events, not in seconds, so there are as many on a slow machine as on a
    fast one.
    """

    def __init__(self, pathspec, chance):
        self.pathspec, self._chance = pathspec, chance
        self.got = []
        self.kills = 0
        self.status = None

    def follow(self, width, act):
        """Put together what all of them are told, until one ends by itself.

        `act` is called when that is some number of events below `width`; at least one follower
        is killed before.
        """
        number = self._chance.randrange(width // 2, width)
        while self.status is None:
            seq = self.got[-1].seq if self.got else 0
            options = ["--follow", "--json", "--since", str(seq)]
            process = asyncflow("events", self.pathspec, *options, stderr=subprocess.DEVNULL)
            most = self._chance.randrange(1, width // 2)
            for count, line in enumerate(process.stdout, 1):
                if line[-1:] == "\n":  # else the kill has cut it, and its event is told again
                    self.got.append(events.from_json(line))
                    if len(self.got) == number:
                        act()
                if count == most:
                    time.sleep(self._chance.uniform(0, 0.02))  # it is killed at any moment
                    process.kill()
            process.stdout.close()
            if process.wait() < 0:
                self.kills += 1
            else:
                self.status = process.returncode


def kill_at_random(store, seed, width, kills):
    """Run, kill, resume, and let the last run come to its end; each run's followers."""
    chance = random.Random(seed)
    awaited = store.with_name("awaited")
    options = [f"--width={width}", "--seconds=0.01", f"--awaited={awaited}"]
    for number in range(kills + 1):
        with running(store, *options) as (engine, pathspec):
            followers = Followers(pathspec, random.Random(chance.random()))
            followers.follow(width, engine.kill if number < kills else awaited.touch)
            engine.wait()
        options = ["--origin-run-id", pathspec.partition("/")[2]]
        yield followers


def check_followers(followers):
    """What each run's followers were told, put together, is that run's journal."""
    for each in followers:
        run = Run(each.pathspec)
        assert each.got == list(run.events())
        assert each.status == (0 if run.status is Status.SUCCEEDED else 1)
        assert each.kills
    assert followers[-1].status == 0


def test_engine_and_followers_are_killed_and_what_was_told_is_the_journal(store):
    """Kill the engine and those who follow it, go on, put it all together."""
    check_followers(list(kill_at_random(store, seed=7, width=60, kills=1)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_engine_and_followers_are_killed_often(store, seed):
    """The same with other seeds and longer runs."""
    check_followers(list(kill_at_random(store, seed, width=300, kills=3)))


def test_a_run_that_is_not_there_cannot_be_followed(store):
    """There is nothing to wait for."""
    RunWriter(store, "Linear", "100", read_graph(Linear)).close()
    with pytest.raises(NotFoundError):
        Run("Linear/101").events(follow=True)
