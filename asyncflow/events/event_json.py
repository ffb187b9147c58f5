"""Events as JSON: `asyncflow events --json` prints one line for each."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import UnknownEventError
from asyncflow.events.manifests import pack_manifest, pack_ref, ref_of, unpack_manifest, unpack_ref
from asyncflow.events.types import _TYPES, ArtifactsEvent, Event, RunStarted
from asyncflow.values import ArtifactRef, tags_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
    cls = type(event)
    data: dict[str, Any] = {"type": cls.__name__}
    for name in _names_of(cls):
        if name == "manifest":  # which may say only what differs from an earlier event
            data["artifacts"] = _artifacts(event)
            continue
        value = getattr(event, name)
        special = _SPECIAL.get(name)
        if special is not None:
            data.update(special(value))
        else:
            data[name] = list(value) if type(value) is tuple else value
    return data


def _ref_or_none(name: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda value: {name: _ref_data(unpack_ref(value)) if value else None}


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    if "ref" not in source:
        return {"source": source}
    return {"source": {**source, "ref": _ref_data(ref_of(source["ref"]))}}


def _artifacts(event: Event) -> dict[str, Any]:
    refs = event.artifacts if isinstance(event, ArtifactsEvent | RunStarted) else {}
    return {name: _ref_data(ref) for name, ref in refs.items()}


def _cards(manifest: bytes) -> dict[str, Any]:
    refs = unpack_manifest(manifest) if manifest else {}
    return {"cards": {name: _ref_data(ref) for name, ref in refs.items()}}


_SPECIAL: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "cards": _cards,
    **{name: _ref_or_none(name) for name in _REFS},
    "digests": lambda value: {"digests": value.hex()},
    "source": _source,
    "time": lambda value: {"time": value.isoformat()},
}
"""What becomes of the fields that JSON cannot express, by their names."""


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
    if "cards" in named:
        refs = {name: _ref_of(ref) for name, ref in named["cards"].items()}
        named["cards"] = pack_manifest(refs) if refs else b""
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


_names: Final[dict[type[Event], tuple[str, ...]]] = {}


def _names_of(cls: type[Event]) -> tuple[str, ...]:
    names = _names.get(cls)
    if names is None:  # `fields` makes a list each time
        names = _names[cls] = tuple(f.name for f in fields(cls))
    return names


def _ref_data(ref: ArtifactRef) -> dict[str, Any]:
    data: dict[str, Any] = ref._asdict()
    return {**data, "digest": ref.digest.hex(), "data": ref.data.hex()}


def _ref_of(data: Mapping[str, Any]) -> ArtifactRef:
    known = {name: data[name] for name in ArtifactRef._fields}
    known |= {name: bytes.fromhex(data[name]) for name in ("digest", "data")}
    return ArtifactRef(**known)
