"""Shows in full that nothing is lost: `python -m tests.durability.chaos [PART…]`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tests.durability.chaos import killing, nonsense, random_flows, simulation, spoiling, storms

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS: dict[str, Callable[[], str]] = {
    "commit-points": killing.everything,
    "faults": spoiling.everything,
    "nodes": storms.everything_on_nodes,
    "nonsense": nonsense.everything,
    "random-flows": random_flows.everything,
    "simulation": simulation.everything,
    "storms": storms.everything,
}


def main() -> None:
    """Do the parts that are named, or all; the first promise that is not kept ends it."""
    names = sys.argv[1:] or list(PARTS)
    unknown = set(names) - set(PARTS)
    if unknown:
        sys.exit(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in names:
        began = time.monotonic()
        try:
            told = PARTS[name]()
        except AssertionError as error:
            sys.exit(f"{name}: a promise was not kept: {error}")
        print(
            f"{name:15} {told}: every promise kept  ({time.monotonic() - began:.0f} s)", flush=True
        )


if __name__ == "__main__":
    main()
