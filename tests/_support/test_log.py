"""The library's own log."""

from __future__ import annotations

import logging
from contextlib import suppress

import psutil

from asyncflow import Engine
from asyncflow._support import log
from asyncflow.errors import RunFailedError
from tests.support.flows import Linear


def test_facts_stand_beside_the_event(caplog):
    """A line names what happened, then what is known of it."""
    with caplog.at_level(logging.INFO, logger="asyncflow"):
        log.info("a worker is gone", pid=7, how="by SIGKILL")
    assert caplog.messages == ["a worker is gone (pid: 7, how: by SIGKILL)"]
    assert caplog.records[0].__dict__["facts"] == {"pid": 7, "how": "by SIGKILL"}


def test_a_traceback_stands_on_lines_of_its_own(caplog):
    """Below what happened, as Python shows it."""
    log.warning("a callback raised", callback="tell", traceback="Traceback:\n  line\nE: 5 % of 7")
    assert caplog.messages == [
        "a callback raised (callback: tell)\nTraceback:\n  line\nE: 5 % of 7"
    ]


def test_what_is_not_asked_for_is_not_made(caplog):
    """Below the logger's level nothing is said."""
    with caplog.at_level(logging.WARNING, logger="asyncflow"):
        log.info("nothing new")
    assert caplog.messages == []


async def test_a_lost_fork_server_is_a_warning(store, caplog):
    """The engine says that it had to start its processes anew."""
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Linear)
        psutil.Process().children()[0].kill()
        while not caplog.messages:
            with suppress(RunFailedError):  # its worker may have died in the middle of a task
                await engine.run(Linear)
    assert "starting another one" in caplog.messages[0]
