"""Cards of steps: what is put on them is stored, told while the step runs, and found later."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest

from asyncflow import FlowSpec, Parameter, Task, card, catch, current, isolate, retry, step
from asyncflow.cards import (
    Artifact,
    CardComponent,
    Image,
    Markdown,
    MetaflowCard,
    ProgressBar,
    Table,
    get_cards,
)
from asyncflow.errors import RunFailedError
from asyncflow.events import CardUpdated
from asyncflow.testing import run_flow

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)


def drawn(task, **chosen):
    """The kinds and texts of the parts of the only such card, without the default card's own."""
    (found,) = get_cards(task, **chosen)
    return [part for part in found.drawing()["parts"] if part["kind"] != "section"]


class Reported(FlowSpec):
    """Two steps, one of them async, each with something on its card."""

    @card
    @step
    def start(self):
        current.card.append(Markdown("# Report"))
        current.card.append(Table([["a", 1], ["b", 2]], headers=["name", "count"]))
        current.card.append(Image(PNG, "a picture"))
        self.next(self.work)

    @card(type="blank", id="second")
    @card
    @step
    async def work(self):
        current.card.append(Artifact({"answer": 42}, "result"))
        await asyncio.sleep(0)
        current.card["second"].append(Markdown("only here"))
        self.value = 7
        self.next(self.end)

    @card
    @step
    def end(self):
        pass


async def engines(engine, flow, **parameters):
    """The run of a flow on an engine with worker processes, and in this process."""
    yield await engine.run(flow, **parameters)
    yield await asyncio.to_thread(run_flow, flow, **parameters)


async def test_what_a_step_adds_is_on_its_card(engine):
    """In `def` and async steps, in workers and in the program's own process."""
    async for run in engines(engine, Reported):
        text, table, image = drawn(run["start"].task)
        assert text["tree"] == [["h1", ["Report"]]]
        assert table["rows"] == [["a", 1], ["b", 2]]
        assert table["headers"] == ["name", "count"]
        assert image["url"].startswith("data:image/png;base64,iVBORw0KGgo")
        assert image["label"] == "a picture"
        (result,) = drawn(run["work"].task, type="default")
        assert (result["name"], result["text"]) == ("result", "{'answer': 42}")
        (second,) = drawn(run["work"].task, id="second")
        assert second["tree"] == [["p", ["only here"]]]


async def test_cards_come_in_the_order_of_the_decorators(engine):
    """With types and ids; a filter that nothing matches gives none."""
    task = (await engine.run(Reported))["work"].task
    cards = get_cards(task)
    assert [(each.type, each.id, each.number) for each in cards] == [
        ("blank", "second", 0),
        ("default", None, 1),
    ]
    assert [each.name for each in cards] == ["second", "default"]
    assert cards[1] == list(cards)[1]
    assert len(get_cards(task, type="blank")) == 1
    assert len(get_cards(task.pathspec, "nothing", store=task.store)) == 0
    assert cards[0].hash != cards[1].hash
    assert "<iframe" in cards._repr_html_()
    assert 'sandbox="allow-scripts"' in cards[0]._repr_html_()


async def test_a_default_card_that_nothing_was_added_to_is_made_when_looked_at(engine):
    """The store has nothing of it, and it tells what the task is."""
    run = await engine.run(Reported)
    task = run["end"].task
    assert task._attempts.cards() == {}
    (found,) = get_cards(task)
    sections = {part["title"]: part["parts"] for part in found.drawing()["parts"]}
    assert ["task", task.pathspec] in sections["Task"][0]["rows"]
    assert ["value", "7", "int", "5 bytes"] in sections["Artifacts"][0]["rows"]


# --- failures ---------------------------------------------------------------------------------


def fail(why):
    """Fail, in a way of which the graph's reader knows nothing."""
    raise ValueError(why)


class Failing(FlowSpec):
    """Fails after it has put something on its card, in a way that can be chosen."""

    how = Parameter("how", default="raise")

    @card
    @card(type="html", id="page")
    @step
    def start(self):
        current.card.append(Markdown("so far"))
        self.html = "<h1>half</h1>"
        if self.how == "kill":
            current.card.refresh()
            os.kill(os.getpid(), signal.SIGKILL)
        fail("no rows")
        self.next(self.end)

    @step
    def end(self):
        pass


class FailingAsync(Failing):
    """The same in an async step."""

    @card
    @step
    async def start(self):
        current.card.append(Markdown("so far"))
        fail("no rows")
        self.next(self.end)


