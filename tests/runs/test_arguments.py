"""What an engine cannot take is refused at the call, in words."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import asyncflow
from asyncflow import Engine, Flow, Run, events
from asyncflow._support.settings import Settings
from asyncflow.cli.command_table import invoke
from asyncflow.errors import (
    AsyncflowError,
    EngineClosedError,
    FlowError,
    ParameterError,
    SettingsError,
)
from tests.support.flows import Linear
from tests.support.leftovers import engine_threads

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
async def engine(store):
    """An open engine with one worker."""
    async with Engine(store=store, workers=1) as opened:
        yield opened


# --- tags ---------------------------------------------------------------------------------------

BAD_TAGS = [
    ([1], "the tag 1 is of type 'int'"),
    (["good", None], "the tag None is of type 'NoneType'"),
    ([b"bytes"], "the tag b'bytes' is of type 'bytes'"),
    ([""], "the tag '' is empty"),
    ([" "], "the tag ' ' is empty"),
    (["two\nlines"], r"the tag 'two\\nlines' has a line break"),
    (["red \x1b[31m"], "has a line break or another control character"),
    (["half \ud800"], "has a byte that is not UTF-8, or half a surrogate pair, which is not text"),
    (["byte \udcff"], r"the tag 'byte \\udcff' has a byte that is not UTF-8"),
    ("abc", r"tags must be a list of texts, not 'abc': write tags=\['abc'\]"),
    (7, "tags must be a list of texts, not 7"),
]


@pytest.mark.parametrize(("tags", "words"), BAD_TAGS)
async def test_a_tag_that_is_no_text_of_one_line_starts_nothing(engine, store, tags, words):
    """The error names it, for a new run and for a resumed one."""
    with pytest.raises(ParameterError, match=words):
        await engine.start(Linear, tags=tags)
    with pytest.raises(ParameterError, match=words):
        await engine.start_resumed(Linear, tags=tags)
    assert not list(store.glob("Linear/*"))


async def test_letters_of_all_kinds_are_a_tag(engine):
    """Those of Latin-1's last line as well."""
    run = await engine.run(Linear, tags=["\xff", "日本"])
    assert run.user_tags == {"\xff", "日本"}


@pytest.mark.parametrize("tag", ["", "two\nlines"])
def test_a_tag_of_the_command_line_is_refused_too(tag, store, tmp_path, capsys):
    """It is told in a sentence, and nothing is run."""
    file = tmp_path / "tagged_flow.py"
    file.write_text("from tests.support.flows import Linear\n")
    arguments = ["run", f"{file}:Linear", "--store", str(store), "--tag", tag]
    assert invoke(arguments) != 0
    assert f"the tag {tag!r} " in capsys.readouterr().err
    assert not list(store.glob("Linear/*"))


async def test_bad_tags_that_lie_in_a_store_are_shown_as_text(engine, store, monkeypatch, capsys):
    """An older version took them; one such run hides no other."""
    monkeypatch.setattr("asyncflow.engine.starter.check_tags", tuple)
    run = await engine.run(Linear, tags=[1, None, "two\nlines", "good"])
    assert run.user_tags == {"1", "None", "two\nlines", "good"}
    assert [each.id for each in Flow("Linear", store=store).runs("1")] == [run.id]
    for command in (["runs"], ["show", "Linear"], ["show", run.pathspec], ["runs", "--json"]):
        assert invoke([*command, "--store", str(store)]) == 0
        assert "two\\nlines" in capsys.readouterr().out


# --- flows, callbacks ---------------------------------------------------------------------------

NO_FLOWS = [
    ("words.py", "'words.py' is text, not a flow: import the flow class"),
    (Linear(use_cli=False), "is an instance of a flow: give the flow class itself, Linear"),
    (None, "None is not a flow: give a class that extends FlowSpec"),
    (int, "<class 'int'> is not a flow"),
]


