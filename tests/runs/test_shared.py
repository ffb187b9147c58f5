"""`@shared`: opened once for each worker, handed to steps by name, closed with the worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    Parameter,
    catch,
    current,
    events,
    isolate,
    retry,
    shared,
    step,
)
from asyncflow.errors import FlowError, GraphError, RunFailedError
from asyncflow.flow.graph_drawing import to_text
from asyncflow.flow.graph_reader import read_graph
from asyncflow.workers.process.shared_resources import SharedResources
from tests.support.waiting import until


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """Where the shared ones of these flows note what becomes of them."""
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("SHARED_NOTES", str(path))
    return path


def note(*words):
    """Add a line; one write, so that processes do not mix."""
    with Path(os.environ["SHARED_NOTES"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def noted(path):
    """The lines that were noted."""
    return path.read_text().splitlines()


class Scores(FlowSpec):
    """Its `def` tasks share a model, which needs a configuration."""

    @shared
    def model(*, config):
        note("open model")
        print("loading")
        yield {"scale": config}
        note("close model")

    @shared
    def config():
        note("open config")
        yield 10
        note("close config")

    @step
    def start(self):
        self.items = range(20)
        self.next(self.score, foreach="items")

    @step
    def score(self, *, model):
        self.result = self.input * model["scale"]
        self.pid = os.getpid()
        self.next(self.join)

    @step
    def join(self, inputs, *, config):
        self.results = [each.result for each in inputs]
        self.pids = {each.pid for each in inputs}
        self.config_given = config
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_def_tasks_share_what_their_worker_has_opened_once(store, notes):
    """Twenty tasks and a join on one worker: one opening, and the values go to all."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Scores)
        await engine.run(Scores)
        assert noted(notes) == ["open config", "open model"]
    assert run.data.results == [number * 10 for number in range(20)]
    assert run.data.config_given == 10


async def test_what_is_shared_is_closed_in_reverse_when_the_worker_ends(store, notes):
    """Closing the engine closes the model before the configuration that it needs."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Scores)
    assert noted(notes) == ["open config", "open model", "close model", "close config"]


async def test_each_worker_opens_its_own(store, notes):
    """As many openings as workers that had a task, and no more."""
    async with Engine(store=store, workers=2) as engine:
        run = await engine.run(Scores)
    assert noted(notes).count("open model") == len(run.data.pids)


async def test_what_is_printed_while_opening_is_the_askers(store, notes):
    """Of all tasks, the first has the line in its log."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Scores)
    assert [task.stdout for task in run["score"]].count("loading\n") == 1


class Server:
    """Stands for something with connections, such as a client's pool."""

    def __init__(self):
        self.open, self.calls = True, 0

    async def call(self):
        assert self.open
        await asyncio.sleep(0)
        self.calls += 1
        return self.calls


