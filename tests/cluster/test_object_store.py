"""A store in an S3-compatible server: what an engine writes, others read, end, and go on with."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncflow import Engine, FlowSpec, Run, Store, step
from asyncflow._support.settings import Settings
from asyncflow.cards import get_cards
from asyncflow.errors import (
    JournalError,
    ResumeError,
    RunInterruptedError,
    SettingsError,
    StoreError,
    StoreFormatError,
)
from asyncflow.events import RunFailed, TaskSucceeded
from asyncflow.store import open_store
from asyncflow.store.frames import frame
from asyncflow.store.interface import Sent
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.maintenance.any_store import remove_from, verify_store
from asyncflow.store.object_store.node_cache import NodeCache
from asyncflow.store.object_store.objects import Objects
from asyncflow.store.object_store.piece_file import PieceFile, append_piece, seal
from asyncflow.store.object_store.pieces import Piece
from asyncflow.values import Status
from tests.cluster import gated_cards, gated_flow
from tests.cluster.gated_flow import Gated
from tests.cluster.object_proxy import Fault
from tests.support import command_line
from tests.support.command_line import here, latest, read_until, succeeded
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.cluster

FLOW = gated_flow.__file__


class Square(FlowSpec):
    """Squares some numbers, each in a task of its own."""

    @step
    def start(self):
        self.numbers = [*range(5)]
        print("starting")
        self.next(self.square, foreach="numbers")

    @step
    def square(self):
        self.result = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = sorted(each.result for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def url(bucket, monkeypatch):
    """Where this test's store will be; this machine has nothing of it."""
    location = f"s3://{bucket}/flows"
    monkeypatch.setenv("ASYNCFLOW_STORE", location)
    return location


@pytest.fixture
def go_elsewhere(tmp_path, monkeypatch) -> Callable[[], None]:
    """Make this process one of another machine, which has another cache."""

    def go() -> None:
        monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "elsewhere"))

    return go


@pytest.fixture
def gated(tmp_path, monkeypatch):
    """What `Gated` needs in its environment; returns the files `RAN` and `GATE`."""
    ran, gate = tmp_path / "ran", tmp_path / "gate"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.setenv("GATE", str(gate))
    return ran, gate


def begin_gated():
    """Start `Gated` in a process of its own; return it when four of its tasks were announced."""
    process = command_line.start("run", FLOW, "--workers", "1")
    said = read_until(process, "Task finished", times=4)
    return process, set(command_line.FINISHED.findall(said))


def kill(process):
    """End a process at once, as a machine does that stops."""
    process.kill()
    process.communicate()


# --- what an engine writes is read elsewhere ------------------------------------------------------


@pytest.mark.parametrize("durability", ["crash", "power"])
async def test_a_run_is_read_elsewhere(url, go_elsewhere, durability):
    """By a program that has nothing but the URL."""
    settings = Settings(store=url, workers=2, durability=durability)
    async with Engine(settings=settings) as engine:
        run = await engine.run(Square)
        assert run["end"].task.data.results == [0, 1, 4, 9, 16]
        assert run.store == url
    go_elsewhere()
    assert Store().location == url
    there = Run(run.pathspec)
    assert there.successful
    assert there["start"].task.stdout == "starting\n"
    assert there["end"].task.data.results == [0, 1, 4, 9, 16]
    assert [type(event) for event in there.events()] == [type(event) for event in run.events()]


async def test_the_commands_say_the_same_elsewhere(url, go_elsewhere):
    """Also with nothing but the journal, as for a run that was interrupted."""
    async with Engine(store=url, workers=1) as engine:
        run = await engine.run(Square, tags=["a"])
    commands = [
        ("runs", "--json"),
        ("show", run.pathspec, "--json"),
        ("logs", run.pathspec),
        ("events", run.pathspec, "--json"),
        ("dump", f"{run.pathspec}/end", "--json"),
    ]
    before = [here(*command) for command in commands]
    assert all(said.status == 0 for said in before), before
    go_elsewhere()
    open_store(url).run("Square", run.id).delete_files("summary")
    open_store(url).run("Square", run.id).delete_files("index")
    for command, said in zip(commands, before, strict=True):
        again = here(*command)
        assert (again.status, again.stdout) == (said.status, said.stdout), command