@pytest.mark.parametrize(("flow", "words"), NO_FLOWS)
async def test_what_is_no_flow_class_is_not_run(engine, flow, words):
    """The error says what to give instead."""
    for call in (engine.run, engine.start, engine.resume, asyncflow.run):
        with pytest.raises(FlowError, match=words):
            await call(flow)


async def test_a_subscription_takes_flows_types_and_runs_only(engine):
    """What is nothing of the kind is refused at the call."""
    with pytest.raises(FlowError, match="3 is not a flow"):
        engine.subscribe(flow=3)
    with pytest.raises(TypeError, match="3 is not a run: give a handle"):
        engine.subscribe(run=3)
    with pytest.raises(TypeError, match="'RunStarted' is not a type of event"):
        engine.subscribe("RunStarted")
    with pytest.raises(TypeError, match="is not a type of event"):
        engine.subscribe([events.RunStarted])
    for name in ("", "a b", "../x", "Flow/1"):
        with pytest.raises(FlowError, match="cannot be a flow's name"):
            engine.subscribe(flow=name)


async def test_a_callback_has_to_be_callable(engine):
    """Nothing is registered for one that is not."""
    with pytest.raises(TypeError, match="None cannot be called: give a function"):
        engine.on(events.RunStarted, None)


def generator(event):
    """It has a `yield`."""
    yield event


async def asynchronous(event):
    """It has one too."""
    yield event


@pytest.mark.parametrize("callback", [generator, asynchronous])
async def test_a_callback_that_would_not_be_run_is_refused(engine, callback):
    """To call a generator function only makes a generator."""
    with pytest.raises(TypeError, match="contains `yield`, so a call would not run it"):
        engine.on(events.RunStarted, callback)


def test_an_engine_takes_settings_and_what_wins_over_them(tmp_path):
    """Each argument is heard."""
    settings = Settings(store=tmp_path / "a", workers=3, grace_seconds=1)
    engine = Engine(settings=settings, store=tmp_path / "b", workers=2)
    assert engine.settings == Settings(store=tmp_path / "b", workers=2, grace_seconds=1)
    with pytest.raises(SettingsError, match=r"is not a Settings: write settings=Settings\.read"):
        engine = Engine(settings={"workers": 2})  # type: ignore[arg-type]  # the mistake that is examined


# --- sessions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", [["-i"], ["-m", "asyncio"]])
def test_an_instance_made_at_a_prompt_does_not_end_the_session(shell):
    """It says what to write instead, and the next line is carried out."""
    lines = "from tests.support.flows import Linear\nLinear()\nprint('still', 'here')\n"
    command = [sys.executable, *shell]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert "FlowError" in done.stderr
    assert "write `await asyncflow.run(Linear)`" in done.stderr
    assert "still here" in done.stdout


# --- entering and leaving -----------------------------------------------------------------------


async def test_an_open_engine_that_is_entered_again_stays_usable(engine):
    """The second `async with` is refused, and the first goes on."""
    with pytest.raises(AsyncflowError, match="this engine is open already"):
        await engine.__aenter__()
    assert (await engine.run(Linear)).successful


async def test_a_closed_engine_is_not_entered_again(store):
    """The error says to make another; to leave it twice is refused as well."""
    async with Engine(store=store, workers=1) as engine:
        pass
    with pytest.raises(EngineClosedError, match="make another `Engine`"):
        await engine.__aenter__()
    with pytest.raises(EngineClosedError):
        await engine.__aexit__(None, None, None)


async def test_an_engine_that_could_not_be_opened_can_be_entered_later(store):
    """What was in its way is gone."""
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text("no folder")
    engine = Engine(store=store, workers=1)
    with pytest.raises((AsyncflowError, OSError)):
        await engine.__aenter__()
    store.unlink()
    async with engine:
        assert (await engine.run(Linear)).successful


