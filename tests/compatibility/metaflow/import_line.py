"""The one change that a flow of Metaflow's needs."""

from __future__ import annotations

import re

_IMPORT = re.compile(r"^( *)from metaflow(\.cards)? import ", re.MULTILINE)


def with_our_import(source: str) -> str:
    """A flow's text with its imports from Metaflow changed, and nothing else."""
    return _IMPORT.sub(r"\1from asyncflow\2 import ", source)
