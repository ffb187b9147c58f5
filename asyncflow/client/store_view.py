"""A store as a whole: the flows that have run in it."""

# ruff: noqa: SLF001 - the views are one family, and make each other from their parts

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow._support.locations import store_location
from asyncflow.client.flow_facts import no_flow
from asyncflow.client.namespaces import store_to_read
from asyncflow.client.objects import Flow
from asyncflow.client.run_files import FlowPlace
from asyncflow.client.views import not_visible
from asyncflow.client.words import how_many
from asyncflow.store import open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path


class Store:
    """A store, and the flows in it that have a run in the namespace, by name.

    Metaflow calls it `Metaflow`, and so may you: both names are the same class.

    Raises:
        StoreError: There is no store, or it cannot be read.
    """

    __slots__ = ("_store",)

    def __init__(self, location: str | os.PathLike[str] | None = None) -> None:
        self._store = open_store(store_to_read(location))

    @property
    def location(self) -> Path | str:
        """The folder of the store, or the URL of an object store."""
        return store_location(self._store.location)

    @property
    def flows(self) -> list[Flow]:
        """The flows, sorted by name."""
        return list(self)

    def __iter__(self) -> Iterator[Flow]:
        flows = (Flow._in(FlowPlace(self._store, name)) for name in self._store.flows())
        return (flow for flow in flows if flow.is_in_namespace())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(flow.id == name for flow in self)

    def __getitem__(self, name: str) -> Flow:
        if name not in self._store.flows():
            raise no_flow(self._store, name)
        flow = Flow._in(FlowPlace(self._store, name))
        if not flow.is_in_namespace():
            raise not_visible(name)
        return flow

    def _ipython_key_completions_(self) -> list[str]:
        return [flow.id for flow in self]

    def __repr__(self) -> str:
        return f"Store({self._store.location!r}) {how_many(len(self._store.flows()), 'flow')}"

    def __eq__(self, other: object) -> bool:
        return self.location == other.location if isinstance(other, Store) else NotImplemented

    def __hash__(self) -> int:
        return hash((Store, self.location))

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.location,)


Metaflow = Store
"""Metaflow's name for it."""
