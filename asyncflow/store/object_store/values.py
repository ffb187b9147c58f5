"""The bytes of values in an object store, which go through the cache of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.store.object_store.value_sink import NodeSink
from asyncflow.store.object_store.value_source import CachedValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.store.object_store.connection import Connection
    from asyncflow.store.value_interface import Tell, ValueSink, ValueSource


def sink_of(
    connection: Connection, flow: str, run_id: str, node: str, tell: Tell | None
) -> ValueSink:
    """Takes the bytes of a run's values, and has them uploaded.

    That is done by `node`, which is told of them; without `tell`, by this process.
    """
    if tell is not None:
        return NodeSink(connection.cache, flow, run_id, node, tell)

    def upload(segment: str, end: int, blobs: Sequence[bytes]) -> None:
        connection.uploader.upload(segment, end, blobs)

    return NodeSink(connection.cache, flow, run_id, connection.node, upload)


def source_of(connection: Connection, flow: str) -> ValueSource:
    """Reads the bytes of a flow's values."""
    return CachedValues(connection.cache, connection.objects, flow)
