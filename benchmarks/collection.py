"""What a garbage collection of 100,000 blobs costs, half of them needed, and verifying them.

Beside it the same by hand, which knows beforehand what may go: look at every file, delete half.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.verify import verify
from asyncflow.values import ArtifactRef, Encoding, Place
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOBS = 100_000
LIMIT_SECONDS = 10
OLD_SECONDS = 3 * 86_400
GRAPH = Graph(
    "Wide",
    [
        Node("start", ("train",), foreach="items"),
        Node("train", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)


def write_blobs(layout: Layout, count: int, first: int = 0) -> Iterator[ArtifactRef]:
    """Old blobs of a few bytes: what a file holds makes no difference to a collection."""
    old = time.time() - OLD_SECONDS
    for number in range(first, first + count):
        data = b"%020d" % number
        digest = blake3(data).digest()
        path = layout.blob(digest)
        layout.folder("blobs", digest.hex()[:2], make=True).close()
        with open(path, "wb") as file:  # noqa: PTH123 - text, a hundred thousand times
            file.write(data)
        os.utime(path, (old, old))
        yield ArtifactRef(int(Place.BLOB), int(Encoding.BYTES), "bytes", 20, digest, "", 0, b"")


def build(store: Path) -> None:
    """A run whose tasks have half of the blobs; the others are nobody's."""
    layout = Layout.open(store, create=True)
    run = RunWriter(store, "Wide", "1700000000000000", GRAPH)
    run.succeed(run.start("start"), fanout=BLOBS // 2)
    for index, ref in enumerate(write_blobs(layout, BLOBS // 2)):
        run.succeed(run.start("train", (index,)), refs={"value": ref})
    run.run("join")
    run.run("end")
    run.finish()
    for _ in write_blobs(layout, BLOBS // 2, first=BLOBS // 2):
        pass


def by_hand(folder: Path) -> int:
    """Look at every file of another such folder, and delete every second."""
    count = 0
    for shard in os.scandir(folder):
        for entry in os.scandir(shard.path):
            entry.stat()
            count += 1
            if count % 2:
                os.unlink(entry.path)  # noqa: PTH108 - text, as a collection does it
    return count


def seconds(call: Callable[[], object]) -> float:
    """How long it takes, once: it can be done once only."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    """Build, verify, collect, and print."""
    with tempfile.TemporaryDirectory() as folder:
        store, other = Path(folder, "store"), Path(folder, "other")
        build(store)
        for _ in write_blobs(Layout.open(other, create=True), BLOBS):
            pass
        layout = Layout.open(store, create=False)
        hand = seconds(lambda: by_hand(other / "blobs"))
        verified = seconds(lambda: verify(layout))
        dry = seconds(lambda: collect(layout, dry_run=True))
        begin = time.perf_counter()
        collected = collect(layout)
        took = time.perf_counter() - begin
        if (collected.blobs.files, collected.kept.files) != (BLOBS // 2, BLOBS // 2):
            sys.exit(f"wrong: {collected}")
        again = seconds(lambda: collect(layout))
    verdict = "ok" if took < LIMIT_SECONDS else "TOO SLOW"
    print(f"gc of {BLOBS:,} blobs, half of them needed: {took:.2f} s, {verdict}")
    print(f"… by hand, knowing which: {hand:.2f} s, ratio {took / hand:.1f}")
    print(f"… only counted, with --dry-run: {dry:.2f} s; with nothing left to do: {again:.2f} s")
    print(f"verify of the same store before: {verified:.2f} s")


if __name__ == "__main__":
    main()
