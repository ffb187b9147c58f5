"""Stores that a page is asked about: runs that ended in every way, and hostile ones."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.page.mounting import page
from asyncflow.store.files import read_at
from asyncflow.values import Status
from tests.support.written_runs import RunWriter

GRAPH = Graph(
    "Made",
    [
        Node("start", ("work",), foreach="items", doc="Fan out."),
        Node("work", ("join",), options={"retry": {"times": 1}}),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)
RUNS = {
    "succeeded": "1795472683000001",
    "failed": "1795472683000002",
    "cancelled": "1795472683000003",
    "interrupted": "1795472683000004",
    "damaged": "1795472683000005",
    "newer": "1795472683000006",
    "hostile": "1795472683000007",
}
MARKUP = "<script>alert(1)</script>\x1b[31m\u202e\0"


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def begin(store, name, **named):
    """A run that has fanned out to four tasks."""
    run = RunWriter(store, "Made", RUNS[name], GRAPH, parameters={"n": 4}, **named)
    task = run.start("start")
    run.log(task, b"hello\n")
    run.succeed(task, {"rows": [1, 2, 3]}, fanout=4)
    return run


def every_kind(store, touched):
    """A store with a run of every kind; nothing may ever make the file `touched`."""
    run = begin(store, "succeeded", tags=("nightly",))
    for index in range(4):
        task = run.start("work", (index,))
        run.log(task, b"line %d\nNEEDLE\n" % index if index == 2 else b"line %d\n" % index)
        run.succeed(task, {"score": index})
    run.run("join", best=3)
    run.run("end", best=3)
    run.finish()

    run = begin(store, "failed")
    run.run("work", (0,), score=0)
    task = run.start("work", (1,))
    run.fail(task, "first", will_retry=True)
    run.start("work", task=task)
    run.fail(task, f"for good {MARKUP}")
    run.finish(
        Status.FAILED,
        step="work",
        task_id=str(task),
        attempt=1,
        exception_type="ValueError",
        message=f"for good {MARKUP}",
        traceback="Traceback …",
    )

    begin(store, "cancelled").finish(Status.CANCELLED, reason=f"by somebody {MARKUP}")

    run = begin(store, "interrupted")
    run.start("work", (0,))
    run.close()

    run = begin(store, "damaged")
    for index in range(4):
        run.run("work", (index,), score=index)
    run.finish()
    damage(run.run_dir / "journal")

    run = begin(store, "newer")
    run.finish()
    (run.run_dir / "summary").unlink()
    journal = run.run_dir / "journal"
    journal.write_bytes(journal.read_bytes().replace(b"JOURNAL 2", b"JOURNAL 3", 1))

    run = begin(store, "hostile", tags=(MARKUP.replace("\0", ""),))
    task = run.start("work", (0,))
    run.log(task, MARKUP.encode() + b"\n")
    run.succeed(task, {"bomb": Touches(touched), MARKUP: MARKUP, "deep": nested(200)})
    run.finish(Status.CANCELLED, reason=MARKUP)
    return store


def nested(depth):
    """A list in a list in a list."""
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def damage(file):
    """Change some bytes of a file, far behind its beginning."""
    size = file.stat().st_size
    before = read_at(str(file), size * 4 // 5, 8)
    with file.open("r+b") as opened:
        opened.seek(size * 4 // 5)
        opened.write(bytes(byte ^ 0xFF for byte in before))


@contextmanager
def served(app, **named):
    """An application on a port of this machine, as long as the block lasts; its address."""
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", timeout_graceful_shutdown=1, **named
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@contextmanager
def asking(store, **named):
    """A client of a page on a store, as a browser on this machine."""
    with (
        served(page(store, **named)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def acting(client):
    """The headers of an action."""
    return {"X-Asyncflow-Token": client.get("/api/info").json()["action_token"]}


def addresses(kind):
    """Every address that tells something of a run, with its parameters."""
    run = f"/api/runs/Made/{RUNS[kind]}"
    other = f"Made/{RUNS['succeeded']}"
    return [
        run,
        *[f"{run}/{each}" for each in ("timeline", "tasks", "log", "events", "code")],
        f"{run}/timeline?idle=cut&attempts=last&from=0&to=9000",
        *[f"{run}/tasks?order={each}" for each in ("id", "seconds")],
        *[f"{run}/tasks/{each}" for each in ("start/1", "work/2", "join/6", "end/7")],
        *[f"{run}/artifact/{each}" for each in ("start/1/rows", "work/2/bomb", "work/2/score")],
        f"{run}/artifact/work/2/bomb?raw=1",
        f"{run}/log?tail=1",
        f"{run}/log?find=needle",
        f"{run}/log?task=2",
        f"/api/diff?a=Made/{RUNS[kind]}&b={other}",
        f"/api/plan?run=Made/{RUNS[kind]}",
    ]


def as_pickle(*opcodes):
    """A pickle of these opcodes."""
    return pickle.PROTO + b"\x05" + b"".join(opcodes) + pickle.STOP
