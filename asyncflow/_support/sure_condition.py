"""A condition variable whose lock no exception from a signal handler leaves locked."""

from __future__ import annotations

from threading import Condition, RLock
from typing import Any

_Lock: Any = type(RLock())


class SureCondition(_Lock):  # type: ignore[misc]  # a class without a public name is Any to mypy
    """A condition variable that is its own lock, which the thread that holds it may take again.

    `threading.Condition` takes its lock in a method in Python. A signal handler may raise there,
    when the lock is taken and the `with` block has not begun: then nobody releases it. Here no
    code in Python runs between the two.
    """

    _others: Condition | None = None  # while somebody waits

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until `notify_all` is called, for at most `timeout` seconds; with the lock held."""
        others = self._others
        if others is None:
            others = self._others = Condition(self)
        return others.wait(timeout)

    def notify_all(self) -> None:
        """Wake all who wait; with the lock held."""
        others, self._others = self._others, None  # neither refers to the other any more
        if others is not None:
            others.notify_all()
