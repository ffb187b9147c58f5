"""A store in an S3-compatible server: what the engine writes, anybody reads elsewhere."""

from __future__ import annotations

import pytest

import asyncflow
from asyncflow import FlowSpec, step
from asyncflow._support.settings import Settings

pytestmark = pytest.mark.cluster


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
def url(bucket, tmp_path, monkeypatch):
    """Where this test's store will be; the cache of this machine is empty."""
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "cache"))
    location = f"s3://{bucket}/flows"
    monkeypatch.setenv("ASYNCFLOW_STORE", location)
    return location


@pytest.mark.parametrize("durability", ["crash", "power"])
async def test_a_run_is_read_elsewhere(url, tmp_path, monkeypatch, durability):
    """By a program that has nothing but the URL."""
    settings = Settings(store=url, workers=2, durability=durability)
    async with asyncflow.Engine(settings=settings) as engine:
        run = await engine.run(Square)
        assert run["end"].task.data.results == [0, 1, 4, 9, 16]
    monkeypatch.setenv("ASYNCFLOW_CACHE", str(tmp_path / "elsewhere"))
    there = asyncflow.Run(run.pathspec)
    assert there.successful
    assert there["start"].task.stdout == "starting\n"
    assert there["end"].task.data.results == [0, 1, 4, 9, 16]
