"""What the page's server takes: a run of 100,000 tasks, a store of 10,000 runs, and live events.

The server is `asyncflow ui` in a process of its own, asked over HTTP. Beside each time stands the
CPU time that the server used for it, which does not depend on what else the machine does. What the
first look costs is that of a server that has just started.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import count
from operator import truediv
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.store import open_store
from asyncflow.store.run_times import times_file
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 100_000
RUNS = 10_000
SILENCE_SECONDS = 60.0
WATCHERS = 50
WATCHED_TASKS = 10_000
WATCH_ROUNDS = 5
RATED_TASKS = 50_000
LARGE = "Wide/1800000000000000"
LIMITS = {
    "first screen": 300,
    "timeline, the first time": 1500,
    "timeline, again": 150,
    "list of runs": 500,
}
"""In milliseconds."""
GRAPH = Graph(
    "Wide",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)

ENGINE = """
import asyncio, sys, time
from asyncflow import Engine
from benchmarks.flows import NoOps
async def main():
    async with Engine(store=sys.argv[1], workers=1) as engine:
        await engine.run(NoOps, width=500)
        began = time.process_time()
        handle = await engine.start(NoOps, width=int(sys.argv[2]))
        print("begun", flush=True)
        await handle
        print(time.process_time() - began, flush=True)
asyncio.run(main())
"""

STEADY = """
import sys, time
from asyncflow import FlowSpec, step
class Steady(FlowSpec):
    @step
    def start(self):
        for number in range(100):
            print("tick", flush=True)
            time.sleep(0.05)
        time.sleep(%(silence)s)
        for number in range(100):
            print("tick after the silence", flush=True)
            time.sleep(0.05)
        self.next(self.end)
    @step
    def end(self):
        pass
if __name__ == "__main__":
    Steady()
