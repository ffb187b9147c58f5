"""Whatever happens to a writer or its requests, what it may announce is kept, in one sequence."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from asyncflow.errors import StoreError
from asyncflow.store import object_store, open_store
from tests.cluster.object_proxy import Fault
from tests.cluster.written_journal import DEAD, RECORDS, write

pytestmark = pytest.mark.cluster


EXPECTED = [b"record %d" % number for number in range(RECORDS)]


class Told:
    """What a writer has told."""

    def __init__(self, told=()) -> None:
        self.records: list[int] = []
        self.run = self.finished = ""
        self.reached: dict[str, int] = {}
        for what, value in told:
            self(what, value)

    def __call__(self, what, value) -> None:
        match what:
            case "run":
                self.run = value
            case "record":
                self.records.append(value)
            case "finished":
                self.finished = value
            case "reached":
                self.reached = value


def records_of(store, flow, run_id):
    """The records of a run's journal; none if it has not begun."""
    try:
        with store.run(flow, run_id).open_journal() as journal:
            return [record for _, record, _ in journal.read_from()]
    except FileNotFoundError:
        return []


def check(url, told, monkeypatch, folder):
    """Ask whatever must be true, whenever the writer has died."""
    here = open_store(url, create=True)  # which sends what is left
    assert here.send_rest() == []
    with monkeypatch.context() as patch:
        patch.setenv("ASYNCFLOW_CACHE", str(folder))
        there = open_store(url)
        if told.run:
            for store in (here, there):
                found = records_of(store, "F", told.run)
                assert found == EXPECTED[: len(found)]
                assert len(found) >= len(told.records)
        if told.finished:
            run = there.run("F", told.finished)
            assert run.read_file("index", most=10) == b"index"
            assert run.read_file("tags", most=100) == b"tag"
        for flow in there.flows():
            for run_id in there.runs(flow)[:1]:  # the others were looked at before
                run = there.run(flow, run_id)
                before = records_of(there, flow, run_id)
                run.end_writing()
                assert not run.is_being_written()
                assert records_of(there, flow, run_id) == before
    for flow in ("F", "Old"):
        known = [int(each) for each in here.runs(flow)]
        assert int(here.make_run(flow).run_id) > max(known, default=0)
    here.close()


@pytest.fixture
def url(bucket):
    """Where the store is."""
    return f"s3://{bucket}/flows"


# --- requests that fail ---------------------------------------------------------------------------


FAULTS = [
    ("refused", False),
    ("cut", False),
    ("cut", True),
    ("409", True),
    ("503", False),
    ("silent", False),
]


@pytest.mark.slow  # a writer for each request, in each way
@pytest.mark.parametrize(("way", "durable"), FAULTS)
def test_one_request_fails(url, s3_proxy, monkeypatch, tmp_path, way, durable):
    """Whichever it is: the writer does not notice, and everything is as it would be."""
    monkeypatch.setattr("asyncflow.store.object_store.objects._REQUEST_SECONDS", 0.5)
    fail_requests(url, s3_proxy, monkeypatch, tmp_path, [(way, durable)])


def test_each_request_fails_in_one_way(url, s3_proxy, monkeypatch, tmp_path):
    """The same for each request once; in which way goes round."""
    monkeypatch.setattr("asyncflow.store.object_store.objects._REQUEST_SECONDS", 0.5)
    fail_requests(url, s3_proxy, monkeypatch, tmp_path, FAULTS)


def fail_requests(url, s3_proxy, monkeypatch, folder, faults):
    """Have the n-th request of a writer fail, for each n there is; then read all elsewhere."""
    written: list[Told] = []
    at = 1
    while not written or s3_proxy.failed():
        way, durable = faults[at % len(faults)]
        s3_proxy.set(Fault(way, at=at))
        told = Told()
        write(url, durable=durable, tell=told)
        written.append(told)
        at += 1
    assert at > 15
    s3_proxy.set()
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(folder / "elsewhere"))
    store = open_store(url)
    for told in written:
        assert told.finished
        assert records_of(store, "F", told.run) == EXPECTED
        assert store.run("F", told.run).read_file("tags", most=100) == b"tag"


@pytest.mark.slow  # two programs look at the store after each request
@pytest.mark.parametrize("durable", [False, True], ids=["crash", "power"])
def test_the_store_is_gone_from_some_request_on(url, s3_proxy, monkeypatch, tmp_path, durable):
    """Whichever it is: when it is back, everything is there that may have been announced."""
    lose_the_store(url, s3_proxy, monkeypatch, tmp_path, durable=durable)


@pytest.mark.parametrize("durable", [False, True], ids=["crash", "power"])
def test_the_store_is_gone_from_every_fourth_request_on(
    url, s3_proxy, monkeypatch, tmp_path, durable
):
    """The same, for some of them."""
    lose_the_store(url, s3_proxy, monkeypatch, tmp_path, durable=durable, step=4)


def lose_the_store(url, s3_proxy, monkeypatch, folder, *, durable, step=1):
    """Refuse all requests of a writer from the n-th on, for each n, or some."""
    monkeypatch.setattr("asyncflow.store.object_store.objects.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("asyncflow.store.object_store.object_store._OPENING_SECONDS", 0.2)
    at, failed = 1 - step + durable, True
    while failed:
        at += step
        s3_proxy.set(Fault("503", at=at, times=10**6))
        told = Told()
        with suppress(StoreError, OSError):
            write(url, durable=durable, tell=told)
        failed = s3_proxy.failed() > 0
        s3_proxy.set()
        check(url, told, monkeypatch, folder / f"elsewhere{at}")
    assert at > 15


# --- writers that die -----------------------------------------------------------------------------


def points() -> frozenset[str]:
    """The names of the commit points on the way of a journal, read from the source."""
    found = set()
    for module in ("objects", "piece_file", "sent_journal", "shipper", "claim", "unsent"):
        path = Path(str(object_store.__file__)).with_name(f"{module}.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name("reached"), args=[ast.Constant(str(name))]):
                    found.add(name)
    return frozenset(found)


class Writers:
    """A process that forks writers, each of which dies at a commit point."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.written_journal", url],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def write(self, point: str, hit: int) -> tuple[int, Told]:
        """The exit status of a writer that dies there, and what it has told."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(point, hit, file=self._process.stdin, flush=True)
        status, told = json.loads(self._process.stdout.readline())
        return status, Told(told)


PASSED_ELSEWHERE = {
    "unsent.drop": "test_a_run_that_others_have_ended_keeps_their_end",
}
"""Points that no writer passes, with the test that does."""


@pytest.mark.parametrize(
    "hits",
    [
        pytest.param({1, 2, -1}, id="all", marks=pytest.mark.slow),  # hundred writers die
        pytest.param({1}, id="first"),
    ],
)
def test_a_writer_dies_at_each_commit_point(url, monkeypatch, tmp_path, hits):
    """The first, the second and the last time: nothing that it may have announced is lost."""
    with Writers(url) as writers:
        status, told = writers.write("none", 1)
        assert status == 0
        reached = told.reached
        assert points() - PASSED_ELSEWHERE.keys() <= reached.keys()
        for point in sorted(points() & reached.keys()):
            for hit in sorted({hit if hit > 0 else reached[point] for hit in hits}):
                status, told = writers.write(point, hit)
                assert status in {DEAD, 0}, (point, hit)
                check(url, told, monkeypatch, tmp_path / f"{point}-{hit}")
