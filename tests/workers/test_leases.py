"""When leases are asked for, and when a request is withdrawn."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from asyncflow.workers.cluster import leases
from asyncflow.workers.cluster.interface import Shape
from asyncflow.workers.cluster.leases import Leases

LOOKS = 6
"""So many, without a wish, until a request is withdrawn."""


@pytest.fixture
def asking():
    """Leases that come and go with the work, and the requests for them, in their order."""
    requests: list[Future[None]] = []

    def ask(*_: object) -> Future[None]:
        requests.append(Future())
        return requests[-1]

    return Leases(list, ask, most=2, slots=1, idle_seconds=60.0), requests


def test_a_request_that_nobody_needs_is_withdrawn(asking):
    """After some looks; a wish begins their count anew."""
    asked, requests = asking
    asked.wish({Shape(): 1})
    for _ in range(LOOKS - 1):
        asked.look()
    asked.wish({Shape(): 1})
    for _ in range(LOOKS - 1):
        asked.look()
    assert [request.cancelled() for request in requests] == [False]
    asked.look()
    assert [request.cancelled() for request in requests] == [True]


def test_a_request_outlasts_an_event_loop_that_is_kept_busy(asking, monkeypatch):
    """However long each time: a cluster that takes longer for a lease would never give one."""
    asked, requests = asking
    asked.wish({Shape(): 1})
    for hour in range(LOOKS - 1):
        clock = SimpleNamespace(monotonic=lambda hour=hour: 1e6 + 3600.0 * hour)
        monkeypatch.setattr(leases, "time", clock)
        asked.look()
    assert [request.cancelled() for request in requests] == [False]