class Fetches(FlowSpec):
    """Its async tasks share a client; a `def` step of it shares something else."""

    @shared
    async def client(*, config):
        note("open client", config)
        print("connecting", current.get("step_name"))
        server = Server()
        async with anyio.create_task_group() as group:  # has to be left by who entered it
            group.start_soon(anyio.sleep_forever)
            yield server
            group.cancel_scope.cancel()
        server.open = False
        assert asyncio.get_running_loop().is_running()
        note("close client", server.calls, current.is_running_flow)

    @shared
    def config():
        note("open config")
        yield "http"
        note("close config")

    @step
    def start(self, *, config):
        self.items = range(50)
        self.next(self.fetch, foreach="items")

    @step
    async def fetch(self, *, client):
        self.call = await client.call()
        self.next(self.transform)

    @step
    def transform(self):
        self.call *= 2
        self.next(self.upload)

    @step
    async def upload(self, *, client, config):
        self.kind = config
        await client.call()
        self.next(self.join)

    @step
    async def join(self, inputs, *, client):
        self.calls = sorted(each.call for each in inputs)
        self.kinds = {each.kind for each in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_async_tasks_share_one_opening(store, notes):
    """Fifty that ask at once, and those after a `def` step, have the same client."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Fetches)
        assert noted(notes) == ["open config", "open client http"]
    assert len(run.data.calls) == 50
    assert run.data.kinds == {"http"}


async def test_an_async_one_is_closed_on_the_loop_when_the_engine_closes(store, notes):
    """By the asyncio task that opened it, and no longer as part of the task that asked."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Fetches)
    assert noted(notes)[2:] == ["close client 100 False", "close config"]


async def test_what_an_async_one_prints_while_opening_is_the_askers(store, notes):
    """Once, in the log of the task that was first."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Fetches)
    assert [task.stdout for task in run["fetch"]].count("connecting fetch\n") == 1


class Background(FlowSpec):
    """What it shares beats by itself."""

    @shared
    async def heart():
        async def beat():
            while True:
                note("beat")
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(beat())
        yield beating
        beating.cancel()

    @step
    async def start(self, *, heart):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_async_one_lives_on_while_its_worker_waits(store, notes):
    """Its background tasks have turns also when the worker has nothing to do."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Background)
        before = len(noted(notes))
        await until(lambda: len(noted(notes)) > before + 20)


class Failing(FlowSpec):
    """What it shares cannot be opened at first."""

    kind = Parameter("kind", default="def")

    @shared
    def wobbly():
        note("open wobbly")
        if len(noted(Path(os.environ["SHARED_NOTES"]))) < 3:
            raise ConnectionError("not yet")
        yield "open"

    @shared
    async def async_wobbly(*, wobbly):
        yield wobbly

    @step
    def start(self):
        if self.kind == "def":
            self.items, self.others = [1], []
        else:
            self.items, self.others = [], [1]
        self.next(self.sync_side, self.async_side)

    @step
    def sync_side(self):
        self.next(self.use, foreach="items")

    @retry(times=2, seconds=0)
    @step
    def use(self, *, wobbly):
        self.got = wobbly
        self.next(self.sync_join)

    @step
    def sync_join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.meet)

    @step
    def async_side(self):
        self.next(self.use_async, foreach="others")

    @retry(times=2, seconds=0)
    @step
    async def use_async(self, *, async_wobbly):
        self.got = async_wobbly
        self.next(self.async_join)

    @step
    def async_join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.got = [*inputs.sync_join.got, *inputs.async_join.got]
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("kind", ["def", "async"])
async def test_a_failed_opening_is_the_askers_and_is_tried_again(store, notes, kind):
    """The exception is that of the task which asked; the next one that asks opens anew."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Failing, kind=kind)
    assert run.data.got == ["open"]
    task = run["use" if kind == "def" else "use_async"].task
    assert [attempt.exception and attempt.exception.message for attempt in task.attempts()] == [
        "not yet",
        "not yet",
        None,
    ]
    assert "note(" not in task.attempts()[0].exception.traceback
    assert 'raise ConnectionError("not yet")' in task.attempts()[0].exception.traceback


def refuse():
    """What a server does that is down."""
    raise ConnectionRefusedError("by the server")


class Herd(FlowSpec):
    """Its tasks ask all at once for what cannot be opened."""

    release = Parameter("release", default="")

    @shared
    async def refused():
        note("open")
        while not Path(current.parameters.release).exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.01)
        yield refuse()

    @step
    def start(self):
        self.items = range(20)
        self.next(self.use, foreach="items")

    @catch(var="failure", print_exception=False)
    @step
    async def use(self, *, refused):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.failures = [each.failure for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_all_that_waited_for_an_opening_have_its_exception(store, notes, tmp_path):
    """A server that is down is asked once, and each of them tells where it failed."""
    release = tmp_path / "release"
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Herd, release=str(release))
        begun = 0
        async for event in handle.events():
            begun += isinstance(event, events.TaskStarted) and event.step == "use"
            if begun == 20:
                release.touch()
        run = await handle
    assert noted(notes) == ["open"]
    failures = run.data.failures
    assert {failure.type for failure in failures} == {"ConnectionRefusedError"}
    assert all('ConnectionRefusedError("by the server")' in each.traceback for each in failures)
    assert len({failure.traceback for failure in failures}) == 1


class Breaks(FlowSpec):
    """What it shares breaks while nobody is at it."""

    @shared
    async def line():
        note("open")
        cut = asyncio.Event()

        async def connection():
            await cut.wait()
            raise ConnectionResetError("line cut")

        async with anyio.create_task_group() as group:
            group.start_soon(connection)
            yield cut
            group.cancel_scope.cancel()

    @step
    async def start(self, *, line):
        line.set()
        await asyncio.sleep(0.1)
        self.next(self.again)

    @step
    async def again(self, *, line):
        self.whole = not line.is_set()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_breaks_while_it_is_open_is_told_of_and_opened_anew(store, notes, caplog):
    """The next task that asks has a new one, and the log says what was wrong with the old."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Breaks)
    assert run.data.whole
    assert noted(notes) == ["open", "open"]
    assert ["shared: line" in text for text in caplog.messages] == [True]


