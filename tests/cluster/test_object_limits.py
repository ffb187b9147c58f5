"""Named limits with an object store: all engines share them, on whatever machines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, limit, step
from asyncflow._support import commit_points
from asyncflow.cli.command_table import invoke
from asyncflow.errors import LimitError, RunFailedError
from asyncflow.store import open_store
from asyncflow.store.limit_files import Bounds
from asyncflow.store.maintenance.any_store import collect_in, verify_store
from asyncflow.store.object_store import shared_limit
from asyncflow.store.object_store.limit_share import Timing
from asyncflow.store.object_store.limit_state import (
    MOST_BYTES,
    Entry,
    LimitState,
    object_of,
    pack,
    unpack,
)
from asyncflow.store.object_store.objects import Objects
from asyncflow.store.object_store.shared_limit import ObjectLimits
from tests.cluster.noting_flow import Noting, RatedNoting, most_noted, noted
from tests.cluster.object_proxy import Fault
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

QUICK = {"renew": 0.5, "patience": 3.0, "lease": 5.0, "stop": 0.0, "look": 0.1, "turn": 0.2}
"""For tests that wait until an engine is taken for dead."""
OBJECT = "limits/api/shared"


class ThreeLimits(FlowSpec):
    """A task under three limits."""

    @limit("a")
    @limit("b")
    @limit("c")
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def url(bucket):
    """Where this test's store is."""
    address = f"s3://{bucket}/flows"
    open_store(address, create=True).close()
    return address


@pytest.fixture
def notes(tmp_path):
    """The file in which tasks note when they begin and end."""
    return tmp_path / "notes"


@pytest.fixture
def quick(monkeypatch):
    """Engines of this process wait less."""
    monkeypatch.setattr(shared_limit, "TIMING", Timing(**QUICK))


def state_of(url, name="api"):
    """What the object of the limit says; nothing if there is none."""
    try:
        return unpack(Objects.open(url).get(object_of(name)), name)
    except FileNotFoundError:
        return LimitState()


def places_of(url):
    """How many places each engine has."""
    return [len(entry.places) for entry in state_of(url).engines.values()]