async def test_another_event_loop_is_refused_at_the_call(engine):
    """Each would wait for ever; the engine goes on, on its own loop."""
    handle = await engine.start(Linear)

    async def wait():
        await handle

    async def subscribe():
        engine.subscribe()

    async def on():
        engine.on(events.RunStarted, print)

    async def watch():
        handle.events()

    async def leave():
        await engine.__aexit__(None, None, None)

    async def run():
        await engine.run(Linear)

    for call in (run, wait, subscribe, on, watch, leave):
        with pytest.raises(AsyncflowError, match="entered on another event loop"):
            await asyncio.to_thread(asyncio.run, call())
    assert (await handle).successful


async def test_a_call_in_another_thread_is_refused(store):
    """It would get in the way of the event loop; what the loop itself is asked to do is done."""
    loop = asyncio.get_running_loop()
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Linear)
        callback = engine.on(events.RunStarted, print)
        calls: list[Callable[[], object]] = [
            lambda: engine.on(events.RunStarted, print),
            engine.subscribe,
            engine.statistics,
            handle.events,
            callback.stop,
        ]
        for call in calls:
            with pytest.raises(AsyncflowError, match="thread of the event loop that entered it"):
                await asyncio.to_thread(call)
        assert (await asyncio.to_thread(repr, engine)).endswith("open>")
        work = asyncio.to_thread(asyncio.run_coroutine_threadsafe, handle.wait(), loop)
        assert (await asyncio.wrap_future(await work)).successful


def test_while_no_event_loop_runs_an_engine_can_be_looked_at(store):
    """Between two calls of a program that runs its loop by hand."""
    with asyncio.Runner() as runner:
        engine = Engine(store=store, workers=1)
        runner.run(engine.__aenter__())
        assert engine.statistics().runs == 0
        runner.run(engine.__aexit__(None, None, None))


async def test_what_no_subscription_can_mean_is_refused(store):
    """`since` is a whole number, and a callback is called for some type of events."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Linear)
        wrong: tuple[Any, ...] = ("5", "", 1.5, True)
        for since in wrong:
            with pytest.raises(TypeError, match="since must be the seq of an event, or 0"):
                engine.subscribe(since=since)
            with pytest.raises(TypeError, match="since must be the seq of an event, or 0"):
                handle.events(since=since)
            with pytest.raises(TypeError, match="since must be the seq of an event, or 0"):
                handle.run.events(since=since)
        with pytest.raises(TypeError, match=r"events\.Event means all"):
            engine.on((), print)
        await handle


async def test_an_engine_may_be_left_by_another_task_than_entered_it(store):
    """Nothing of it is left."""
    engine = Engine(store=store, workers=1)
    await asyncio.create_task(engine.__aenter__())
    await engine.run(Linear)
    await asyncio.create_task(engine.__aexit__(None, None, None))
    assert engine_threads() == []
    with pytest.raises(EngineClosedError):
        await engine.run(Linear)


# --- the names in Python's own errors -----------------------------------------------------------

MISCALLED = [
    ("Engine.run", lambda engine, _: engine.run(Linear, "x")),
    ("Engine.start", lambda engine, _: engine.start(Linear, "x")),
    ("Engine.resume", lambda engine, _: engine.resume(Linear, "17")),
    ("Engine.start_resumed", lambda engine, _: engine.start_resumed(Linear, "17")),
    ("Engine.options", lambda engine, _: engine.options(3)),
    ("Engine.run", lambda engine, _: engine.options(priority=1).run(Linear, "x")),
    ("Engine.on", lambda engine, _: engine.on()),
    ("Run.caught", lambda _, run: run.caught("start")),
]


@pytest.mark.parametrize(("name", "call"), MISCALLED)
async def test_an_error_names_the_method_that_was_called(engine, name, call):
    """By the class that users know, and not by an internal one that the method comes from."""
    run: Any = object.__new__(Run)
    with pytest.raises(TypeError, match=rf"^{name}\(\)"):
        call(engine, run)


@pytest.mark.parametrize("method", [Engine.run, Run.caught, Engine.options])
def test_a_method_of_a_public_class_can_be_pickled(method):
    """A process pool finds it where its name says."""
    assert pickle.loads(pickle.dumps(method)) is method
