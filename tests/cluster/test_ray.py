"""What is special to a Ray cluster; `test_executors` has what it shares with Dask."""

from __future__ import annotations

import os
import time

import pytest

from asyncflow import Engine, FlowSpec, resources, step
from asyncflow.errors import ClusterError
from asyncflow.executors import Ray

pytestmark = pytest.mark.cluster


class Visible(FlowSpec):
    """Tells which GPUs its tasks see."""

    @step
    def start(self):
        self.plain = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.items = [1, 2]
        self.next(self.work, foreach="items")

    @resources(gpu=1, cpu=1, memory=64)
    @step
    def work(self):
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        time.sleep(1)  # so that both run at a time
        self.next(self.join)

    @step
    def join(self, inputs):
        self.devices = sorted(each.seen for each in inputs)
        self.plain = inputs[0].plain
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_sees_the_gpu_that_is_its_own(ray_here, store):
    """And other steps see none."""
    async with Engine(store=store, executor=Ray("auto", idle_seconds=1)) as engine:
        run = await engine.run(Visible)
    assert (run.data.devices, run.data.plain) == (["0", "1"], "")


async def test_another_address_than_that_of_the_program_is_refused(ray_here, store):
    """A process has one connection to Ray."""
    with pytest.raises(ClusterError, match="this program is connected to Ray at"):
        async with Engine(store=store, executor=Ray("127.0.0.1:9")):
            pass