class Sour(FlowSpec):
    """What it shares cannot be closed."""

    @shared
    def sync_one():
        yield
        raise ValueError("stuck, def")

    @shared
    async def async_one():
        yield
        raise ValueError("stuck, async")

    @step
    async def start(self, *, sync_one, async_one):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_failed_closing_is_in_the_librarys_log(store, caplog):
    """The run has succeeded, the engine closes, and a warning tells of each, with its line."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Sour)
    told = [text for text in caplog.messages if "a shared resource has failed" in text]
    assert len(told) == 2
    assert "stuck, async" in told[0]
    assert "shared: async_one" in told[0]
    assert "stuck, def" in told[1]
    assert "test_shared.py:" in told[1]


opened_for = ContextVar("opened_for", default="nobody")


class Tokens(FlowSpec):
    """Opens what sets a context variable, and sets it back as it is closed."""

    @shared
    def thing():
        token = opened_for.set("all")
        yield 1
        print("closing")
        note(f"closed {opened_for.get()} {current.is_running_flow}")
        opened_for.reset(token)

    @step
    def start(self, *, thing):
        opened_for.set("start")
        self.next(self.middle)

    @step
    async def middle(self, *, thing):
        opened_for.set("middle")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_is_shared_is_closed_in_the_context_in_which_it_was_opened(store, notes, caplog):
    """It is no task's by then. `reset` of a context variable works in that context alone."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Tokens)
    assert noted(notes) == ["closed all False"]
    assert [text for text in caplog.messages if "shared" in text] == []


class Apart(FlowSpec):
    """A worker that ends with its task."""

    @shared
    def thing():
        note("open")
        yield 1
        note("close")

    @isolate
    @step
    def start(self, *, thing):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_isolated_task_has_its_own_closed_with_it(store, notes):
    """Whatever other workers have open."""
    async with Engine(store=store, workers=2) as engine:
        await engine.run(Apart)
        await until(lambda: noted(notes) == ["open", "close"])


async def test_a_class_that_came_with_its_run_closes_with_it(store, notes):
    """What a class from a notebook or a closure has open does not pile up in the workers."""
    path = str(notes)

    class Closure(FlowSpec):
        @shared
        def thing():
            with open(path, "a") as file:  # noqa: PTH123 - the class brings no imports
                file.write("open\n")
            yield 1
            with open(path, "a") as file:  # noqa: PTH123 - the class brings no imports
                file.write("close\n")

        @shared
        async def async_thing(*, thing):
            yield thing, 2

        @step
        async def start(self, *, async_thing):
            self.got = async_thing
            self.next(self.end)

        @step
        def end(self, *, thing):
            pass

    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Closure)
        assert run.data.got == (1, 2)
        await until(lambda: noted(notes) == ["open", "close"])


class Given(FlowSpec):
    """What it shares are context managers that functions give, and one that is no such."""

    wanted = Parameter("wanted", default="both")

    @shared
    def both():
        return contextlib.nullcontext("both")

    @shared
    @contextlib.contextmanager
    def under_contextlib():
        yield "contextlib"

    @shared
    def only_async():
        return contextlib.AsyncExitStack()

    @shared
    def nothing():
        return 7

    @step
    def start(self, *, both, under_contextlib):
        self.got = [both, under_contextlib]
        self.next(self.wanted_one, self.group)

    @step
    async def group(self, *, only_async, both):
        self.got = [*self.got, type(only_async).__name__, both]
        self.next(self.join)

    @step
    def wanted_one(self):
        self.items = [self.wanted]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.got = inputs.group.got
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_function_may_give_a_context_manager(store):
    """Of either kind; one that is both serves both kinds of steps."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Given)
    assert run.data.got == ["both", "contextlib", "AsyncExitStack", "both"]


class AsyncInDef(Given):
    """A `def` step asks for what turns out to be async."""

    @step
    def wanted_one(self, *, only_async):  # type: ignore[override] # only the engine calls it
        self.next(self.join)


class NoManager(Given):
    """A step asks for what is no context manager."""

    @step
    async def wanted_one(self, *, nothing):  # type: ignore[override] # only the engine calls it
        self.next(self.join)


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        (AsyncInDef, "opened with `async with`: only an `async def` step can ask for it"),
        (NoManager, "'nothing' gave a int, which is not a context manager"),
    ],
)
async def test_what_cannot_be_opened_says_why(store, flow, message):
    """The task that asked fails with what to do."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(flow)
    assert caught.value.failure.step == "wanted_one"
    assert message in caught.value.failure.message


# --- what is known before anything runs -----------------------------------------------------------


