"""The claim of a run: an object that says that somebody is writing the run, and is renewed.

It is for people who look, and keeps a resume from sealing a run that goes on. Nothing depends on
its clock: whoever takes a run for dead seals its journal first, and then it is dead.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from asyncflow.store.object_store.objects import Objects

CLAIM: Final = "claim"
"""The name of the object, below that of the run."""
BEAT_SECONDS: Final = 10.0
"""How often a claim is renewed."""
FRESH_SECONDS: Final = 30.0
"""A claim that was not renewed for so long is that of a dead program, or of a lost machine.

The clocks of the store and of whoever looks may differ by less than that and a beat.
"""
_STALE_SECONDS: Final = 2 * BEAT_SECONDS
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""It goes on while the machine sleeps, where the system has such a clock."""


class Seen(NamedTuple):
    """A claim as somebody finds it."""

    writer: str
    """Which writer of the journal has it, in hex; empty if that cannot be read."""
    host: str
    age: float
    """Seconds since it was renewed, by the clocks of the store and of this machine."""

    @property
    def is_fresh(self) -> bool:
        """Whether its writer was alive a moment ago."""
        return self.age < FRESH_SECONDS


class Claim:
    """The claim of a run that this process writes. One thread at a time may use it."""

    def __init__(self, objects: Objects, name: str, writer: bytes) -> None:
        """Make no request yet."""
        self._objects, self._name = objects, name
        self._facts = {"writer": writer.hex(), "host": os.uname().nodename, "pid": os.getpid()}
        self._beats = 0
        self._e_tag = ""
        self._due = self._stale_at = 0.0
        self._is_lost = False

    def __repr__(self) -> str:
        return f"<Claim {self._name} {self._beats} beats>"

    @property
    def is_lost(self) -> bool:
        """Whether somebody has taken it away, or has another one there."""
        return self._is_lost

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew it."""
        return time.clock_gettime(_CLOCK) >= self._due and not self._is_lost

    @property
    def is_stale(self) -> bool:
        """Whether somebody may take its writer for dead soon, or has done so."""
        return time.clock_gettime(_CLOCK) >= self._stale_at and not self._is_lost

    def beat(self) -> None:
        """Make the claim, or renew it. If somebody has taken it away, it stays away.

        Raises:
            OSError: The store refuses, or does not answer.
        """
        if self._is_lost:
            return
        beats = self._beats + 1
        data = json.dumps({**self._facts, "beats": beats}).encode()
        if not self._beats:
            e_tag = self._objects.create_version(self._name, data)
        else:
            e_tag = self._objects.replace(self._name, data, self._e_tag)
        if e_tag is None:
            e_tag = self._replace_own(data)
        self._is_lost = e_tag is None
        self._e_tag = e_tag or ""
        self._beats = beats
        now = time.clock_gettime(_CLOCK)
        self._due, self._stale_at = now + BEAT_SECONDS, now + _STALE_SECONDS

    def _replace_own(self, data: bytes) -> str | None:
        """Renew it if it is still this writer's; None if it is not.

        A request that has failed for good may have been carried out before the store was cut off.
        """
        try:
            found, facts = self._objects.get_with_facts(self._name)
        except FileNotFoundError:
            return None
        if _named_in(found)[0] != self._facts["writer"]:
            return None
        return self._objects.replace(self._name, data, facts.e_tag)

    def release(self) -> None:
        """Say that nobody writes the run any more.

        Raises:
            OSError: The store refuses, or does not answer.
        """
        if self._beats and not self._is_lost:
            self._is_lost = True
            self._objects.delete([self._name])


def look_at(objects: Objects, name: str) -> Seen | None:
    """The claim of a run; None if there is none.

    Raises:
        OSError: The store refuses, or does not answer.
    """
    try:
        data, facts = objects.get_with_facts(name)
    except FileNotFoundError:
        return None
    return Seen(*_named_in(data), time.time() - facts.modified)


def _named_in(data: bytes) -> tuple[str, str]:
    """The writer and the host that a claim names; both empty if it cannot be read."""
    try:
        found = json.loads(data)
        return str(found["writer"]), str(found["host"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", ""
