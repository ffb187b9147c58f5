"""The values of artifacts as attributes, each read on access."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow._support.suggestions import did_you_mean
from asyncflow.client.run_files import FlowPlace
from asyncflow.client.views import not_found_out
from asyncflow.client.words import some_of
from asyncflow.errors import ArtifactNotFoundError, JournalError
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.values import ArtifactRef, Manifest


def ref_of(
    name: str,
    owner: str,
    manifest: Callable[[], Mapping[str, ArtifactRef]],
    why_missing: Callable[[str], str] | None = None,
) -> ArtifactRef:
    """The ref of an artifact in a manifest, which is read; `owner` is the pathspec of what has it.

    `why_missing` says what an error adds if none has that name, or a similar one.

    Raises:
        ArtifactNotFoundError: There is none; it lists the artifacts that exist.
        JournalError: The manifest cannot be read.
    """
    try:
        artifacts = manifest()
    except JournalError as error:
        raise not_found_out(f"{owner}/{name}", error) from error
    if name not in artifacts:
        hint = did_you_mean(name, artifacts) or (why_missing(name) if why_missing else "")
        message = f"{owner} has no artifact {name!r}; it has {some_of(artifacts)}{hint}"
        raise ArtifactNotFoundError(message, artifact=name)
    return artifacts[name]


class Data:
    """Values as attributes, each read on access, every time anew: `run.data.model`."""

    __slots__ = ("_manifest", "_owner", "_place", "_why_missing")

    def __init__(
        self,
        place: FlowPlace,
        owner: str,
        manifest: Callable[[], Mapping[str, ArtifactRef]],
        why_missing: Callable[[str], str] | None = None,
    ) -> None:
        """Read nothing yet, so that an error can name the requested value."""
        self._place, self._owner, self._manifest = place, owner, manifest
        self._why_missing = why_missing

    def __getattr__(self, name: str) -> Any:
        if name in Data.__slots__:  # being copied: there is nothing to look up yet
            raise AttributeError(name)
        ref = ref_of(name, self._owner, self._manifest, self._why_missing)
        return self._place.artifacts.load(ref, f"{self._owner}/{name}").value

    def __contains__(self, name: object) -> bool:
        return name in self._manifest()

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest())

    def __len__(self) -> int:
        return len(self._manifest())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._manifest()]

    def __reduce__(self) -> tuple[Any, ...]:
        place = self._place
        return _again, (place.store.location, place.flow, self._owner, dict(self._manifest()))

    def __repr__(self) -> str:
        return f"<Data {', '.join(self._manifest()) or 'without artifacts'}>"


def _again(location: str, flow: str, owner: str, manifest: Manifest) -> Data:
    """The values that were pickled, as they were then; no value is pickled with them."""
    return Data(FlowPlace(open_store(location), flow), owner, lambda: manifest)
