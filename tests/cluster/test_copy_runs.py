"""`copy` between folders and object stores."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow import Run, copy_runs
from asyncflow.errors import CopyError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store import open_store
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.remove import remove
from asyncflow.store.maintenance.verify import verify
from asyncflow.values import Status
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.cluster

GRAPH = Graph("F", [Node("start", ("end",)), Node("end")])
SEGMENT = b"s" * 5_000
BLOB = b"b" * 300_000


class Killed(BaseException):
    """The process would be dead here."""


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache for each test."""
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "cache"))


def write(store: Path, run_id: str, *, origin: str | None = None, **values: object) -> None:
    """A run whose tasks have these values; with an origin, its first task is taken over."""
    writer = RunWriter(store, "F", run_id, GRAPH, origin=origin)
    if origin is None:
        task = writer.start("start")
        writer.log(task, b"hello\n")
        writer.succeed(task, values)
    else:
        first = Run(f"F/{origin}", store=store)["start"].task
        refs = {artifact.id: artifact._ref for artifact in first}
        writer.clone("start", (), int(first.id), refs)
    writer.succeed(writer.start("end"), values)
    writer.finish(Status.SUCCEEDED)
    writer.close()


def kept(store: Path | str, run_id: str) -> object:
    """What a run's tasks have, and have printed."""
    tasks = [task for each in Run(f"F/{run_id}", store=store) for task in each]
    return [({each.id: each.data for each in task}, task.stdout) for task in tasks]


def test_there_and_back(bucket: str, tmp_path: Path):
    """A run and its removed origin go to an object store, to another one, and to a folder again."""
    source, back = tmp_path / "source", tmp_path / "back"
    write(source, "100", segment=SEGMENT, blob=BLOB)
    write(source, "200", origin="100", more=SEGMENT * 2)
    remove(Layout.open(source, create=False), [("F", "100")])
    before = kept(source, "200")
    first, second = f"s3://{bucket}/one", f"s3://{bucket}/two"
    for origin, target in ((source, first), (first, second), (second, back)):
        (done,) = copy_runs(origin, target, "F/200")
        assert (done.was_there, done.removed) == (False, ("100",))
        assert copy_runs(origin, target, "F/200")[0].was_there
        assert kept(target, "200") == before
    assert not verify(Layout.open(back, create=False)).damage
    journals = [(each / "flows/F/200/journal").read_bytes() for each in (source, back)]
    assert journals[0] == journals[1]


def test_a_large_run_is_in_many_pieces(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of journal and segments."""
    from asyncflow.store.maintenance import copy_runs as copying
    from asyncflow.store.object_store import incoming_object_run

    monkeypatch.setattr(incoming_object_run, "MOST_BYTES", 1000)
    monkeypatch.setattr(copying, "_CHUNK_BYTES", 700)
    source, target = tmp_path / "source", f"s3://{bucket}/one"
    values: Any = {f"value{n}": os.urandom(5_000) for n in range(20)}
    write(source, "100", **values)
    copy_runs(source, target)
    assert kept(target, "100") == kept(source, "100")
    store = open_store(target)
    names = [facts.name for facts in store.objects.listed("flows/F/100")]  # type: ignore[attr-defined]  # of an object store alone
    assert len([name for name in names if "/journal/" in name]) > 3
    assert len([name for name in names if ".seg/" in name]) > 100


def test_whichever_request_fails_there_is_no_half_run(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each attempt fails one write later than the one before, and goes on from its objects."""
    from asyncflow.store.object_store.objects import Objects

    source, target = tmp_path / "source", f"s3://{bucket}/one"
    write(source, "100", segment=SEGMENT, blob=BLOB)
    write(source, "200", origin="100", more=SEGMENT, large=BLOB * 2)
    remove(Layout.open(source, create=False), [("F", "100")])
    store = open_store(target, create=True)
    ask = Objects._ask
    left = attempts = 0

    def fail(self: Objects, *arguments: object) -> object:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        return ask(self, *arguments)  # type: ignore[arg-type]  # any of its methods

    monkeypatch.setattr(Objects, "_ask", fail)
    while True:
        attempts += 1
        left = attempts
        try:
            copy_runs(source, target, "F/200")
        except Killed:
            left = 0
            there = store.run("F", "200")
            if there.has_journal():
                assert kept(target, "200") == kept(source, "200")
        else:
            left = 0
            break
    assert attempts > 15
    assert kept(target, "200") == kept(source, "200")
    assert Run("F/200", store=target)._record.stored.has_file("summary")


def test_another_run_with_the_same_id_is_left_alone(bucket: str, tmp_path: Path):
    """Nothing is mixed."""
    target = f"s3://{bucket}/one"
    for name, value in (("one", 1), ("other", 2)):
        write(tmp_path / name, "100", x=value)
    copy_runs(tmp_path / "one", target)
    with pytest.raises(CopyError, match="another run F/100"):
        copy_runs(tmp_path / "other", target)
    assert kept(target, "100") == kept(tmp_path / "one", "100")
