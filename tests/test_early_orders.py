"""A worker receives a task in the moment in which its engine has other orders back in its hands."""

from __future__ import annotations

import pytest

from asyncflow import Engine
from asyncflow.events import TaskStarted
from asyncflow.frames import OpenRun, StartTask
from asyncflow.pool import Worker
from tests.flows import Linear, Waiting, Wide


@pytest.fixture
def late_openings(monkeypatch):
    """Have each run be opened in a worker behind its first tasks there, as that moment does."""
    held, send = {}, Worker.send
    swapped = []

    def send_late(worker, order):
        if isinstance(order, OpenRun):
            held[worker.token] = [order]
        elif worker.token in held and isinstance(order, StartTask):
            send(worker, order)
            for opening in held.pop(worker.token):
                send(worker, opening)
            swapped.append(order)
        else:
            send(worker, order)

    monkeypatch.setattr(Worker, "send", send_late)
    return swapped


@pytest.mark.parametrize(("flow", "width"), [(Linear, None), (Wide, 40), (Waiting, 40)])
async def test_a_task_that_comes_before_the_opening_of_its_run_waits_for_it(
    tmp_path, late_openings, flow, width
):
    """It is begun then, on the event loop too, and its worker lives on."""
    parameters = {} if width is None else {"width": width}
    async with Engine(store=tmp_path, workers=2) as engine:
        pids = set()
        for _ in range(2):
            run = await engine.run(flow, **parameters)
            started = [event for event in run.events() if isinstance(event, TaskStarted)]
            pids |= {event.pid for event in started}
            assert {event.attempt for event in started} == {0}
    assert late_openings
    assert len(pids) <= 2
