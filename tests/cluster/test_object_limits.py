"""Named limits with an object store: machines do not share them, and say so."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, limit, step
from asyncflow.store.object_store.limit_users import other_users
from asyncflow.store.object_store.objects import Objects
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


@pytest.fixture
def url(bucket):
    """Where this test's store will be; this machine has nothing of it."""
    return f"s3://{bucket}/flows"


class Limited(FlowSpec):
    """Has a task under a limit, and goes on when a file is there."""

    gate = Parameter("gate", default="")

    @limit("api", 1)
    @step
    async def start(self):
        await until(lambda: not self.gate or Path(self.gate).exists())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_machines_that_use_the_same_limit_are_told_of(url, tmp_path, monkeypatch, caplog):
    """A run under a limit says which machines use it as well, once, because none shares it."""
    gate = tmp_path / "open"
    async with Engine(store=url, workers=1) as here:
        first = await here.start(Limited, gate=str(gate))
        await until(lambda: Objects.open(url).has_any("limits/api"))
        monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "elsewhere"))
        async with Engine(store=url, workers=1) as elsewhere:
            await elsewhere.run(Limited)
            await elsewhere.run(Limited)
            await until(lambda: caplog.messages)
        gate.touch()
        await first
    (told,) = [each for each in caplog.messages if "limit" in each]
    host = re.sub("[^A-Za-z0-9]+", "-", os.uname().nodename)[:32]
    assert told == (
        f"the limit api is used on {host} as well, and machines do not share it: "
        "each of them keeps to it by itself"
    )


async def test_programs_on_one_machine_share_a_limit_and_nobody_says_otherwise(url, caplog):
    """They have the same cache."""
    async with Engine(store=url, workers=1) as one, Engine(store=url, workers=1) as other:
        await one.run(Limited)
        await other.run(Limited)
        objects = Objects.open(url)
        await until(lambda: objects.has_any("limits/api"))
        assert len([*objects.listed("limits/api")]) == 1
    assert not caplog.messages


def test_who_used_a_limit_long_ago_does_not_use_it_now(url, monkeypatch):
    """By the times of the store: a note is fresh for half a minute, and goes after a day."""
    objects = Objects.open(url)
    there = {"limits/api/old-1": 86_500.0, "limits/api/late-2": 31.0, "limits/api/here-3": 0.0}
    there["limits/api/now-4"] = 29.0
    for name in there:
        objects.put(name, b"")
    listed = objects.listed

    def aged(folder, **_):
        found = [*listed(folder)]
        newest = max(each.modified for each in found)
        return [each._replace(modified=newest - there[each.name]) for each in found]

    monkeypatch.setattr(objects, "listed", aged)
    assert other_users(objects, "here-3", "api") == ["now"]
    left = [each.name for each in listed("limits")]
    assert left == ["limits/api/here-3", "limits/api/late-2", "limits/api/now-4"]
