"""Counting what happens."""

from __future__ import annotations

import pytest

from asyncflow.scheduling.statistics import Meter


def test_events_per_second_are_those_of_the_last_ten_seconds():
    """What is longer ago is forgotten in the rate, and kept in the sum."""
    now = 100.0
    meter = Meter(lambda: now)
    for _ in range(5):
        meter.count(40, 1000)
        now += 1
    assert meter.per_second() == pytest.approx(40)
    now += 5
    assert meter.per_second() == pytest.approx(20)
    now += 1000
    assert (meter.per_second(), meter.events, meter.bytes) == (0, 200, 5000)
