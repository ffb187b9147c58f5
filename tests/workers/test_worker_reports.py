"""What a worker tells its engine, and when."""

from __future__ import annotations

import socket

import pytest

from asyncflow.workers.messages import Warned, Wrote
from asyncflow.workers.process.stop_signals import Moment, StopOrder, StopSignals
from asyncflow.workers.process.worker import Worker
from asyncflow.workers.report_stream import ReportStream


@pytest.fixture
def ends():
    """The worker, and the engine's end of its reports."""
    orders, _orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reports, engine = socket.socketpair()
    with orders, _orders, reports, engine:
        yield Worker(orders, reports, StopSignals(Moment(), StopOrder())), engine


def told(engine):
    """The reports that are there."""
    return ReportStream().feed(engine.recv(1 << 16))


UNPACKABLE = Warned("a warning", {"what": object()})
FINE = Warned("a warning", {})


@pytest.mark.parametrize("reports", [[UNPACKABLE], [FINE, UNPACKABLE]])
def test_what_is_to_be_uploaded_is_told_though_the_report_after_it_cannot_be_packed(ends, reports):
    """It comes before the next report; else values that this one names would never be stored."""
    worker, engine = ends
    worker.report_first("segment", 10, (b"digest",))
    with pytest.raises(TypeError):
        worker.report(*reports)
    with pytest.raises(TypeError):
        worker.report_soon(UNPACKABLE)
    worker.report(FINE)
    assert told(engine) == [Wrote("segment", 10, (b"digest",)), FINE]
