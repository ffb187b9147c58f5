"""Flows whose artifacts are in an object store: what they come to, and what a fault costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import Engine, FlowSpec, Run, step
from asyncflow.store import open_store
from asyncflow.store.object_store.node_cache import NodeCache
from asyncflow.testing import Loopback
from asyncflow.workers.local.pool import WorkerPool
from tests.cluster.wide_flow import SIZE, Wide
from tests.support.conformance import FLOWS, load_kinds, outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.support.s3_server import S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]


@pytest.fixture(scope="module")
def s3_location(
    s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Generator[str, None, None]:
    """The URL for a store, for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setenv("ASYNCFLOW_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield f"s3://{s3_server.create_bucket(f'flows-{uuid.uuid4().hex[:12]}')}/family"


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The family of flows, by the kinds of their steps."""
    return load_kinds(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
async def in_folder(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Engine, None]:
    """An engine with a store in a folder."""
    async with Engine(store=tmp_path_factory.mktemp("folder"), workers=2) as opened:
        yield opened


@pytest.fixture(scope="module", params=["pool", "loopback"])
async def in_objects(request: Any, s3_location: str) -> AsyncGenerator[Engine, None]:
    """One with a store in an object store; its workers are its own processes, or on a node."""
    executor = Loopback(workers=2) if request.param == "loopback" else WorkerPool
    store = f"{s3_location}-{request.param}"
    async with Engine(store=store, workers=2, executor=executor) as opened:
        yield opened


@pytest.fixture(scope="module")
async def expected(in_folder: Engine, modules: Any) -> dict[str, Any]:
    """What each flow comes to with a store in a folder."""
    return {name: await outcome(in_folder, getattr(modules["even"], name)) for name in FLOWS}


@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_comes_to_the_same_wherever_its_artifacts_are(
    in_objects: Engine, modules: Any, expected: dict[str, Any], name: str
) -> None:
    """Status, failure, tasks, attempts, artifacts and output are those of a store in a folder."""
    assert await outcome(in_objects, getattr(modules["even"], name)) == expected[name]


READ = """
import json, sys
from asyncflow.client import Run, Store
run = Run(sys.argv[2], store=sys.argv[1])
print(json.dumps([
    len(run.data.right), all(run.data.right), len(run["start"].task.data.large),
    [len(task.data.data) for task in run["more"]],
]))
"""


async def test_a_machine_without_any_of_it_reads_all(in_objects: Engine, tmp_path: Path) -> None:
    """A reader with an empty cache finds everything in the object store."""
    run = await in_objects.run(Wide)
    assert run.data.right == [True] * Wide.width
    told = subprocess.run(
        [sys.executable, "-c", READ, str(in_objects.settings.store), run.pathspec],
        env={**os.environ, "ASYNCFLOW_CACHE": str(tmp_path / "another")},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    assert json.loads(told) == [Wide.width, True, 300_005, [SIZE + 1] * Wide.width]


class Chain(FlowSpec):
    """Steps that hand a value on that is stored."""

    @step
    def start(self) -> None:
        """Make it."""
        self.text = "x" * 20_000
        self.next(self.middle)

    @step
    def middle(self) -> None:
        """Change it."""
        self.text += "y"
        self.next(self.end)

    @step
    def end(self) -> None:
        """Read it."""
        self.length = len(self.text)


async def test_a_step_does_not_wait_for_values_of_others_that_nobody_makes(
    s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before it is all that runs: its values are uploaded without a wait."""
    for name in ("_QUIET_SECONDS", "_OLD_SECONDS"):
        monkeypatch.setattr(f"asyncflow.store.object_store.uploader.{name}", 1e6)
    async with Engine(store=f"{s3_location}-chain", workers=2) as engine:
        run = await engine.run(Chain)
    assert run.data.length == 20_001


async def test_a_cache_may_be_emptied_while_an_engine_is_open(in_objects: Engine) -> None:
    """What is in the store goes, and is read from there; what is not stays."""
    run = await in_objects.run(Wide)
    store = open_store(in_objects.settings.store)
    cache = NodeCache(store.cache, most_bytes=1)
    cache.make_room()
    left = [path for path in Path(store.cache).rglob("*") if path.stat().st_size > SIZE]
    assert not [path for path in left if path.is_file() and path.suffix != ".seg"]
    again = Run(run.pathspec, store=in_objects.settings.store)
    assert again.data.right == [True] * Wide.width
    assert {len(task.data.data) for task in again["more"]} == {SIZE + 1}
    assert again["start"].task.data.large.endswith(b"large")
    assert (await in_objects.run(Wide)).data.right == [True] * Wide.width
