"""An open store in an object store: its objects, its cache, and what sends its journals."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from asyncflow.store.object_store.shipper import Shipper

if TYPE_CHECKING:
    from asyncflow.store.local_store import LocalStore
    from asyncflow.store.object_store.objects import Objects

_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9]+")
_HOST_CHARACTERS: Final = 32


class Connection:
    """What all parts of an open store share."""

    def __init__(self, location: str, objects: Objects, local: LocalStore) -> None:
        self.location: Final = location
        self.objects: Final = objects
        self.local: Final = local
        """The cache on this machine, as a store in a folder."""
        host = _UNPLAIN.sub("-", os.uname().nodename)[:_HOST_CHARACTERS]
        self.node: Final = f"{host}-{os.getpid()}-{os.urandom(3).hex()}"
        """Names this process among all that use the store, as part of the name of an object."""
        self._shipper: Shipper | None = None

    def __repr__(self) -> str:
        return f"<Connection to {self.location}>"

    @property
    def shipper(self) -> Shipper:
        """Sends the journals of this process."""
        if self._shipper is None:
            self._shipper = Shipper()
        return self._shipper

    def close(self) -> None:
        """Return when all journals of this process were sent, or cannot be sent now."""
        if self._shipper is not None:
            self._shipper.close()
            self._shipper = None