async def test_a_run_is_followed_elsewhere_while_it_goes_on(url, go_elsewhere, gated):
    """Each event once, in order, and to the end."""
    _, gate = gated
    process, announced = begin_gated()
    go_elsewhere()
    seen = []
    run = latest("Gated")
    assert run.status is Status.RUNNING
    async for event in run.events(follow=True):
        seen.append(event)
        if len([each for each in seen if isinstance(each, TaskSucceeded)]) == len(announced):
            gate.touch()
    assert command_line.end(process).status == 0
    assert seen == [*Run(run.pathspec).events()]
    assert run.successful


# --- engines that die -----------------------------------------------------------------------------


async def test_what_was_announced_is_in_the_store_when_the_engine_dies(
    url, go_elsewhere, gated, monkeypatch
):
    """If each piece comes before the news. Another machine waits until the claim is old."""
    monkeypatch.setenv("ASYNCFLOW_DURABILITY", "power")
    process, announced = begin_gated()
    kill(process)
    go_elsewhere()
    run = latest("Gated")
    assert announced <= succeeded(run)
    assert run.status is Status.RUNNING
    async with Engine(store=url, workers=1) as engine:
        with pytest.raises(ResumeError, match="is still running"):
            await engine.resume(Gated, origin=run)


async def test_a_dead_run_is_resumed_elsewhere(url, go_elsewhere, gated, monkeypatch):
    """Nothing that was announced runs again."""
    ran, gate = gated
    monkeypatch.setenv("ASYNCFLOW_DURABILITY", "power")
    process, _announced = begin_gated()
    kill(process)
    go_elsewhere()
    monkeypatch.setattr("asyncflow.store.object_store.claim.FRESH_SECONDS", 0.0)
    run = latest("Gated")
    assert run.status is Status.INTERRUPTED
    with pytest.raises(RunInterruptedError, match="asyncflow resume"):
        list(run.events(follow=True))
    gate.touch()
    before = ran.read_text().splitlines()
    async with Engine(store=url, workers=1) as engine:
        resumed = await engine.resume(Gated, origin=run)
    assert resumed["end"].task.stdout == "[0, 1, 4, 9, 16, 25]\n"
    again = ran.read_text().splitlines()[len(before) :]
    assert sorted(again) == ["join", "square 3", "square 4", "square 5"]


async def test_what_a_killed_program_has_not_sent_is_sent_by_the_next(
    url, s3_proxy, go_elsewhere, gated
):
    """On the same machine, by `push` or by an engine; and then it is read elsewhere."""
    s3_proxy.set(Fault("503", at=2, times=10**6, kinds=("put",), within="/journal/"))
    process, announced = begin_gated()
    kill(process)
    s3_proxy.set()
    run = latest("Gated")
    assert run.status is Status.INTERRUPTED
    assert announced <= succeeded(run)
    said = here("push", "--json")
    ((sent),) = json.loads(said.stdout)
    assert sent["pathspec"] == run.pathspec
    assert sent["sent"] > 0
    assert sent["dropped"] == 0
    assert here("push").stdout == "Nothing is left to be sent.\n"
    go_elsewhere()
    assert announced <= succeeded(latest("Gated"))
    assert here("push").stdout == "Nothing is left to be sent.\n"


def images(task):
    """The labels of the images on a task's card, each with the length of its address."""
    drawing = get_cards(task)[-1].drawing()
    return [
        (part["label"], len(part["url"])) for part in drawing["parts"] if part["kind"] == "image"
    ]


