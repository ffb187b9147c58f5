"""`make bench`: every benchmark, one after the other; name some to run only those."""

from __future__ import annotations

import importlib
import sys

ALL = (
    "throughput",
    "scale",
    "loops",
    "language",
    "resuming",
    "startup",
    "arrays",
    "artifacts",
    "client",
    "listing",
    "hotpath",
    "worker_alone",
    "showing",
    "stages",
    "deep",
    "floors",
    "waiting",
    "watching",
    "tracing",
    "testing",
    "page",
    "facts",
    "cards",
    "beside",
    "lag",
)

LAST = "collection"  # it makes 200,000 files, and a disk is slower for a while after that


def main() -> None:
    """Run those that are named, or all."""
    for name in sys.argv[1:] or (*ALL, LAST):
        print(f"--- {name}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
