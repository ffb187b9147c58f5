"""Which machines use a named limit of a store in an object store at the same time.

Named limits are locks of a machine's kernel, so machines do not share them. Each machine therefore
notes which it uses, and looks who else does, to be able to say so. That limits nothing.

    PREFIX/limits/NAME/HOST-WORD    an object without bytes, written again every few seconds

HOST is the name of the machine, and WORD tells its cache from all others. How old such an object is
tells when its machine used the limit last. It is compared with the machine's own object, which was
just written: both times are by the store's clock, so no other clock matters.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.store.object_store.objects import Objects

_FOLDER: Final = "limits"
_FRESH_SECONDS: Final = 30.0  # after its last note, a machine counts as one that uses a limit
_FORGOTTEN_SECONDS: Final = 86_400.0  # after that its note is deleted by whoever sees it
_STARTED: Final = Path("/proc/sys/kernel/random/boot_id")
_WORD_CHARACTERS: Final = 12


def machine_of(host: str, cache: str) -> str:
    """Names the machine with this name and this cache.

    All programs on one machine that have the same cache get the same name: they share its limits.

    Raises:
        OSError: The cache cannot be looked at.
    """
    found = Path(cache).stat()
    started = _STARTED.read_text() if _STARTED.exists() else ""
    told = f"{started} {found.st_dev} {found.st_ino}"
    return f"{host}-{sha256(told.encode()).hexdigest()[:_WORD_CHARACTERS]}"


def other_users(objects: Objects, machine: str, limit: str) -> Sequence[str]:
    """Note that a machine uses a limit; return the hosts of the others that do, sorted.

    Raises:
        OSError: The store refuses, or does not answer.
    """
    mine = f"{_FOLDER}/{limit}/{machine}"
    objects.put(mine, b"")
    listed = [*objects.listed(f"{_FOLDER}/{limit}")]
    now = next((each.modified for each in listed if each.name == mine), 0.0)
    others = [each for each in listed if each.name != mine]
    old = [each.name for each in others if now - each.modified > _FORGOTTEN_SECONDS]
    if old:
        objects.delete(old)
    fresh = [each.name for each in others if now - each.modified < _FRESH_SECONDS]
    return sorted(name.rpartition("/")[2].rpartition("-")[0] for name in fresh)
