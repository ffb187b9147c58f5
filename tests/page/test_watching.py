"""Live events: each once, in order, soon, and read once however many watch."""

from __future__ import annotations

import json
import resource
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from datetime import datetime

import anyio
import httpx
import pytest

from asyncflow.client.run_journal import RunJournal
from asyncflow.page import run_news
from asyncflow.page import watching as live
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.page.run_news import Wish
from asyncflow.page.run_rows import RunRows
from asyncflow.page.watching import Watches
from tests.support.leftovers import running_threads
from tests.support.page_stores import GRAPH, RUNS, asking, begin, every_kind
from tests.support.written_runs import RunWriter

WIDTH = 40
SECONDS = 180  # for what takes milliseconds on an idle machine
MADE = f"Made/{RUNS['interrupted']}"


def wide(store):
    """A run that goes on, as long as its writer is open, with some hundred events."""
    run = begin(store, "interrupted")
    for index in range(WIDTH):
        run.run("work", (index,), score=index)
    run.flush()
    return run


def messages(response):
    """The messages of a stream: their ids, their kind and their data."""
    number, kind = None, "message"
    for line in response.iter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield number, kind, json.loads(line[6:])
            number, kind = None, "message"


@contextmanager
def watching(client, run=MADE, **parameters):
    """The messages of a run, as long as the block lasts."""
    headers = parameters.pop("headers", {})
    with client.stream(
        "GET", "/api/watch", params={"run": run, **parameters}, headers=headers
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        yield messages(stream)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a run of every kind."""
    folder = tmp_path_factory.mktemp("watch")
    return every_kind(folder / "store", folder / "touched")


def test_a_run_that_has_ended_is_told_to_its_end(store):
    """All its events, and then that there are no more."""
    with asking(store) as client, watching(client, f"Made/{RUNS['succeeded']}") as found:
        *events, (_, kind, data) = found
    seqs = [event["seq"] for _, _, data in events for event in data["events"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert events[-1][0] == seqs[-1]
    assert (kind, data) == ("end", {"status": "succeeded"})


@pytest.mark.parametrize(
    ("kind", "status"), [("interrupted", "interrupted"), ("damaged", "unreadable")]
)
def test_a_run_without_an_end_says_why_nothing_comes(store, kind, status):
    """Its engine is gone, or its journal is damaged."""
    with asking(store) as client, watching(client, f"Made/{RUNS[kind]}") as found:
        *_, (_, _, data) = found
    assert data["status"] == status


def test_a_hundred_cut_connections_give_each_event_once(tmp_path):
    """A browser goes on with the number of the last message that it has seen whole."""
    run, seen, last = wide(tmp_path / "store"), [], 0
    with asking(tmp_path / "store") as client:
        for turn in range(100):
            run.run("work", (WIDTH + turn,))  # the run goes on meanwhile
            run.flush()
            headers = {"Last-Event-ID": str(last)} if turn % 2 else {}
            with watching(client, since=0 if turn % 2 else last, headers=headers) as found:
                last, _, data = next(found)
                seen += [event["seq"] for event in data["events"]]
    assert last > run.seq - 10
    assert seen == list(range(1, last + 1))
    run.close()


def test_who_has_seen_all_so_far_is_told_what_follows_once(tmp_path):
    """A page opens with the first screen, which has told all events; then some come."""
    run, numbers = wide(tmp_path / "store"), []
    with asking(tmp_path / "store") as client, watching(client, since=run.seq) as found:
        before = run.seq
        time.sleep(0.3)  # the server has looked, and found nothing that follows
        for _ in range(3):
            run.run("work", (WIDTH,))
            run.flush()
            numbers.append(next(found)[0])
    run.close()
    assert before < numbers[0] < numbers[1] < numbers[2]


def test_an_event_comes_within_a_tenth_of_a_second_after_a_silence(tmp_path):
    """The server looks as often after a long time without events as before."""
    run = wide(tmp_path / "store")
    late: list[float] = []
    with asking(tmp_path / "store") as client, watching(client, since=run.seq) as found:
        while not late or (min(late) >= 0.1 and len(late) < 100):  # the machine may be busy
            time.sleep(0.3)
            sent = time.monotonic()
            run.run("work", (WIDTH,))
            run.flush()
            next(found)
            late.append(time.monotonic() - sent)
    run.close()
    assert min(late) < 0.1  # one that is in time shows that it is possible


def numbers_in(data):
    """The numbers of the events in a message."""
    found = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
    return [event["seq"] for text in found for event in json.loads(text).get("events", ())]


def test_fifty_watchers_read_a_journal_once(tmp_path, monkeypatch):
    """One of them reads for all, and when it goes away, another one does."""
    reads = []
    kept = RunJournal.batches

    def counted(self, offset):
        reads.append(offset)
        return kept(self, offset)

    monkeypatch.setattr(RunJournal, "batches", counted)
    run = wide(tmp_path / "store")
    opened = OpenedRuns(str(tmp_path / "store"))

    async def watch_all():
        async def read(find):
            return await anyio.to_thread.run_sync(find)

        watch = Watches(opened, RunRows(opened), read).run(opened.record(*MADE.split("/")))
        seen: list[list[int]] = [[] for _ in range(50)]

        async def follow(number):
            async for data in watch.follow(0, Wish()):
                seen[number] += numbers_in(data)
                if len(seen[number]) == run.seq and number % 2 == 0:
                    return  # half of them go away, among them the one that reads

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(follow, number)
            await anyio.sleep(0.4)
            before = len(reads)
            run.run("work", (WIDTH,))
            run.flush()
            with anyio.move_on_after(SECONDS):
                while not all(len(each) == run.seq for each in seen[1::2]):  # noqa: ASYNC110 - many count
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        return seen, before

    seen, before = anyio.run(watch_all)
    run.close()
    assert all(each == list(range(1, run.seq + 1)) for each in seen[1::2])
    assert before < 60  # some looks of one reader in 0.4 s, and not fifty times as many


def test_counts_come_without_events(tmp_path):
    """A page that shows no events gets the counts of the steps that have changed."""
    run = wide(tmp_path / "store")
    with asking(tmp_path / "store") as client, watching(client, since=run.seq, steps=1) as found:
        run.run("work", (WIDTH,))
        run.flush()
        number, _, data = next(found)
    assert number == data["seq"] == run.seq
    assert data["events"] == []
    (work,) = data["steps"]
    assert (work["step"], work["begun"], work["succeeded"]) == ("work", WIDTH + 1, WIDTH + 1)
    run.close()


def test_counts_of_all_messages_end_as_the_overview_has_them(tmp_path):
    """Whoever missed some gets those that have changed meanwhile."""
    run = wide(tmp_path / "store")
    with asking(tmp_path / "store") as client:
        with watching(client, since=0, steps=1) as found:
            number, _, data = next(found)
        rows = {row["step"]: row for row in data["steps"]}
        run.run("work", (WIDTH,))
        run.flush()
        with watching(client, since=number, steps=1) as found:
            rows |= {row["step"]: row for row in next(found)[2]["steps"]}
        steps = client.get(f"/api/runs/{MADE}").json()["steps"]
    run.close()
    assert [{"expected": row["expected"], **rows.get(row["step"], row)} for row in steps] == steps


@pytest.mark.parametrize("wish", [{}, {"type": ["TaskSucceeded"]}])
def test_counts_of_more_steps_than_a_message_has_come_in_the_next_ones(tmp_path, monkeypatch, wish):
    """None is left out, and no event comes twice."""
    monkeypatch.setattr(run_news, "_MOST_STEPS", 1)
    run = wide(tmp_path / "store")
    with asking(tmp_path / "store") as client:
        with watching(client, since=0, steps=1, **wish) as found:
            told = [next(found), next(found)]
        steps = client.get(f"/api/runs/{MADE}").json()["steps"]
    run.close()
    rows = {row["step"]: row for _, _, data in told for row in data["steps"]}
    events = [event["seq"] for _, _, data in told for event in data["events"]]
    assert [{"expected": row["expected"], **rows.get(row["step"], row)} for row in steps] == steps
    assert told[-1][0] == run.seq
    assert len(events) == len(set(events)) == (WIDTH + 1 if wish else 0)


def test_only_events_that_are_asked_for_come(tmp_path):
    """By type, step and task; the number of a message is that of the last event passed over."""
    run = wide(tmp_path / "store")
    task = run.start("work", (WIDTH,))
    run.log(task, b"one\ntwo\n")
    run.succeed(task)
    run.flush()
    wish = {"type": ["TaskLogged", "TaskSucceeded"], "step": "work", "task": str(task)}
    with asking(tmp_path / "store") as client, watching(client, since=0, **wish) as found:
        number, _, data = next(found)
    run.close()
    assert [event["type"] for event in data["events"]] == [
        "TaskLogged",
        "TaskLogged",
        "TaskSucceeded",
    ]
    assert number == run.seq


def test_an_event_that_there_is_not_is_refused(store):
    """With the names of those that there are."""
    with asking(store) as client:
        answer = client.get("/api/watch", params={"run": MADE, "type": "Nope"})
    assert answer.status_code == 400
    assert "TaskLogged" in answer.json()["error"]["message"]


def test_much_output_comes_in_messages_that_end_within_a_record(tmp_path):
    """A record may have thousands of lines: each comes once, wherever the connection is cut."""
    run = wide(tmp_path / "store")
    task = run.start("work", (WIDTH,))
    begin = run.seq
    run.log(task, b"".join(b"line %d\n" % number for number in range(3000)))
    run.flush()
    seen: list[str] = []
    last = begin
    with asking(tmp_path / "store") as client:
        while len(seen) < 3000:
            with watching(client, since=last, type="TaskLogged") as found:
                last, _, data = next(found)
                assert len(json.dumps(data)) < 200_000
                seen += [event["line"] for event in data["events"]]
    run.close()
    assert seen == [f"line {number}" for number in range(3000)]


def test_the_list_tells_of_a_new_run_and_of_its_end(tmp_path):
    """As rows of the list, while somebody watches."""
    begin(tmp_path / "store", "succeeded").finish()
    statuses = []
    with asking(tmp_path / "store") as client, client.stream("GET", "/api/watch") as stream:
        found = messages(stream)
        _, _, first = next(found)
        assert [row["run_id"] for row in first["runs"]] == [RUNS["succeeded"]]
        run = begin(tmp_path / "store", "failed")
        run.flush()
        for _, _, data in found:
            statuses += [row["status"] for row in data["runs"]]
            if statuses[-1:] == ["running"]:
                run.finish()
            if statuses[-1:] == ["succeeded"]:
                break
    assert statuses[0] == "running"


def begin_another(store, number):
    """Another run with that id, which has ended."""
    RunWriter(store, "Made", str(number), GRAPH).finish()


def listed(store, read):
    """Those who watch the list of a store, which `read` reads."""
    opened = OpenedRuns(str(store))
    return Watches(opened, RunRows(opened), read).list()


async def next_list(stream):
    """The next message about the list."""
    with anyio.fail_after(SECONDS):
        async for data in stream:
            found = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
            if found:
                return json.loads(found[0])
    raise AssertionError(stream)


def test_what_one_has_found_who_goes_away_others_are_told(tmp_path):
    """The one who looks may leave before the look has ended."""
    store, held, release = tmp_path / "store", threading.Event(), threading.Event()
    run = begin(store, "failed")
    run.flush()
    has_ended: list[bool] = []

    async def read(find):
        def found():
            is_last = bool(has_ended)
            seen = find()
            if is_last and not held.is_set():
                held.set()
                release.wait(SECONDS)
            return seen

        return await anyio.to_thread.run_sync(found, abandon_on_cancel=True)

    async def watch_both():
        watch = listed(store, read)
        leaving, staying = watch.follow(0, None), watch.follow(0, None)
        assert (await next_list(leaving))["runs"][0]["status"] == "running"
        await next_list(staying)
        async with anyio.create_task_group() as group:
            group.start_soon(next_list, leaving)
            run.finish()
            has_ended.append(True)
            while not held.is_set():  # noqa: ASYNC110 - a thread sets it
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        release.set()
        return await next_list(staying)

    (row,) = anyio.run(watch_both)["runs"]
    assert row["status"] == "succeeded"


def test_what_changes_while_the_first_rows_are_read_follows_them(tmp_path):
    """Somebody who watches already may be told of it before these rows are sent."""
    store, release = tmp_path / "store", threading.Event()
    run = begin(store, "failed")
    run.flush()
    hold: list[bool] = []

    async def read(find):
        seen = await anyio.to_thread.run_sync(find)
        if hold:
            hold.pop()
            await anyio.to_thread.run_sync(release.wait, 20)
        return seen

    async def watch_both():
        watch = listed(store, read)
        early, late = watch.follow(0, None), watch.follow(0, None)
        await next_list(early)
        told = []

        async def come():
            told.append(await next_list(late))
            told.append(await next_list(late))

        async with anyio.create_task_group() as group:
            hold.append(True)
            group.start_soon(come)
            while hold:  # noqa: ASYNC110 - the read ends in a thread
                await anyio.sleep(0.01)
            run.finish()
            assert (await next_list(early))["runs"][0]["status"] == "succeeded"
            release.set()
        return told

    told = anyio.run(watch_both)
    assert [message["runs"][0]["status"] for message in told] == ["running", "succeeded"]


def test_who_falls_behind_further_than_changes_are_kept_is_told_all(tmp_path, monkeypatch):
    """A laptop that was asleep keeps its connection."""
    monkeypatch.setattr(live, "_KEPT_LISTS", 1)
    numbers = range(1795472683000001, 1795472683000004)
    runs = [RunWriter(tmp_path / "store", "Made", str(number), GRAPH) for number in numbers]
    for run in runs:
        run.flush()

    async def watch_both():
        watch = listed(tmp_path / "store", anyio.to_thread.run_sync)
        awake, asleep = watch.follow(0, None), watch.follow(0, None)
        await next_list(awake)
        seen = {row["run_id"]: row["status"] for row in (await next_list(asleep))["runs"]}
        for run in runs:
            run.finish()
            while not await says(awake, run.run_id, "succeeded"):
                pass
        while set(seen.values()) != {"succeeded"}:
            seen |= {row["run_id"]: row["status"] for row in (await next_list(asleep))["runs"]}
        return seen

    assert len(anyio.run(watch_both)) == len(runs)


async def says(stream, run_id, status):
    """Whether the next message about the list says that of a run."""
    rows = (await next_list(stream))["runs"]
    return (run_id, status) in {(row["run_id"], row["status"]) for row in rows}


def test_each_of_many_runs_that_are_removed_at_once_is_told(tmp_path, monkeypatch):
    """In as many messages as it takes."""
    monkeypatch.setattr(live, "_MOST_CHANGES", 2)
    store, numbers = tmp_path / "store", range(1795472683000001, 1795472683000006)
    for number in numbers:
        begin_another(store, number)

    async def watch():
        watch = listed(store, anyio.to_thread.run_sync)
        stream = watch.follow(0, None)
        await next_list(stream)
        for number in numbers[:-1]:
            shutil.rmtree(store / f"flows/Made/{number}")
        begin_another(store, numbers[-1] + 1)
        told: list[str] = []
        fresh: list[dict[str, str]] = []
        while len(told) < len(numbers) - 1 or not fresh:
            message = await next_list(stream)
            told += message["removed"]
            fresh += message["runs"]
        return told, fresh

    told, fresh = anyio.run(watch)
    assert sorted(told) == [f"Made/{number}" for number in numbers[:-1]]
    assert {row["run_id"] for row in fresh} == {str(numbers[-1] + 1)}


def test_a_run_that_could_not_be_read_for_a_moment_is_told_of_again(tmp_path, monkeypatch):
    """A disk or an object store may fail one request; here, no file can be opened."""
    run, row, is_failing = begin(tmp_path / "store", "failed"), RunRows.row, threading.Event()
    run.flush()

    def row_or_failure(self, flow, run_id):
        if not is_failing.is_set():
            return row(self, flow, run_id)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            return row(self, flow, run_id)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    monkeypatch.setattr(RunRows, "row", row_or_failure)

    async def watch():
        stream = listed(tmp_path / "store", anyio.to_thread.run_sync).follow(0, None)
        statuses = [(await next_list(stream))["runs"][0]["status"]]
        for change in (is_failing.set, is_failing.clear):
            change()
            statuses.append((await next_list(stream))["runs"][0]["status"])
        return statuses

    assert anyio.run(watch) == ["running", "unreadable", "running"]
    run.close()


def test_watching_a_flow_that_is_not_there_is_refused(store):
    """With a status, and not by a stream that breaks off."""
    with asking(store) as client:
        answer = client.get("/api/watch", params={"flow": "Nope"})
    assert answer.status_code == 404
    assert "'Nope'" in answer.json()["error"]["message"]


def test_a_run_is_cancelled_from_the_page(tmp_path):
    """A run of another process, through its mailbox; its last event says why."""
    import subprocess
    import sys

    flow = tmp_path / "sleepy.py"
    flow.write_text(
        "import time\nfrom asyncflow import FlowSpec, step\n"
        "class Sleepy(FlowSpec):\n"
        "    @step\n    def start(self):\n        print('begun', flush=True)\n"
        "        time.sleep(60)\n        self.next(self.end)\n"
        "    @step\n    def end(self): pass\n"
    )
    command = [sys.executable, "-m", "asyncflow", "run", str(flow), "--quiet"]
    with subprocess.Popen([*command, "--store", str(tmp_path / "store")]) as engine:
        while not (tmp_path / "store/flows/Sleepy").is_dir():
            time.sleep(0.02)
        with asking(tmp_path / "store") as client:
            late = []
            token = client.get("/api/info").json()["action_token"]
            with watching(client, "Sleepy/latest") as found:
                for _, kind, data in found:
                    if kind == "end":
                        break
                    for event in data["events"]:
                        at = datetime.fromisoformat(event["time"]).timestamp()
                        late.append(time.time() - at)
                        if event["type"] == "TaskLogged":
                            said = client.post(
                                "/api/runs/Sleepy/latest/cancel",
                                json={"reason": "enough"},
                                headers={"X-Asyncflow-Token": token},
                            )
                            assert said.json() == {"status": "cancelled"}
            assert data == {"status": "cancelled"}
            text = client.get("/api/runs/Sleepy/latest").json()["what_now"]["text"]
        engine.wait(SECONDS)
    assert "enough" in text


def test_a_connection_that_is_closed_leaves_no_thread(tmp_path):
    """Nothing goes on for a browser that is gone."""
    run = wide(tmp_path / "store")
    with asking(tmp_path / "store") as client:
        before = running_threads()
        for _ in range(20):
            with suppress(httpx.StreamClosed), watching(client, since=run.seq - 2) as found:
                next(found)
        assert len(running_threads() - before) <= 5  # those that read, kept for the next ones
    run.close()
