"""The blobs that a copy relies on, until it names them in the store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from asyncflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_SURE_SECONDS: Final = 1800
"""How long a blob that was found or put is not looked at again before the commit; a garbage
collection spares it for two hours."""


class SeenBlobs:
    """When each blob was found in the store, or put there."""

    def __init__(self) -> None:
        """Begin with none."""
        self._seen: dict[bytes, tuple[int, float]] = {}  # its size, and when

    def __repr__(self) -> str:
        return f"<SeenBlobs {len(self._seen)}>"

    def note(self, digest: bytes, size: int) -> None:
        """The blob is there now."""
        self._seen[digest] = size, time.monotonic()

    def check(self, has: Callable[[bytes, int], bool]) -> None:
        """Look again for those that a garbage collection may have deleted meanwhile.

        Raises:
            StoreError: One is gone.
        """
        before = time.monotonic() - _SURE_SECONDS
        for digest, (size, seen) in list(self._seen.items()):
            if seen < before and not has(digest, size):
                message = f"the value {digest.hex()} was copied, and is gone by now: copy again"
                raise StoreError(message)