"""


def write_run(store: Path, run_id: str, width: int) -> None:
    """A foreach that has succeeded, each task in a second of its own, and some with output."""
    run = RunWriter(store, "Wide", run_id, GRAPH, parameters={"width": width})
    run.succeed(run.start("start"), fanout=width)
    for index in range(width):
        run.run("work", (index,), score=index)
    run.run("join")
    run.run("end")
    run.finish()


@contextmanager
def serving(store: Path) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A server of the page on a store, and a client that may ask it."""
    command = [sys.executable, "-m", "asyncflow", "ui", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101 - it is a pipe
        address = server.stdout.readline().split()[-1]
        base, _, token = address.partition("?token=")
        try:
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
                yield client, psutil.Process(server.pid)
        finally:
            server.terminate()


class Asking:
    """Asks, and keeps what was measured."""

    def __init__(self, client: httpx.Client, server: psutil.Process) -> None:
        self._client, self._server = client, server
        self.largest = (0, "")

    def ask(self, what: str, address: str, **parameters: Any) -> Any:
        """The answer; prints how long it took."""
        cpu, began = self._cpu(), time.perf_counter()
        answer = self._client.get(address, params=parameters)
        wall, cpu = time.perf_counter() - began, self._cpu() - cpu
        answer.raise_for_status()
        self.largest = max(self.largest, (len(answer.content), what))
        limit = f", limit {LIMITS[what]}" if what in LIMITS else ""
        print(
            f"  {what:34s} {1e3 * wall:6.0f} ms{limit}; CPU {1e3 * cpu:5.0f} ms, "
            f"{len(answer.content) / 1000:6.1f} KB"
        )
        return answer.json()

    def _cpu(self) -> float:
        times = self._server.cpu_times()
        return float(times.user + times.system)


def keep_times(store: Path) -> None:
    """Write the file of times that an engine writes."""
    record = OpenedRuns(str(store)).record(*LARGE.split("/"))
    files = times_file(record.tasks.attempts(), record.stored.journal_size())
    record.stored.put_files(files, lambda: None)


def look_at_large_run(store: Path, how: str) -> None:
    """Every view of a run of 100,000 tasks."""
    print(f"a run of {TASKS:,} tasks {how}, from a server that has just started")
    run = f"api/runs/{LARGE}"
    with serving(store) as (client, server):
        asking = Asking(client, server)
        ask = asking.ask
        client.get("api/info")
        ask("first screen", run)
        ask("first screen, again", run)
        ask("timeline, the first time", f"{run}/timeline", px=1600)
        ask("timeline, again", f"{run}/timeline", px=1600)
        ask("timeline, a part", f"{run}/timeline", **{"from": 10_000_000, "to": 90_000_000})
        ask("timeline, idle time cut out", f"{run}/timeline", idle="cut", px=2000)
        ask("tasks, the first 200", f"{run}/tasks")
        ask("tasks, the longest", f"{run}/tasks", order="seconds")
        ask("tasks, one found by its index", f"{run}/tasks", find="77777")
        ask("a task", f"{run}/tasks/work/50000")
        ask("the join's task", f"{run}/tasks/join/{TASKS + 2}")
        ask("log, its end", f"{run}/log", tail=1)
        ask("log, a search without a hit", f"{run}/log", find="nowhere")
        ask("events from the middle", f"{run}/events", after=TASKS)
        size, what = asking.largest
        print(f"  the largest answer has {size / 1000:.0f} KB, limit 200: {what}")
        print(f"  memory of the server: {server.memory_info().rss / 1e6:.0f} MB, limit 150")


def look_at_many_runs(store: Path) -> None:
    """The list of a store of 10,000 runs."""
    print(f"a store of {RUNS:,} runs, from a server that has just started")
    with serving(store) as (client, server):
        asking = Asking(client, server)
        client.get("api/info")
        asking.ask("list of runs", "api/runs")
        asking.ask("list of runs, again", "api/runs")
        asking.ask("those that failed, among all", "api/runs", status="failed")
        asking.ask("those that failed, again", "api/runs", status="failed")
        asking.ask("durations of 50 runs", "api/flows/Wide/durations")
        print(f"  memory of the server: {server.memory_info().rss / 1e6:.0f} MB, limit 150")


# --- live ---------------------------------------------------------------------------------------


def watch_live(folder: Path, silence: float) -> None:
    """From an event's time to its message, of a run of another process."""
    print(f"live events of another process, with a silence of {silence:g} s between")
    flow, store = folder / "steady.py", folder / "live"
    flow.write_text(STEADY % {"silence": silence})
    command = [sys.executable, str(flow), "run", "--store", str(store), "--quiet"]
    with subprocess.Popen(command) as engine:
        while not (store / "flows" / "Steady").is_dir():
            time.sleep(0.05)
        time.sleep(0.5)
        with serving(store) as (client, server):
            late = list(delays(client))
            used = server.cpu_times()
        engine.wait()
    half = len(late) // 2
    for what, part in (("before the silence", late[:half]), ("after it", late[half:])):
        ranks = statistics.quantiles(part, n=100)
        print(
            f"  {what:20s} p50 {ranks[49]:5.1f} ms, p95 {ranks[94]:5.1f} ms, limit 100; "
            f"p99 {ranks[98]:5.1f} ms, limit 200; {len(part)} events"
        )
    print(f"  CPU of the server in all: {used.user + used.system:.1f} s")


def delays(client: httpx.Client) -> Iterator[float]:
    """For each line that the run prints: how late it came, in milliseconds."""
    seen, began = count(1), time.time()
    with client.stream("GET", "api/watch", params={"run": "Steady/latest"}, timeout=120) as stream:
        for line in stream.iter_lines():
            now = time.time()
            if line.startswith("event: end"):
                return
            if not line.startswith("data: "):
                continue
            for event in json.loads(line[6:]).get("events", ()):
                assert event["seq"] == next(seen), "each comes once"  # noqa: S101 - a wrong answer is worth nothing
                at = datetime.fromisoformat(event["time"]).timestamp()
                if event["type"] == "TaskLogged" and at > began:
                    yield 1e3 * (now - at)


def watch_costs(folder: Path) -> None:
    """The CPU time that an engine takes for a task, with and without open pages."""
    print(f"a run of {WATCHED_TASKS:,} tasks, watched by {WATCHERS} pages")
    counts: dict[str, str] = {"steps": "1"}
    events: dict[str, str] = {}
    measured: dict[str, list[tuple[float, float]]] = {"alone": [], "counts": [], "events": []}
    for turn in range(WATCH_ROUNDS):
        for how, watchers, wish in (
            ("alone", 0, counts),
            ("counts", WATCHERS, counts),
            ("events", WATCHERS, events),
        ):
            measured[how].append(engine_cpu(folder / f"{how}{turn}", watchers, wish))
    alone = [mine for mine, _ in measured["alone"]]
    print(f"  {statistics.median(alone):.0f} µs of the engine for each task alone")
    for how, what in (("counts", "that show counts"), ("events", "that show all events")):
        watched = [mine for mine, _ in measured[how]]
        served = [other for _, other in measured[how]]
        ratio = statistics.median(map(truediv, alone, watched))
        print(
            f"  {statistics.median(watched):.0f} beside pages {what}: {ratio:.2f}, at least 0.95; "
            f"{statistics.median(served):.0f} µs of the server"
        )


def watch_rates(folder: Path) -> None:
    """The rate of a run by the clock, without a page and with some, in alternating rounds."""
    print(f"the rate of a run of {RATED_TASKS:,} tasks by the clock, beside pages that show counts")
    rates: dict[int, list[float]] = {watchers: [] for watchers in (0, 1, WATCHERS)}
    for turn in range(WATCH_ROUNDS):
        # each of them is the first of a round as often as another one
        for watchers in (*[*rates][turn % 3 :], *[*rates][: turn % 3]):
            seconds = run_beside(folder / f"rate{watchers}-{turn}", watchers, {"steps": "1"})
            rates[watchers].append(RATED_TASKS / seconds)
    for watchers, found in rates.items():
        ratios = sorted(map(truediv, found, rates[0]))
        print(
            f"  {watchers:2d} pages: {statistics.median(found):6,.0f} tasks a second, "
            f"{statistics.median(ratios):.2f} of the rate without"
            + (f" ({ratios[0]:.2f} to {ratios[-1]:.2f}), at least 0.95" if watchers else "")
        )


def run_beside(store: Path, watchers: int, wish: dict[str, str]) -> float:
    """How many seconds a run takes beside so many pages; there is no server if there are none."""
    open_store(store, create=True)
    with ExitStack() as opened:
        command = [sys.executable, "-c", ENGINE, str(store), str(RATED_TASKS)]
        client = opened.enter_context(serving(store))[0] if watchers else None
        if client is not None:
            client.get("api/info")
        engine = opened.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        )
        assert engine.stdout is not None  # noqa: S101 - it is a pipe
        engine.stdout.readline()  # the run has begun
        began = time.monotonic()
        if client is not None:
            pages = Thread(target=drain, args=(client, watchers, wish))
            pages.start()
            opened.callback(pages.join)
        engine.stdout.readline()
        return time.monotonic() - began


