"""Events as JSON: `asyncflow events --json` prints one line for each."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import UnknownEventError
from asyncflow.events.manifests import pack_manifest, pack_ref, ref_of, unpack_manifest, unpack_ref
from asyncflow.events.types import _TYPES, Event
from asyncflow.values import ArtifactRef, tags_from

if TYPE_CHECKING:
    from collections.abc import Mapping


# --- JSON -------------------------------------------------------------------------------------

_REFS: Final = frozenset({"items", "code_ref"})
"""The fields that hold a packed ref."""


def to_json(event: Event) -> str:
    """An event as one line of JSON, as `asyncflow events --json` prints it."""
    import json

    return json.dumps(to_json_data(event))


def from_json(text: str | bytes) -> Event:
    """Undo `to_json`. Fields that a later version has added are ignored.

    Raises:
        UnknownEventError: A later version of asyncflow wrote the event.
        ValueError: The text is not the JSON of an event.
    """
    import json

    data = json.loads(text)
    try:
        return from_json_data(data)
    except (KeyError, TypeError, AttributeError) as error:
        message = f"this is not the JSON of an event: {text!r:.200}"
        raise ValueError(message) from error


def to_json_data(event: Event) -> dict[str, Any]:
    """An event as plain data for JSON: its type, every field, time in ISO 8601, refs as objects."""
    data: dict[str, Any] = {"type": type(event).__name__}
    for f in fields(event):
        value = getattr(event, f.name)
        if f.name == "manifest":
            data["artifacts"] = {
                name: _ref_data(ref) for name, ref in unpack_manifest(value).items()
            }
        elif f.name in _REFS:
            data[f.name] = _ref_data(unpack_ref(value)) if value else None
        elif f.name == "digests":
            data["digests"] = value.hex()
        elif f.name == "source" and "ref" in value:
            data["source"] = {**value, "ref": _ref_data(ref_of(value["ref"]))}
        elif f.name == "time":
            data["time"] = value.isoformat()
        else:
            data[f.name] = list(value) if isinstance(value, tuple) else value
    return data


def from_json_data(data: Mapping[str, Any]) -> Event:
    """Undo `to_json_data`. Fields that a later version has added are ignored.

    Raises:
        UnknownEventError: A later version of asyncflow wrote the event.
    """
    cls = next((each for each in _TYPES if each.__name__ == data["type"]), None)
    if cls is None:
        message = f"this version of asyncflow does not know the event {data['type']!r}"
        raise UnknownEventError(message)
    named = {name: data[name] for name in _names_of(cls) if name in data}
    named["time"] = datetime.fromisoformat(named["time"])
    if "artifacts" in data and "manifest" in _names_of(cls):
        refs = {name: _ref_of(ref) for name, ref in data["artifacts"].items()}
        named["manifest"] = pack_manifest(refs)
    for name in _REFS & named.keys():
        ref = named[name]
        named[name] = pack_ref(_ref_of(ref)) if ref else b""
    if "digests" in named:
        named["digests"] = bytes.fromhex(named["digests"])
    if "ref" in named.get("source", ()):
        source = named["source"]
        named["source"] = {**source, "ref": list(_ref_of(source["ref"]))}
    if "path" in named:
        named["path"] = tuple(named["path"])
    if "parents" in named:
        named["parents"] = tuple(named["parents"])
    if "tags" in named:
        named["tags"] = tags_from(named["tags"])
    return cls(**named)


def _names_of(cls: type[Event]) -> list[str]:
    return [f.name for f in fields(cls)]


def _ref_data(ref: ArtifactRef) -> dict[str, Any]:
    data: dict[str, Any] = ref._asdict()
    return {**data, "digest": ref.digest.hex(), "data": ref.data.hex()}


def _ref_of(data: Mapping[str, Any]) -> ArtifactRef:
    known = {name: data[name] for name in ArtifactRef._fields}
    known |= {name: bytes.fromhex(data[name]) for name in ("digest", "data")}
    return ArtifactRef(**known)