def flow_with(**attributes):
    """A flow of two steps with these attributes; `start` is among them or does nothing."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

    return type("Checked", (FlowSpec,), {"start": start, "end": end, **attributes})


@shared
async def client():
    """An async one."""
    yield


@shared
def api(*, client):
    """One that needs an async one."""
    yield client


@shared
def chicken(*, egg):
    """One half of a cycle."""
    yield egg


@shared
def egg(*, chicken):
    """The other."""
    yield chicken


@shared
def with_self(self):
    """As a method would be."""
    yield self


@step
def asks_client(self, *, client):
    """Asks for `client` without being able to open it."""
    self.next(self.end)


@step
def asks_clients(self, *, clients):
    """Has mistyped the name."""
    self.next(self.end)


@step
def asks_api(self, *, api):
    """Asks for something that needs an async one."""
    self.next(self.end)


@step
def asks_egg(self, *, egg):
    """Asks for a part of a cycle."""
    self.next(self.end)


@step
def assigns(self):
    """Takes the name for an artifact."""
    self.client = 1
    self.next(self.end)


@pytest.mark.parametrize(
    ("flow", "name", "message"),
    [
        (
            flow_with(start=asks_client, client=client),
            "start",
            (
                "step 'start' is `def`, but asks for 'client', which is opened with async code: "
                "make the step `async def`, or 'client' a `def`"
            ),
        ),
        (
            flow_with(start=asks_api, api=api, client=client),
            "start",
            "asks for 'api', which needs 'client', which is opened with async code",
        ),
        (
            flow_with(start=asks_clients, client=client),
            "start",
            "asks for 'clients', but nothing is shared under that name; did you mean 'client'?",
        ),
        (
            flow_with(start=asks_client),
            "start",
            "nothing is shared under that name: add `@shared def client(): …` to the class",
        ),
        (
            flow_with(start=asks_client, client=Parameter("client", default=1)),
            "start",
            (
                "'client', which is not under @shared: a keyword-only parameter asks for what is "
                "shared, so remove it and read self.client"
            ),
        ),
        (
            flow_with(start=asks_egg, chicken=chicken, egg=egg),
            "start",
            "shared 'chicken' needs itself (egg -> chicken -> egg): remove one",
        ),
        (flow_with(chicken=chicken, egg=egg), "", "shared 'egg' needs itself"),
        (flow_with(api=api), "", "shared 'api' asks for 'client', but nothing is shared"),
        (
            flow_with(with_self=with_self),
            "",
            (
                "'with_self' has the wrong arguments: it takes no `self`, and other shared ones by "
                "keyword only, as in `def with_self(*, config)`"
            ),
        ),
        (flow_with(start=assigns, client=client), "start", "assigns to self.client, which is"),
    ],
)
def test_the_check_refuses_what_cannot_be_given(flow, name, message):
    """With step, file and line, and what to do about it."""
    with pytest.raises(GraphError) as caught:
        read_graph(flow)
    assert message in str(caught.value)
    assert caught.value.step == name
    assert caught.value.file == __file__
    assert caught.value.line > 0


def test_a_coroutine_function_cannot_be_shared():
    """It has no `yield`, so nothing could be closed after it."""
    with pytest.raises(FlowError, match="has no `yield`"):

        @shared
        async def client():
            pass


def test_only_functions_can_be_shared():
    """A value cannot be opened."""
    with pytest.raises(FlowError, match="decorates a function, not 7"):
        shared(7)  # type: ignore[arg-type] # the mistake that is examined


def test_what_is_shared_is_no_attribute_of_a_task():
    """`self.client` says how to ask for it."""
    flow = flow_with(client=client)
    with pytest.raises(AttributeError, match=r"as in `def STEP\(self, \*, client\)`"):
        _ = flow(use_cli=False).client


async def test_what_is_shared_can_be_tried_by_itself(notes):
    """Called with what it needs, it is a context manager."""
    async with Fetches.client(config="a word") as server:
        assert await server.call() == 1
    assert noted(notes) == ["open client a word", "close client 1 False"]


def test_the_graph_tells_what_a_step_shares():
    """In its data and in its picture."""
    graph = read_graph(Fetches)
    assert graph["upload"].shared == ("client", "config")
    assert type(graph).from_data(graph.to_data())["upload"].shared == ("client", "config")
    assert "upload (async, shares client, config)" in to_text(graph)


async def test_who_waits_for_what_was_cancelled_before_it_began_to_open_is_told():
    """Nobody waits for ever, and the next who asks has it opened."""

    class Shares(FlowSpec):
        @shared
        async def client(*_):
            yield "open"

    holder = SharedResources(lambda *_: None)
    asking = asyncio.create_task(holder.open_async(Shares, ["client"]))
    await asyncio.sleep(0)  # it has asked, and who is to open it has not begun
    (host,) = [task for task in asyncio.all_tasks() if task.get_name() == "shared client"]
    host.cancel()
    with pytest.raises(FlowError, match="'client' was not opened"):
        await asking
    assert await holder.open_async(Shares, ["client"]) == {"client": "open"}
    await holder.close_async()