def engine_cpu(store: Path, watchers: int, wish: dict[str, str]) -> tuple[float, float]:
    """Microseconds of the engine's and of the server's CPU for each task of a run."""
    open_store(store, create=True)
    with serving(store) as (client, server):
        client.get("api/info")
        command = [sys.executable, "-c", ENGINE, str(store), str(WATCHED_TASKS)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        ) as engine:
            assert engine.stdout is not None  # noqa: S101 - it is a pipe
            engine.stdout.readline()  # the run has begun
            before = server.cpu_times()
            pages = Thread(target=drain, args=(client, watchers, wish))
            pages.start()
            used = float(engine.stdout.readline())
            pages.join()
        after = server.cpu_times()
    served = after.user + after.system - before.user - before.system
    return 1e6 * used / WATCHED_TASKS, 1e6 * served / WATCHED_TASKS


def drain(client: httpx.Client, watchers: int, wish: dict[str, str]) -> None:
    """Take all that so many pages are told of the latest run, as cheaply as that can be done."""
    parameters = {"run": "NoOps/latest", **wish}
    request = client.build_request("GET", "api/watch", params=parameters)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    asked = "\r\n".join([f"GET {request.url.raw_path.decode()} HTTP/1.1", *lines, "", ""]).encode()
    with selectors.DefaultSelector() as selector, ExitStack() as opened:
        for _ in range(watchers):
            page = socket.create_connection((request.url.host, request.url.port))
            opened.enter_context(page)
            page.sendall(asked)
            selector.register(page, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                told = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]  # it is a socket
                if not told or b"event: end" in told:
                    selector.unregister(key.fileobj)


def main() -> None:
    """Build the stores, ask, and print."""
    with tempfile.TemporaryDirectory() as folder:
        large, many = Path(folder, "large"), Path(folder, "many")
        write_run(large, LARGE.partition("/")[2], TASKS)
        look_at_large_run(large, "of an earlier version, without a file of times")
        keep_times(large)
        look_at_large_run(large, "with a file of times")
        for number in range(RUNS):
            write_run(many, str(1_700_000_000_000_000 + number), 2)
        look_at_many_runs(many)
        watch_live(Path(folder), SILENCE_SECONDS)
        watch_costs(Path(folder))
        watch_rates(Path(folder))


if __name__ == "__main__":
    main()