async def test_the_cards_that_a_killed_program_has_not_sent_are_sent_by_push(
    url, s3_proxy, go_elsewhere, gated
):
    """With their images: those of a step that had ended, and of one that was showing its own."""
    ran, _ = gated
    s3_proxy.set(Fault("503", at=2, times=10**6, kinds=("put",), within="/journal/"))
    process = command_line.start("run", gated_cards.__file__, "--workers", "1")
    await until(ran.exists)
    run = latest("GatedCards")
    await until(lambda: "wait" in run and images(run["wait"].task))
    kill(process)
    s3_proxy.set()
    wanted = [images(run[step].task) for step in ("start", "wait")]
    assert [[label for label, _ in each] for each in wanted] == [
        ["large", "small"],
        ["small again"],
    ]
    ((sent),) = json.loads(here("push", "--json").stdout)
    assert (sent["pathspec"], sent["dropped"]) == (run.pathspec, 0)
    go_elsewhere()
    there = latest("GatedCards")
    assert [images(there[step].task) for step in ("start", "wait")] == wanted
    assert len(get_cards(there["start"].task)[0].get()) == len("<h1></h1>") + 3000
    assert "so far" in get_cards(there["wait"].task)[0].get()


async def test_a_run_that_others_have_ended_keeps_their_end(
    url, s3_proxy, go_elsewhere, gated, tmp_path, monkeypatch
):
    """What its first machine had not sent until then is dropped, and `push` says so."""
    s3_proxy.set(Fault("503", at=2, times=10**6, kinds=("put",), within="/journal/"))
    process, _ = begin_gated()
    kill(process)
    s3_proxy.set()
    run = latest("Gated")
    go_elsewhere()
    open_store(url).run("Gated", run.id).end_writing()
    there = [*Run(run.pathspec).events()]
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "cache"))
    assert [*Run(run.pathspec).events()] == there
    assert "dropped" in here("push").stdout
    assert [*Run(run.pathspec).events()] == there


async def test_a_resume_on_the_same_machine_sends_the_rest_first(url, s3_proxy, gated):
    """Nobody waits for a claim to grow old: the machine knows that the program is dead."""
    ran, gate = gated
    s3_proxy.set(Fault("503", at=2, times=10**6, kinds=("put",), within="/journal/"))
    process, _announced = begin_gated()
    kill(process)
    s3_proxy.set()
    gate.touch()
    before = ran.read_text().splitlines()
    said = command_line.asyncflow("resume", FLOW, "--workers", "1")
    assert said.status == 0, said
    again = ran.read_text().splitlines()[len(before) :]
    assert sorted(again) == ["join", "square 3", "square 4", "square 5"]


# --- two writers ----------------------------------------------------------------------------------


async def test_an_engine_ends_a_run_that_others_have_ended(url, gated, go_elsewhere, monkeypatch):
    """Soon, also if its tasks have nothing to report; and announces nothing behind that end."""
    monkeypatch.setattr("asyncflow.store.object_store.claim.BEAT_SECONDS", 0.5)
    async with Engine(store=url, workers=1) as engine:
        handle = await engine.start(Gated)
        await until(lambda: gated[0].exists() and "square 2" in gated[0].read_text())
        go_elsewhere()
        there = open_store(url).run("Gated", handle.run_id)
        await until(there.has_journal)
        there.end_writing()
        with pytest.raises(JournalError, match="somebody else has ended this run"):
            await handle.wait()
    run = Run(handle.pathspec)
    assert run.status is Status.INTERRUPTED
    assert not any(isinstance(each, RunFailed) for each in run.events())


@pytest.mark.parametrize("has_news", [True, False])
async def test_an_engine_ends_a_run_that_others_have_removed(
    url, gated, go_elsewhere, monkeypatch, has_news
):
    """Whatever it does next: nothing of the run comes back, which would be damage."""
    claim = "asyncflow.store.object_store.claim"
    monkeypatch.setattr(f"{claim}.FRESH_SECONDS", 0.0)
    times = ("_STALE_SECONDS", 0.0) if has_news else ("BEAT_SECONDS", 0.5)
    monkeypatch.setattr(f"{claim}.{times[0]}", times[1])
    async with Engine(store=url, workers=1) as engine:
        handle = await engine.start(Gated)
        await until(lambda: gated[0].exists() and "square 2" in gated[0].read_text())
        go_elsewhere()
        there = open_store(url)
        await until(there.run("Gated", handle.run_id).has_journal)
        remove_from(there, [("Gated", handle.run_id)], dry_run=False, on_wait=print)
        if has_news:
            gated[1].touch()
        with pytest.raises(JournalError, match="somebody else has ended this run"):
            await handle.wait()
    assert not there.run("Gated", handle.run_id).has_journal()
    assert verify_store(there).damage == []


