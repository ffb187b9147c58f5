"""Answers that many ask for at once: made once, and kept for as short as that was cheap."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARE: Final = 20
"""Making one answer again and again takes at most this part of a processor."""
_MOST_SECONDS: Final = 1.0
_MOST_KEPT: Final = 50


@dataclass(slots=True)
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    data: bytes = b""


class SharedAnswers:
    """The latest answers by what was asked. Threads share one."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, _Kept] = OrderedDict()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """The answer of a moment ago, or a new one; whoever asks meanwhile waits for it."""
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        with kept.lock:
            if time.monotonic() >= kept.until:
                began = time.thread_time()
                kept.data = make()
                seconds = _SHARE * (time.thread_time() - began)
                kept.until = time.monotonic() + min(seconds, _MOST_SECONDS)
            return kept.data

    def forget(self) -> None:
        """Make each answer anew: something was changed."""
        with self._lock:
            self._kept.clear()