async def failed(engine, flow, **parameters):
    """The failed task of a run of the flow."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(flow, **parameters)
    return caught.value.run["start"].task


@pytest.mark.parametrize("flow", [Failing, FailingAsync])
async def test_a_failed_task_keeps_its_card_with_the_traceback(engine, flow):
    """What was added by then, below the failure."""
    failure, text = drawn(await failed(engine, flow), type="default")
    assert (failure["kind"], failure["text"]) == ("error", "ValueError: no rows")
    assert 'fail("no rows")' in failure["traceback"]
    assert text["tree"] == [["p", ["so far"]]]


async def test_a_failed_html_card_has_the_html_that_there_was(engine):
    """And the failure above it."""
    task = await failed(engine, Failing)
    (page,) = get_cards(task, id="page")
    assert page.drawing()["html"] == "<h1>half</h1>"
    assert "no rows" in page.get()


async def test_a_task_whose_worker_dies_keeps_the_card_that_was_refreshed_last(engine):
    """The engine has heard of it before."""
    failure, text = drawn(await failed(engine, Failing, how="kill"), type="default")
    assert "WorkerDiedError" in failure["text"]
    assert text["tree"] == [["p", ["so far"]]]


class Retried(FlowSpec):
    """Each attempt has a card of its own; the last failure is caught."""

    @retry(times=1)
    @catch(var="problem")
    @card
    @step
    def start(self):
        current.card.append(Markdown(f"attempt {current.attempt}"))
        fail(f"no {current.attempt}")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_each_attempt_has_its_own_card(engine):
    """Also one that was caught."""
    run = await engine.run(Retried)
    task = run["start"].task
    failure, text = drawn(task)
    assert failure["title"] == "The failure was caught"
    assert text["tree"] == [["p", ["attempt 1"]]]
    first = Task(task.pathspec, attempt=0, store=task.store)
    failure, text = drawn(first)
    assert failure["text"] == "ValueError: no 0"
    assert text["tree"] == [["p", ["attempt 0"]]]


# --- what is hostile --------------------------------------------------------------------------


class Exiting(CardComponent):
    """Its render ends the program."""

    def render(self):
        raise SystemExit(3)


class Endless(CardComponent):
    """Its render does not come back."""

    def render(self):
        while True:
            time.sleep(0.001)


class Odd:
    """A value without a repr that can be pickled neither."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __reduce__(self):
        raise TypeError("never")


class Hostile(FlowSpec):
    """Puts on its card what cannot be shown."""

    @card
    @step
    def start(self):
        card: Any = current.card
        card.append(Exiting())
        card.append(Artifact(Odd()))
        card.append(threading.Lock())
        card.append(Image(b"no image"))
        card.append(Image.from_matplotlib(7))
        card.append(Table(cast("Any", 7)))
        card.append(Table.from_dataframe("no frame"))
        card.extend(7)
        card.append(Markdown("after that"))
        card.components["nothing"].update(1)
        card["unknown"].append(1)
        card.refresh({"data": Odd()})
        self.next(self.slow)

    @card(timeout=0.2)
    @step
    def slow(self):
        current.card.append(Markdown("fast"))
        current.card.refresh()
        current.card.append(Endless())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_nothing_on_a_card_fails_the_step(engine):
    """An error stands in its place, and what comes after it is shown."""
    run = await engine.run(Hostile)
    warning, *parts, last = drawn(run["start"].task)
    assert "'unknown'" in warning["text"]
    kinds = ["error", "artifact", "error", "error", "error", "error", "table", "error"]
    assert [part["kind"] for part in parts] == kinds
    assert parts[0]["text"] == "SystemExit: 3"
    assert parts[1]["text"].startswith("<Odd instance at ")
    assert parts[2]["title"] == "_thread.lock is no component"
    assert parts[6]["rows"][0][0]["kind"] == "error"
    assert last["tree"] == [["p", ["after that"]]]
    assert "no component 'nothing' to update" in run["start"].task.stderr


async def test_a_component_that_never_comes_back_is_left_behind(engine):
    """The card stays as it was told last."""
    run = await engine.run(Hostile)
    (text,) = drawn(run["slow"].task)
    assert text["tree"] == [["p", ["fast"]]]
    assert "took more than 0.2 s" in run["slow"].task.stderr


# --- several cards ----------------------------------------------------------------------------