def test_of_two_programs_that_begin_one_run_one_does(url, go_elsewhere):
    """The other is refused, and nothing of it is in the store."""
    first = open_store(url, create=True)
    run = first.make_run("F")
    go_elsewhere()
    other = open_store(url)
    again = other.run("F", run.run_id)
    Path(other.cache, "flows", "F", run.run_id).mkdir(parents=True)
    writers = [run.begin_journal(durable=True), again.begin_journal(durable=True)]
    writers[0].write(frame(b"one"))
    with pytest.raises(JournalError, match="somebody else"):
        writers[1].write(frame(b"other"))
    for writer in writers:
        writer.close()
    first.close()
    other.close()
    with open_store(url).run("F", run.run_id).open_journal() as journal:
        assert [record for _, record, _ in journal.read_from()] == [b"one"]
    assert other.send_rest() == [Sent(run.pathspec, 0, FIRST_RECORD + len(frame(b"other")))]


def test_writers_that_race_make_one_sequence(url):
    """Each append is in it once, and those of one writer in its order; a seal ends it for all."""
    open_store(url, create=True)
    objects = Objects.open(url)
    told: dict[int, list[int]] = {}

    def write(number: int) -> None:
        told[number] = []
        file, writer = PieceFile(objects, "race"), bytes([number]) * 16
        for count in range(1000):
            file.refresh(now=True)
            piece = Piece(file.size, writer, struct.pack("<II", number, count))
            while (there := append_piece(objects, "race", piece)) != piece:
                if there.is_seal:
                    return
                piece = piece._replace(offset=there.end)
            told[number].append(count)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    file = PieceFile(objects, "race")
    while file.size < 8 * 100:
        file.refresh(now=True)
        time.sleep(0.05)
    length = seal(objects, "race", bytes(16))
    for each in threads:
        each.join()
    file.refresh(now=True)
    written = [struct.unpack("<II", file.read(8, at)) for at in range(0, length, 8)]
    for number in range(4):
        assert [count for who, count in written if who == number] == told[number]


