"""Where a store is: a folder, or a URL such as `s3://bucket/prefix`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from asyncflow._support.paths import absolute

_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_SQUEEZED: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/[^/]")
"""What `Path` makes of a URL."""


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL; every other text is a path."""
    return isinstance(location, str) and _URL.match(location) is not None


def store_location(location: str | os.PathLike[str]) -> Path | str:
    """A path for a folder, and the text for a URL.

    Raises:
        ValueError: It is empty, or a URL of which `Path` has taken a slash.
    """
    if is_url(location):
        return os.fspath(location)
    text = os.fspath(location)
    if not text or (not isinstance(location, str) and _SQUEEZED.match(text)):
        raise ValueError(text)
    return Path(location)


def absolute_location(location: str | os.PathLike[str]) -> Path | str:
    """The same location, so that it does not depend on the working directory.

    Raises:
        WorkingDirectoryError: It is a relative path, and the working directory is gone.
    """
    return str(location) if is_url(location) else absolute(location)
