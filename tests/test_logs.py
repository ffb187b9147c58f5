"""The library's own log."""

from __future__ import annotations

import logging

import psutil

from asyncflow import Engine, logs
from tests.flows import Linear


def test_facts_stand_beside_the_event(caplog):
    """A line names what happened, then what is known of it."""
    with caplog.at_level(logging.INFO, logger="asyncflow"):
        logs.info("a worker is gone", pid=7)
    assert caplog.messages == ["event='a worker is gone' pid=7"]


def test_what_is_not_asked_for_is_not_made(caplog):
    """Below the logger's level nothing is said."""
    with caplog.at_level(logging.WARNING, logger="asyncflow"):
        logs.info("nothing new")
    assert caplog.messages == []


async def test_a_lost_template_is_a_warning(store, caplog):
    """The engine says that it had to start its processes anew."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Linear)
        psutil.Process().children()[0].kill()
        await engine.run(Linear)
        while not caplog.messages:
            await engine.run(Linear)
    assert "started anew" in caplog.messages[0]
