"""An open store in an object store: its objects, its cache, and what sends its journals."""

from __future__ import annotations

import os
import re
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncflow.store.object_store.shipper import Shipper
from asyncflow.store.object_store.uploader import Uploader

if TYPE_CHECKING:
    from asyncflow.store.object_store.node_cache import NodeCache
    from asyncflow.store.object_store.objects import Objects

_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9]+")
_HOST_CHARACTERS: Final = 32


class Connection:
    """What all parts of an open store share."""

    def __init__(self, location: str, objects: Objects, cache: NodeCache) -> None:
        self.location: Final = location
        self.objects: Final = objects
        self.cache: Final = cache
        """The cache on this machine."""
        self.local: Final = cache.local
        """The same as a store in a folder."""
        self.host: Final = _UNPLAIN.sub("-", os.uname().nodename)[:_HOST_CHARACTERS]
        """The name of this machine, as part of the name of an object."""
        self.node: Final = f"{self.host}-{os.getpid()}-{os.urandom(3).hex()}"
        """Names this process among all that use the store, as part of the name of an object."""
        self._shipper: Shipper | None = None
        self._uploader: Uploader | None = None
        self._making = Lock()

    def __repr__(self) -> str:
        return f"<Connection to {self.location}>"

    @property
    def shipper(self) -> Shipper:
        """Sends the journals of this process."""
        if self._shipper is None:
            self._shipper = Shipper()
        return self._shipper

    @property
    def uploader(self) -> Uploader:
        """Uploads the values that this process and its workers write.

        Raises:
            StoreError: The cache cannot be written to.
        """
        with self._making:
            if self._uploader is None:
                self._uploader = Uploader(self.cache, self.objects, self.node)
            return self._uploader

    def close(self) -> None:
        """Return when all journals of this process were sent, or cannot be sent now.

        Values of which nobody was told are uploaded no more.
        """
        with self._making:
            if self._uploader is not None:
                self._uploader.close()
        if self._shipper is not None:
            self._shipper.close()
            self._shipper = None
