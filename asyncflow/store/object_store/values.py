"""The bytes of values in an object store, which go through the cache of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncflow.store.interface import ValueSink, ValueSource
    from asyncflow.store.object_store.connection import Connection


def sink_of(
    connection: Connection, flow: str, run_id: str, name: str, *, durable: bool
) -> ValueSink:
    """Takes the bytes of a run's values."""
    return connection.local.run(flow, run_id).value_sink(name, durable=durable)


def source_of(connection: Connection, flow: str) -> ValueSource:
    """Reads the bytes of a flow's values."""
    return connection.local.value_source(flow)