class Several(FlowSpec):
    """Which card `current.card` is, by Metaflow's rules."""

    @card(type="blank", id="a")
    @card(type="html", id="h")
    @step
    def start(self):
        self.html = "<p>hello</p>"
        current.card.append(Markdown("the only one that can be added to"))
        self.next(self.unnamed)

    @card(id="a")
    @card
    @step
    def unnamed(self):
        current.card.append(Markdown("the one without an id"))
        self.next(self.customized)

    @card(id="a")
    @card(id="b", customize=True)
    @card
    @step
    def customized(self):
        current.card.append(Markdown("the one with customize"))
        self.next(self.unclear)

    @card(id="a")
    @card(id="b")
    @step
    def unclear(self):
        current.card.append(Markdown("dropped"))
        current.card["a"] = [Markdown("one"), Markdown("two")]
        current.card["b"].append(ProgressBar(max=4), id="bar")
        current.card["b"].components["bar"].update(3)
        assert len(current.card.components) == 0
        assert len(current.card.get(type="default")) == 2
        self.next(self.twice)

    @card(id="a")
    @card(id="a")
    @step
    def twice(self):
        current.card["a"].append(Markdown("dropped"))
        self.next(self.end)

    @step
    def end(self):
        assert "card" not in current


async def test_current_card_is_the_card_that_metaflow_would_take(engine):
    """The only editable one, the one with customize, or the one without an id; else none."""
    run = await engine.run(Several)
    for step_name, chosen, text in (
        ("start", {"id": "a"}, "the only one that can be added to"),
        ("customized", {"id": "b"}, "the one with customize"),
    ):
        (part,) = drawn(run[step_name].task, **chosen)
        assert part["tree"] == [["p", [text]]]
    named, unnamed = get_cards(run["unnamed"].task)
    assert named.drawing()["parts"][0]["kind"] == "section"
    assert unnamed.drawing()["parts"][0]["tree"] == [["p", ["the one without an id"]]]


async def test_a_card_is_found_by_its_id(engine):
    """Its components may be replaced, and updated by their own ids; a double id finds none."""
    run = await engine.run(Several)
    warning, one, two = drawn(run["unclear"].task, id="a")
    assert "which of 2 cards is meant" in warning["text"]
    assert (one["tree"], two["tree"]) == ([["p", ["one"]]], [["p", ["two"]]])
    _, bar = drawn(run["unclear"].task, id="b")
    assert (bar["kind"], bar["value"], bar["max"]) == ("progress", 3, 4)
    names = [each.name for each in get_cards(run["twice"].task, id="a")]
    assert names == ["a", "a-2"]
    assert "several @card have the id 'a'" in run["twice"].task.stderr


async def test_an_html_card_is_the_html_itself(engine):
    """As Metaflow's card of that name gives it."""
    run = await engine.run(Several)
    (page,) = get_cards(run["start"].task, type="html")
    assert page.get() == "<p>hello</p>"


class Options(FlowSpec):
    """Cards with options."""

    @card(type="html", options={"attribute": "page"})
    @card(type="blank", options={"title": "A title"})
    @card(type="html", id="none")
    @card(type="html", id="odd", options={"attribute": "number"})
    @step
    def start(self):
        self.page = "<b>" + "x" * 5000 + "</b>"
        self.number = 7
        current.card.append(Markdown("x"))
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_options_name_the_attribute_and_the_title(engine):
    """An attribute that is not there, or no text, is said on the card."""
    task = (await engine.run(Options))["start"].task
    page, blank, missing, odd = get_cards(task)
    assert page.get() == task.data.page
    assert blank.drawing()["title"] == "A title"
    assert "no self.html" in missing.drawing()["parts"][0]["text"]
    assert "self.number is a int" in odd.drawing()["parts"][0]["text"]


# --- types of one's own -----------------------------------------------------------------------


class Counting(MetaflowCard):
    """Renders HTML from what the step has set."""

    type = "counting"

    def __init__(self, options=None, components=(), graph=None, **_):
        self.step_count = len(graph["steps"])
        self.prefix = (options or {}).get("prefix", "")

    def render(self, task):
        names = ",".join(sorted(each.id for each in task))
        return (
            f"<p>{self.prefix}{task.data.count} in {task.pathspec}: {names}, {self.step_count}</p>"
        )


class Listing(MetaflowCard):
    """Renders components, with those of the step."""

    type = "listing"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True

    def render(self, task):
        return [Markdown(f"finished: {task.finished}"), *self.components]

    def render_runtime(self, task, data):
        return [Markdown(f"so far: {data}")]


class Broken(MetaflowCard):
    """Cannot be rendered."""

    type = "broken"

    def render(self, task):
        raise ZeroDivisionError(task.pathspec)


