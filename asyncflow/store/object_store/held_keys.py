"""One run per key, in an object store: see `asyncflow.store.run_keys` for what keys are for.

The object `keys/FLOW/DIGEST` has the id of the run, and who holds the key now:

    {"run_id": "…", "holder": "…"}

It is changed by replacing exactly the version that was read, so of several processes one gets hold
of the key. A holder that has not let go within a minute is taken for dead, and whatever it then
does with the key fails. Its run counts only if it has begun.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final

from asyncflow.errors import StoreError
from asyncflow.store.run_ids import RUN_ID

if TYPE_CHECKING:
    from asyncflow.store.object_store.objects import Objects

_DEAD_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 0.1


class HeldObjectKey:
    """A key that nobody else can look at or give away now."""

    def __init__(self, objects: Objects, name: str, run_id: str, holder: str, e_tag: str) -> None:
        self._objects, self._name, self._holder, self._e_tag = objects, name, holder, e_tag
        self.run_id = run_id
        """The run that was given the key, which may have begun or not; empty for none."""

    def give_to(self, run_id: str) -> None:
        """Give it to a run that is about to begin.

        Raises:
            OSError: The store refuses, or does not answer.
            StoreError: This process has held it for so long that it was taken for dead.
        """
        self._write(run_id, self._holder)
        self.run_id = run_id

    def let_go(self) -> None:
        """Let others have it.

        Raises:
            OSError: The store refuses, or does not answer.
            StoreError: Others have it already.
        """
        self._write(self.run_id, "")

    def _write(self, run_id: str, holder: str) -> None:
        e_tag = self._objects.replace(self._name, _packed(run_id, holder), self._e_tag)
        if e_tag is None:
            message = f"the start of a run with a key took longer than {_DEAD_SECONDS:g} s"
            raise StoreError(message)
        self._e_tag = e_tag


def take(objects: Objects, name: str) -> HeldObjectKey:
    """Get hold of a key, once nobody else holds it.

    Raises:
        OSError: The store refuses, or does not answer.
        StoreError: Others hold the key for long.
    """
    holder = os.urandom(16).hex()
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        try:
            data, facts = objects.get_with_facts(name)
        except FileNotFoundError:
            if objects.create(name, _packed("", holder)) is None:
                return HeldObjectKey(objects, name, "", holder, objects.head(name).e_tag)
            continue
        run_id, held_by = _unpacked(data)
        if not held_by or time.time() - facts.modified > _DEAD_SECONDS:
            e_tag = objects.replace(name, _packed(run_id, holder), facts.e_tag)
            if e_tag is not None:
                return HeldObjectKey(objects, name, run_id, holder, e_tag)
            continue
        time.sleep(_PAUSE_SECONDS)
    message = f"cannot start the run of a key: others hold {objects.location}/{name}"
    raise StoreError(message)


def run_of_key(objects: Objects, name: str) -> str:
    """The id of the run that was given a key; empty for none.

    Raises:
        OSError: The store refuses, or does not answer.
    """
    try:
        return _unpacked(objects.get(name))[0]
    except FileNotFoundError:
        return ""


def _packed(run_id: str, holder: str) -> bytes:
    return json.dumps({"run_id": run_id, "holder": holder}).encode()


def _unpacked(data: bytes) -> tuple[str, str]:
    """The run's id and the holder; both empty for bytes that nobody here has written."""
    try:
        found = json.loads(data)
        run_id, holder = str(found["run_id"]), str(found["holder"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", ""
    return run_id if RUN_ID.fullmatch(run_id) else "", holder