def test_the_ids_of_runs_that_are_made_at_once_differ(url):
    """And each program's go up."""
    stores = [open_store(url, create=True) for _ in range(4)]
    made: list[list[int]] = [[] for _ in stores]

    def make(number: int) -> None:
        made[number] = [int(stores[number].make_run("F").run_id) for _ in range(8)]

    threads = [threading.Thread(target=make, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({run_id for ids in made for run_id in ids}) == 32
    assert all(ids == sorted(ids) for ids in made)


# --- what it costs --------------------------------------------------------------------------------


async def test_a_journal_is_sent_four_times_a_second_at_most(url, s3_proxy):
    """However many events there are; and all of it is there at the end."""
    async with Engine(store=url, workers=2) as engine:
        s3_proxy.set()
        begun = time.monotonic()
        await engine.run(Wide)
        seconds = time.monotonic() - begun
    assert s3_proxy.count("/journal/")["put"] <= 4 * seconds + 3


async def test_the_summary_of_a_run_is_the_last_that_is_stored(url, s3_proxy):
    """Whoever finds it finds the whole journal and the table."""
    async with Engine(store=url, workers=2) as engine:
        s3_proxy.set(delay=0.05)
        run = await engine.run(Wide)
    puts = [each.key.partition(f"{run.pathspec}/")[2] for each in s3_proxy.requests()]
    last = max(at for at, name in enumerate(puts) if name.startswith("journal/"))
    assert max(puts.index("index"), last) < puts.index("summary")


class Wide(FlowSpec):
    """Has more tasks than pieces."""

    @step
    def start(self):
        self.numbers = [*range(300)]
        self.next(self.one, foreach="numbers")

    @step
    def one(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


# --- stores that cannot be used -------------------------------------------------------------------


def test_a_store_that_is_not_there_is_made_by_an_engine_alone(url):
    """The others say what to do."""
    with pytest.raises(StoreError, match=r"there is no store at s3://.*; run a flow first"):
        open_store(url)
    assert here("runs").status == 1
    open_store(url, create=True)
    assert here("runs").status == 0


def test_a_bucket_that_is_not_there_is_named(url, bucket):
    """At once, though requests that fail are repeated for a while."""
    with pytest.raises(StoreError, match="there is no such bucket; create it"):
        open_store("s3://no-such-bucket/flows", create=True)


def test_a_server_that_does_not_answer_is_an_error(url, monkeypatch):
    """After a while, and with the reason."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("asyncflow.store.object_store.object_store._OPENING_SECONDS", 0.3)
    with pytest.raises(StoreError, match=r"cannot be used: .*127\.0\.0\.1:9"):
        open_store(url, create=True)


@pytest.mark.parametrize(
    "wrong", ["ftp://bucket/x", "s3://", "s3:///x", "s3://key:secret@bucket/x", "s3://b/x?y=z"]
)
def test_a_url_of_something_else_is_refused(wrong):
    """Before anything is asked for."""
    with pytest.raises(StoreError, match=r"write s3://BUCKET|it takes a folder, or one of s3://"):
        open_store(wrong, create=True)


def test_a_store_of_another_version_is_refused(url, bucket):
    """And something that is no store."""
    open_store(url, create=True)
    objects = Objects.open(url)
    objects.put("format", b"3\n")
    with pytest.raises(StoreFormatError, match="has format 3, and this asyncflow reads 2"):
        open_store(url)
    objects.put("format", b"hello")
    with pytest.raises(StoreFormatError, match="is not a store of asyncflow"):
        open_store(url)


@pytest.mark.parametrize(
    ("header", "ignored"),
    [("if-none-match", "creates an object that exists"), ("if-match", "replaces an object")],
)
def test_a_server_that_ignores_conditions_is_refused(url, s3_proxy, header, ignored):
    """Two programs could write one run there."""
    s3_proxy.set(without=[header])
    with pytest.raises(StoreError, match=ignored):
        open_store(url, create=True)
    s3_proxy.set()
    with pytest.raises(StoreError, match="there is no store"):
        open_store(url)


def test_a_path_is_no_url(tmp_path):
    """`Path` takes a slash from a URL: that is said, not stored in a folder `s3:`."""
    with pytest.raises(SettingsError, match=r"'store' takes"):
        Settings(store=Path("s3://bucket/flows"))
    assert Settings(store="s3://bucket/flows").store == "s3://bucket/flows"
    assert Settings(store="a/b").store == Path("a/b")


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_held_by_one_at_a_time(url):
    """The next one finds the run that it was given to."""
    store = open_store(url, create=True)
    found = []

    def give(number):
        with store.holding_key("F", "order-42") as holder:
            found.append(holder.run_id)
            holder.give_to(str(number))

    threads = [threading.Thread(target=give, args=(number,)) for number in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given = [*found[1:], store.run_of_key("F", "order-42")]
    assert found[0] == ""
    assert sorted(given) == ["1", "2", "3", "4", "5"]
    assert store.run_of_key("F", "another") == ""


async def test_a_journal_that_was_sent_makes_room(url, monkeypatch):
    """The run is then read from the store; a journal that was not sent stays."""
    async with Engine(store=url, workers=1) as engine:
        run = await engine.run(Square)
    monkeypatch.setenv("ASYNCFLOW_CACHE_BYTES", "1")
    cache = NodeCache(open_store(url).cache)
    journal = Path(cache.folder, "flows", *run.pathspec.split("/"), "journal")
    before = [*run.events()]
    Path(journal.parent, "sent").rename(journal.parent / "unsent")
    cache.make_room()
    assert journal.exists()
    Path(journal.parent, "unsent").rename(journal.parent / "sent")
    cache.make_room()
    assert not journal.exists()
    assert [*Run(run.pathspec).events()] == before


def test_missing_credentials_are_told(monkeypatch, tmp_path):
    """In words that say what to set, not by the address at which obstore has looked for them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("asyncflow.store.object_store.objects._CONNECT_SECONDS", 0.5)
    monkeypatch.setattr("asyncflow.store.object_store.object_store._OPENING_SECONDS", 0.3)
    with pytest.raises(StoreError, match="there are no credentials for it: set AWS_ACCESS_KEY_ID"):
        open_store("s3://asyncflow-no-such-bucket/flows", create=True)
