"""What faults of an object store, and the death of an engine, do to the values of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import Engine, Flow
from asyncflow.errors import RunFailedError
from asyncflow.events import TaskCloned
from tests.cluster.object_proxy import Fault
from tests.cluster.wide_flow import SIZE, Wide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.object_proxy import ObjectProxy

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

ROOT = Path(__file__).parents[2]
WAYS = ("cut", "503", "409", "refused", "half", "500")
READ = """
import json, sys
from asyncflow import Run
told = []
for name in sys.argv[2:]:
    run = Run(name)
    sizes = {len(task.data.data) for task in run["more"]}
    told.append([len(run.data.right), all(run.data.right), *sizes, run["start"].task.data.width])
print(json.dumps(told))
"""


@pytest.fixture
def url(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where this test's store will be; this machine has nothing of it."""
    location = f"s3://{bucket}/flows"
    monkeypatch.setenv("ASYNCFLOW_STORE", location)
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "cache"))
    return location


def read_elsewhere(cache: Path, url: str, pathspecs: Sequence[str]) -> None:
    """See that a machine with an empty cache reads all values of these runs, and right ones."""
    told = subprocess.run(
        [sys.executable, "-c", READ, url, *pathspecs],
        env={**os.environ, "ASYNCFLOW_CACHE": str(cache)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert json.loads(told) == [[Wide.width, True, SIZE + 1, Wide.width]] * len(pathspecs)


async def test_any_request_may_fail(url: str, s3_proxy: ObjectProxy, tmp_path: Path) -> None:
    """Whichever it is and however it fails: the run succeeds, and all values are right."""
    pathspecs = []
    async with Engine(store=url, workers=2) as engine:
        for number in range(1, 100):
            s3_proxy.set(Fault(WAYS[number % len(WAYS)], at=number))
            run = await engine.run(Wide)
            pathspecs.append(run.pathspec)
            if not s3_proxy.failed():
                break
    assert len(WAYS) < number < 99  # each way, and not for ever: a run asks some ten times
    s3_proxy.set()
    read_elsewhere(tmp_path / "elsewhere", url, pathspecs)


async def test_many_requests_may_fail(url: str, s3_proxy: ObjectProxy, tmp_path: Path) -> None:
    """An outage of some seconds delays a run, and costs no attempt."""
    async with Engine(store=url, workers=2) as engine:
        await engine.run(Wide)
        s3_proxy.set(Fault("503", at=4, times=30))
        run = await engine.run(Wide)
    assert {task.attempt for step in run for task in step} == {0}
    assert s3_proxy.failed() == 30
    read_elsewhere(tmp_path / "elsewhere", url, [run.pathspec])


async def test_values_that_cannot_be_stored_fail_their_task(
    url: str, s3_proxy: ObjectProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody hears of a success; when the store answers again, a resume goes on from there."""
    async with Engine(store=url, workers=2) as engine:
        uploader: Any = engine._store.uploader()
        monkeypatch.setattr(uploader, "_objects", uploader._objects.with_patience(1.0))
        s3_proxy.set(Fault("503", at=2, times=10**6, kinds=("put",), within=".seg/"))
        with pytest.raises(RunFailedError, match="StoreError") as caught:
            await engine.run(Wide)
        run = caught.value.run
        s3_proxy.set()
        resumed = await engine.resume(Wide, origin=run)
    assert resumed.data.right == [True] * Wide.width
    read_elsewhere(tmp_path / "elsewhere", url, [resumed.pathspec])


@pytest.mark.parametrize(
    ("point", "hit"),
    [("pack.put", 1), ("pack.put", 2), ("pack.stored", 2), ("blob.put", 3), ("blob.stored", 3)],
)
async def test_an_engine_dies_while_it_uploads(
    url: str, tmp_path: Path, point: str, hit: int
) -> None:
    """What was announced is there, and is not run again; a resume comes to the right end."""
    program = [sys.executable, "-m", "tests.cluster.wide_flow", url]
    died = subprocess.run(
        [*program, point, str(hit)], cwd=ROOT, stdout=subprocess.PIPE, check=False
    )
    assert died.returncode == -9
    announced = died.stdout.decode().splitlines()
    (origin,) = Flow("Wide")
    async with Engine(store=url, workers=2) as engine:
        resumed = await engine.resume(Wide, origin=origin)
    taken = [event for event in resumed.events() if isinstance(event, TaskCloned)]
    assert len(taken) >= len(announced)
    assert resumed.data.right == [True] * Wide.width
    read_elsewhere(tmp_path / "elsewhere", url, [resumed.pathspec])