class OwnTypes(FlowSpec):
    """A card of each of them, and of a type that there is not."""

    @card(type="counting", options={"prefix": "n="})
    @card(type=Listing)  # the class stands for its name
    @card(type="broken")
    @card(type="broken", id="hidden", save_errors=False)
    @card(type="unheard_of")
    @step
    def start(self):
        self.count = 3
        current.card.append(Markdown("mine"))
        current.card.refresh({"rows": 2})
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_types_of_cards_of_ones_own_are_rendered_when_the_step_has_ended(engine):
    """To HTML or to components; what is wrong with one is said on it."""
    async for run in engines(engine, OwnTypes):
        task = run["start"].task
        counting, listing, broken, hidden, unknown = (each.drawing() for each in get_cards(task))
        assert counting["html"] == f"<p>n=3 in {task.pathspec}: count, 2</p>"
        (group,) = listing["parts"]
        trees = [part["tree"] for part in group["parts"]]
        assert trees == [[["p", ["finished: True"]]], [["p", ["mine"]]]]
        assert broken["parts"][0]["text"] == f"ZeroDivisionError: {task.pathspec}"
        assert hidden["parts"] == []
        assert "no type of cards 'unheard_of'" in unknown["parts"][0]["title"]


# --- while the step runs ----------------------------------------------------------------------


class Live(FlowSpec):
    """Async tasks side by side on one loop, each with a card that it refreshes."""

    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @card(type="blank", refresh_interval=0)
    @step
    async def work(self):
        bar = ProgressBar(max=3, label=f"item {self.input}")
        current.card.append(bar)
        for done in range(1, 4):
            bar.update(done)
            current.card.refresh()
            await asyncio.sleep(0.01)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_refresh_is_an_event_and_tasks_on_one_loop_do_not_mix(engine):
    """The events of each task have its own card, in the order of the refreshes."""
    handle = await engine.start(Live)
    seen: dict[str, list[bytes]] = {}
    async for event in handle.events(CardUpdated):
        seen.setdefault(event.task_id, []).append(event.cards)
    run = await handle
    assert [len(cards) for cards in seen.values()] == [3, 3, 3]
    for task in run["work"]:
        (bar,) = drawn(task)
        assert (bar["label"], bar["value"]) == (f"item {task.index}", 3)


class Waiting(FlowSpec):
    """Refreshes once and goes on, until somebody has seen that."""

    folder = Parameter("folder", type=str)

    @card
    @step
    def start(self):
        current.card.append(Markdown("begun"))
        current.card.refresh()
        current.card.append(Markdown("more"))
        current.card.refresh()  # too soon: shown a moment later
        until = time.monotonic() + 60
        while not Path(self.folder, "seen").exists() and time.monotonic() < until:
            time.sleep(0.005)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_the_card_of_a_running_task_is_found(engine, tmp_path):
    """By the client, and with the last refresh, which came too soon after the one before."""
    handle = await engine.start(Waiting, folder=str(tmp_path))
    count = 0
    async for _ in handle.events(CardUpdated):
        count += 1
        if count == 2:
            break
    task = Task(f"{handle.pathspec}/start/1", store=engine.settings.store)
    texts = [part["tree"] for part in drawn(task)]
    status = get_cards(task)[0].drawing()["status"]
    (tmp_path / "seen").touch()
    await handle
    assert texts == [[["p", ["begun"]]], [["p", ["more"]]]]
    assert status == "running"


class Eager(FlowSpec):
    """Refreshes far too often."""

    @card
    @step
    def start(self):
        bar = ProgressBar(max=5000)
        current.card.append(bar)
        for number in range(5000):
            bar.update(number)
            current.card.refresh()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_refreshes_all_the_time_is_thinned_out(engine):
    """Its card is complete all the same."""
    run = await engine.run(Eager)
    updates = sum(1 for event in run.events(CardUpdated))
    seconds = run["start"].task.seconds
    assert updates <= 2 + seconds / 0.1
    (bar,) = drawn(run["start"].task)
    assert bar["value"] == 4999


class Alone(FlowSpec):
    """A step with a process of its own."""

    @isolate
    @card
    @step
    def start(self):
        if os.fork() == 0:
            current.card.append(Markdown("in a child"))
            current.card.refresh()
            os._exit(0)
        os.wait()
        current.card.append(Markdown("in the step"))
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_child_that_the_step_forks_tells_nothing(engine):
    """Its card is a copy of its own."""
    run = await engine.run(Alone)
    assert list(run.events(CardUpdated)) == []
    (text,) = drawn(run["start"].task)
    assert text["tree"] == [["p", ["in the step"]]]