@contextmanager
def machine(url, tmp_path, number, timing=(), dies=("", 0), **options):
    """A program that runs `Noting` once it gets a line, on a machine with an empty cache.

    `dies` names a commit point at which it is killed, and the how-manieth time it is there.
    """
    command = [sys.executable, "-m", "tests.cluster.noting_flow", url]
    environment = {**os.environ, "ASYNCFLOW_CACHE": str(tmp_path / f"machine-{number}")}
    with subprocess.Popen(
        [*command, json.dumps(options), json.dumps(dict(timing)), *map(str, dies)],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()


def go(*machines):
    """Let machines begin their runs."""
    for each in machines:
        each.stdin.write("go\n")
        each.stdin.flush()


@pytest.mark.parametrize("most", [2, 1])
def test_two_machines_never_run_more_than_the_limit_says(url, tmp_path, notes, most):
    """Nor do they leave it unused: each has its tasks done."""
    open_store(url).named_limits.set_bounds("api", Bounds(most))
    options = {"file": str(notes), "width": 8, "seconds": 0.2}
    with (
        machine(url, tmp_path, 1, **options) as one,
        machine(url, tmp_path, 2, **options) as other,
    ):
        go(one, other)
        assert [each.stdout.readline() for each in (one, other)] == ["done\n"] * 2
        assert [each.wait() for each in (one, other)] == [0, 0]
    assert len(noted(notes, "ended")) == 16
    assert most_noted(notes) == most
    assert not state_of(url).engines


async def test_what_a_killed_machine_held_goes_to_others_after_a_while(url, tmp_path, notes, quick):
    """Its entry is taken out once nobody has renewed it for the length of its lease."""
    elsewhere = tmp_path / "elsewhere"
    with machine(url, tmp_path, 1, QUICK, file=str(elsewhere), width=2, seconds=600.0) as other:
        go(other)
        await until(lambda: len(noted(elsewhere, "began")) == 2)
        async with Engine(store=url, workers=1) as engine:
            handle = await engine.start(Noting, file=str(notes), width=2)
            await until(lambda: len(state_of(url).engines) == 2)
            assert not noted(notes)
            other.kill()
            await handle
    assert most_noted(notes) == 2
    assert not state_of(url).engines


@pytest.mark.parametrize("point", ["limit.replace", "limit.replaced"])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_machine_may_die_at_any_change_of_a_limit(
    url, tmp_path, notes, quick, point, number
):
    """Others can use the limit in the end, and it is whole at any time."""
    other = tmp_path / "other"
    options = {"file": str(other), "width": 4, "seconds": 1.0}
    with machine(url, tmp_path, 1, QUICK, (point, number), **options) as dying:
        go(dying)
        assert await asyncio.to_thread(dying.wait) == -signal.SIGKILL
    assert len(state_of(url).engines) <= 1
    assert not verify_store(open_store(url)).damage
    async with Engine(store=url, workers=1) as engine:
        await engine.run(Noting, file=str(notes), width=4)
    assert most_noted(notes) == 2
    assert not state_of(url).engines


async def test_an_engine_that_closes_leaves_at_once(url, notes):
    """Others need not wait for the end of its lease, which is 90 s."""
    async with Engine(store=url, workers=1) as engine:
        async with Engine(store=url, workers=1) as first:
            await first.run(Noting, file=str(notes), width=2)
            (entry,) = state_of(url).engines.values()
            assert (entry.lease, len(entry.places)) == (90.0, 2)
        assert not state_of(url).engines
        await engine.run(Noting, file=str(notes), width=2)
    assert not state_of(url).engines


async def test_a_cancelled_run_gives_its_places_to_another_engine(url, notes, quick):
    """They are idle then, and the other one wants them."""
    async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
        first = await one.start(Noting, file=str(notes), width=4, seconds=600.0)
        await until(lambda: len(noted(notes, "began")) == 2)
        second = await other.start(Noting, file=str(notes), width=2)
        await until(lambda: len(state_of(url).engines) == 2)
        first.cancel()
        await second


async def test_engines_that_all_have_work_come_to_equal_shares(url, notes, quick):
    """The one that was first gives up what is more than its share as its tasks end."""
    open_store(url).named_limits.set_bounds("api", Bounds(5))
    async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
        first = await one.start(Noting, file=str(notes), width=400, seconds=0.2)
        await until(lambda: places_of(url) == [5])
        second = await other.start(Noting, file=str(notes), width=400, seconds=0.2)
        await until(lambda: sorted(places_of(url)) == [2, 3])
        for handle in (first, second):
            handle.cancel()


async def test_a_lone_engine_asks_once_for_any_number_of_tasks(url, s3_proxy, notes, monkeypatch):
    """One request gives it all places, and another one takes its entry out."""
    monkeypatch.setattr(shared_limit, "TIMING", Timing(renew=1000.0, look=1000.0))
    async with Engine(store=url, workers=1) as engine:
        s3_proxy.set()
        run = await engine.run(Noting, file=str(notes), width=150, seconds=0.0)
    assert run.data.count == 150
    counted = s3_proxy.count("limits/")
    # The run looks at the limit when it starts.
    assert counted == {"get": 1, "put": 2}


@pytest.mark.parametrize("way", ["cut", "half", "refused", "409", "503"])
async def test_a_limit_holds_though_requests_fail_or_answers_are_lost(
    url, s3_proxy, notes, quick, way
):
    """Every third change of the limit's object: also one that was carried out."""
    faults = [Fault(way, at=at, kinds=("put",), within="limits/") for at in range(1, 90, 3)]
    s3_proxy.set(*faults)
    async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
        runs = [each.run(Noting, file=str(notes), width=10) for each in (one, other)]
        assert [run.data.count for run in await asyncio.gather(*runs)] == [10, 10]
    assert s3_proxy.failed()
    assert most_noted(notes) <= 2


async def test_an_engine_that_cannot_renew_its_places_stops_its_tasks(url, s3_proxy, notes, quick):
    """As when its journal cannot be sent: the run fails, says why, and can be resumed."""
    async with Engine(store=url, workers=1) as engine:
        handle = await engine.start(Noting, file=str(notes), width=2, seconds=600.0)
        await until(lambda: len(noted(notes, "began")) == 2)
        s3_proxy.set(Fault("refused", times=10_000, within="limits/"))
        with pytest.raises(RunFailedError, match="could not renew its places of the limit 'api'"):
            await handle
        assert engine.statistics().tasks_running == 0
        s3_proxy.set()
        await engine.run(Noting, file=str(notes), width=2, seconds=0.0)


async def test_a_limit_that_cannot_be_joined_fails_the_run_that_waits(url, s3_proxy, notes, quick):
    """After the time for which requests are repeated, and not before."""
    async with Engine(store=url, workers=1) as engine:
        s3_proxy.set(Fault("refused", times=10_000, kinds=("put",), within="limits/"))
        with pytest.raises(RunFailedError, match="the limit 'api' cannot be used"):
            await engine.run(Noting, file=str(notes), width=2)
        s3_proxy.set()
    assert not noted(notes)


async def test_a_rate_holds_over_engines_and_when_one_follows_another(url, notes):
    """In no time begin more than the rate allows in it, and one for each engine."""
    for _ in range(2):
        async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
            runs = [each.run(RatedNoting, file=str(notes), width=20) for each in (one, other)]
            assert [run.data.count for run in await asyncio.gather(*runs)] == [20, 20]
    began = sorted(at for _, _, _, at in noted(notes, "began"))
    assert len(began) == 80
    assert began[-1] - began[0] > (80 - 4) / 20 * 0.8  # a task may begin a moment after its start


async def test_the_number_can_be_changed_while_engines_run(url, notes, quick, capsys):
    """Held back by 0, listed as waiting, and let go by another number."""
    assert invoke(["limit", "set", "api", "0", "--store", url]) == 0
    async with Engine(store=url, workers=1) as engine:
        handle = await engine.start(Noting, file=str(notes), width=6, seconds=0.5)
        await until(lambda: state_of(url).engines)
        capsys.readouterr()
        assert invoke(["limit", "list", "--json", "--store", url]) == 0
        (listed,) = json.loads(capsys.readouterr().out)
        assert listed == {
            "name": "api",
            "at_once": 0,
            "per_second": None,
            "in_use": 0,
            "engines_waiting": 1,
        }
        assert invoke(["limit", "set", "api", "4", "--store", url]) == 0
        await handle
    assert most_noted(notes) == 4
    assert invoke(["limit", "unset", "api", "--store", url]) == 0
    assert state_of(url).bounds == Bounds()
    assert invoke(["limit", "unset", "gpu", "--store", url]) == 2
    assert "has no limit 'gpu'; it has api" in capsys.readouterr().err


async def test_a_rate_that_was_too_slow_holds_nobody_up_once_it_is_changed(url, notes):
    """Neither the engine that has counted a start by it, nor one that comes later."""
    limits = open_store(url).named_limits
    limits.set_bounds("rate", Bounds(per_second=0.001))
    async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
        first = await one.start(RatedNoting, file=str(notes), width=4)
        await until(lambda: noted(notes, "began"))
        second = await other.start(RatedNoting, file=str(notes), width=4)
        limits.set_bounds("rate", Bounds(per_second=1000.0))
        async with asyncio.timeout(60):
            await asyncio.gather(first, second)


def test_a_limit_that_cannot_be_read_now_is_not_set_anew(url, s3_proxy):
    """Else the engines that have places would lose them, and their runs."""
    objects = Objects.open(url)
    objects.put(OBJECT, pack(LimitState(engines={"a": Entry("host", 1, 90.0, frozenset({0}))})))
    s3_proxy.set(Fault("503", times=1000, kinds=("get",), within="limits/"))
    limits = ObjectLimits(objects.with_patience(0), "host", str)
    with pytest.raises(LimitError, match="cannot use the limit 'api'"):
        limits.set_bounds("api", Bounds(3))
    s3_proxy.set()
    assert places_of(url) == [1]


def test_a_limit_of_a_later_version_is_not_set_anew(url):
    """It is not damaged: the error says what to do."""
    objects, later = Objects.open(url), b'{"version": 2, "engines": ["a"]}'
    objects.put(OBJECT, later)
    with pytest.raises(LimitError, match=r"a later version .* upgrade asyncflow"):
        open_store(url).named_limits.set_bounds("api", Bounds(3))
    assert objects.get(OBJECT) == later


def test_a_limit_that_is_too_large_is_not_read(url, s3_proxy):
    """It is damaged; `limit set` mends it."""
    objects, store = Objects.open(url), open_store(url)
    objects.put(OBJECT, pack(LimitState()) + b" " * MOST_BYTES)
    with pytest.raises(LimitError, match="asyncflow limit set api N"):
        store.named_limits.look("api")
    assert objects.get_with_facts(OBJECT, most_bytes=MOST_BYTES)[0] == b""
    assert len(verify_store(store).damage) == 1
    store.named_limits.set_bounds("api", Bounds(3))
    assert state_of(url) == LimitState(Bounds(3), 1)


async def test_an_engine_that_closes_leaves_all_its_limits_at_once(url, monkeypatch):
    """One that does not answer keeps it no longer than all of them do."""
    monkeypatch.setattr(shared_limit, "TIMING", Timing(renew=1000.0, look=1000.0))
    monkeypatch.setattr(shared_limit, "_LEAVING_SECONDS", 120.0)
    together, broken = threading.Barrier(3), []

    def meet(point):
        if point == "limit.replace":
            try:
                together.wait(30)
            except threading.BrokenBarrierError as error:
                broken.append(error)

    async with Engine(store=url, workers=1) as engine:
        await engine.run(ThreeLimits)
        monkeypatch.setattr(commit_points, "watcher", meet)
    assert not broken
    assert [entry for name in "abc" for entry in state_of(url, name).engines] == []


async def test_an_error_that_nobody_expects_is_a_failed_request(url, notes, monkeypatch):
    """It does not end the thread that makes the requests, for which the run would wait for ever."""
    errors = [ZeroDivisionError()]

    def fail(point):
        if point == "limit.replace" and errors:
            raise errors.pop()

    monkeypatch.setattr(commit_points, "watcher", fail)
    async with Engine(store=url, workers=1) as engine, asyncio.timeout(60):
        await engine.run(Noting, file=str(notes), width=4)
    assert not errors
    assert not state_of(url).engines


async def test_damage_is_told_and_mended_by_setting_the_limit(url, notes):
    """By `verify`, and before a run under it begins."""
    objects, store = Objects.open(url), open_store(url)
    objects.put(OBJECT, b"{nonsense")
    (damage,) = verify_store(store).damage
    assert damage.file == OBJECT
    assert "asyncflow limit set api N" in damage.what
    async with Engine(store=url, workers=1) as engine:
        with pytest.raises(LimitError, match="asyncflow limit unset api"):
            await engine.start(Noting, file=str(notes))
        store.named_limits.set_bounds("api", Bounds(1))
        assert not verify_store(store).damage
        await engine.run(Noting, file=str(notes), width=2)
    assert most_noted(notes) == 1


def test_notes_of_earlier_versions_are_no_limits_and_are_collected(url, monkeypatch):
    """They said which machine uses a limit; the limit itself stays."""
    objects, store = Objects.open(url), open_store(url)
    objects.put("limits/api/node-7-0123456789ab", b"")
    objects.put("limits/old/node-7-0123456789ab", b"")
    store.named_limits.set_bounds("api", Bounds(3))
    objects.put("limits/no name of a limit/shared", b"")
    assert store.named_limits.names() == ["api"]
    objects.delete(["limits/no name of a limit/shared"])
    assert not verify_store(store).damage
    listed = Objects.listed

    def aged(self, folder, **options):
        return (each._replace(modified=0.0) for each in listed(self, folder, **options))

    monkeypatch.setattr(Objects, "listed", aged)
    assert collect_in(store, dry_run=False, on_wait=pytest.fail).leftovers.files == 2
    assert [each.name for each in listed(objects, "limits")] == [OBJECT]


def test_a_request_that_is_carried_out_late_changes_nothing(url):
    """No two versions have the same bytes, so the store cannot take one for another."""
    objects = Objects.open(url)
    state = LimitState(engines={"a": Entry("host", 1, 90.0)})
    first = objects.create_version(OBJECT, pack(state))
    assert first is not None
    second = objects.replace(OBJECT, pack(state), first)
    assert second not in {None, first}
    assert objects.replace(OBJECT, pack(state), first) is None
