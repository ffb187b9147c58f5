"""Classes whose objects belong to a process: reading a stored one gives back one that is there."""

from __future__ import annotations

from typing import Any, ClassVar, Self


class Account:
    """There is one for each name in a process, as in the identity map of an ORM."""

    known: ClassVar[dict[str, Account]] = {}

    def __init__(self, name: str, balance: int) -> None:
        self.name, self.balance = name, balance

    @classmethod
    def get(cls, name: str, balance: int) -> Account:
        """The one that is there already, whatever its balance."""
        return cls.known.setdefault(name, cls(name, balance))

    def __reduce__(self) -> tuple[Any, ...]:
        return Account.get, (self.name, self.balance)


class Settings:
    """There is one, and reading a stored one puts the stored state into it."""

    one: ClassVar[Settings | None] = None
    level = 0

    def __new__(cls) -> Self:
        if cls.one is None:
            cls.one = super().__new__(cls)
        return cls.one  # type: ignore[return-value]  # as singletons are written
