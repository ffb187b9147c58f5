"""What artifacts cost: a large array through three steps, small values, and the store's thresholds.

Each number is the best of several, and ratios are between numbers of the same run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from asyncflow import codec
from asyncflow.store.artifacts import (
    BLOB_BYTES,
    INLINE_BYTES,
    ArtifactReader,
    ArtifactWriter,
)
from asyncflow.store.blobs import BlobStore, verified
from asyncflow.store.folders import Folder
from asyncflow.store.local_store import LocalStore
from asyncflow.store.segments import SegmentWriter

if TYPE_CHECKING:
    from collections.abc import Callable

ARRAY_BYTES = 256 << 20
LIMIT = 1.2  # of two plain writes and hashes, for making, reading and changing the array
ROUNDS = 5


class Bench:
    """A store that lives as long as the benchmark, with one run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = LocalStore.open(root / "store", create=True)
        self.run_id = self.layout.create_run("Bench")
        self.writer = ArtifactWriter(self.layout.run("Bench", self.run_id).value_sink("w1"))
        self.reader = ArtifactReader(self.layout.value_source("Bench"))

    def forget(self) -> None:
        """From here on every value is read as another worker would read it."""
        verified.clear()

    def delete_blobs(self) -> None:
        """From here on every value is new to the store."""
        shutil.rmtree(self.layout.blobs, ignore_errors=True)
        verified.clear()


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def microseconds(call: Callable[[], object], repeat: int) -> float:
    """How long one call takes at best, in microseconds."""
    return min(
        seconds(lambda: [call() for _ in range(repeat)]) / repeat * 1e6 for _ in range(ROUNDS)
    )


# --- a large array ----------------------------------------------------------------------------


def plain(array: np.ndarray[Any, Any], path: Path) -> float:
    """Hash the array on one thread and write it to a new file: the least that anybody would do."""
    path.unlink(missing_ok=True)
    start = time.perf_counter()
    data = memoryview(array.data).cast("B")
    blake3(data).digest()
    with path.open("wb", buffering=0) as file:
        done = 0
        while done < len(data):
            done += file.write(data[done:]) or 0
    return time.perf_counter() - start


def three_steps(
    bench: Bench, array: np.ndarray[Any, Any], change: Callable[[Any], object]
) -> dict[str, float]:
    """The seconds to make, read and change an array, each in another worker."""
    bench.delete_blobs()
    start = time.perf_counter()
    ref = bench.writer.put(array)
    made = time.perf_counter()
    bench.forget()
    loaded = bench.reader.load(ref)
    loaded_at = time.perf_counter()
    loaded.note()
    if loaded.changed() is not None:
        raise RuntimeError("an array that was only read is called changed")
    read = time.perf_counter()
    bench.forget()
    loaded = bench.reader.load(ref)
    loaded.note()
    change(loaded.value)
    changed = loaded.changed()
    if changed is None:
        raise RuntimeError("an array that was written to is called unchanged")
    bench.writer.put_encoded(changed)
    end = time.perf_counter()
    return {
        "made": made - start,
        "read": loaded_at - made,
        "not changed": read - loaded_at,
        "changed": end - read,
        "all": end - start,
    }


def set_one(array: Any) -> None:
    """A change of one page."""
    array[0] += 1


def set_all(array: Any) -> None:
    """A change of every page: the kernel copies each of them first."""
    array += 1


def large_array(bench: Bench) -> None:
    """A 256 MiB array made in one step, read in the next, changed in the third."""
    print(f"{ARRAY_BYTES >> 20} MiB array, three steps in three workers")
    array = np.random.default_rng(1).integers(0, 255, ARRAY_BYTES // 8)
    twice = min(2 * plain(array, bench.root / "plain") for _ in range(ROUNDS))
    (bench.root / "plain").unlink()
    print(f"  two plain writes and hashes     {twice:7.3f} s")
    for name, change in (("one element", set_one), ("all of it", set_all)):
        rounds = (three_steps(bench, array, change) for _ in range(ROUNDS))
        steps = min(rounds, key=lambda each: each["all"])
        parts = ", ".join(f"{part} {taken:.3f}" for part, taken in steps.items() if part != "all")
        print(f"  changing {name:<12}           {steps['all']:7.3f} s   {parts}")
        print(f"    ratio, at most {LIMIT}              {steps['all'] / twice:7.2f}")
    bench.delete_blobs()


# --- small values -----------------------------------------------------------------------------


def small_value(bench: Bench, value: object) -> list[float]:
    """The microseconds to encode, to put, to load, to note, and to see that it is unchanged."""
    ref = bench.writer.put(value)
    loaded = bench.reader.load(ref)
    loaded.note()
    calls: list[Callable[[], object]] = [
        lambda: codec.encode(value),
        lambda: bench.writer.put(value),
        lambda: bench.reader.load(ref),
        loaded.note,
        loaded.changed,
    ]
    return [microseconds(call, 2000) for call in calls]


def small_values(bench: Bench) -> None:
    """What a task pays for each small artifact, without and with the store."""
    print("small values, µs each          encode      put     load     note unchanged")
    values = {
        "int": 7,
        "dict of settings": {"alpha": 0.1, "layers": [64, 64], "name": "adam"},
        "2,000 characters": "x" * 2000,
        "20 KiB bytes": os.urandom(20 << 10),
        "20 KiB array": np.arange(2560.0),
    }
    for name, value in values.items():
        costs = small_value(bench, value)
        print(f"  {name:<26}" + "".join(f"{cost:9.2f}" for cost in costs))
    count, ref = bench.writer.put_items(range(10_000))
    stored = microseconds(lambda: bench.writer.put_items(range(10_000)), 3) / count
    print(f"  foreach over 10,000 integers: {stored:.2f} each to store, ", end="")
    print(f"{microseconds(lambda: bench.reader.load_item(ref, 5000), 2000):.2f} to read one")


# --- thresholds -------------------------------------------------------------------------------


def threshold(blobs: BlobStore, segment: SegmentWriter, size: int) -> dict[str, float]:
    """The microseconds to store that many new bytes in one way and the other."""
    data = bytearray(os.urandom(size))

    def as_blob() -> None:
        data[:8] = time.perf_counter_ns().to_bytes(8, "little")  # else it is there already
        blobs.put_new([data], size)

    def as_segment() -> None:
        codec.digest(data)
        segment.append([data])

    repeat = max(20, min(500, (16 << 20) // size))
    calls: dict[str, Callable[[], object]] = {
        "segment": as_segment,
        "blob": as_blob,
        "hash alone": lambda: codec.digest(data),
    }
    return {name: microseconds(call, repeat) for name, call in calls.items()}


def thresholds(bench: Bench) -> None:
    """An append against a file of its own, and a ref with its data against an append."""
    print(f"thresholds: inline up to {INLINE_BYTES}, blob from {BLOB_BYTES}; µs to write")
    blobs = BlobStore(bench.layout)
    path = bench.root / "thresholds.seg"
    segment = SegmentWriter(path, partial(Folder.open, os.fspath(bench.root)))
    for size in (256, 1024, 4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20):
        costs = threshold(blobs, segment, size)
        told = ", ".join(f"{name} {cost:8.1f}" for name, cost in costs.items())
        print(f"  {size:>8} bytes: {told}")
        bench.delete_blobs()
    segment.close()


def main() -> None:
    """Run all of it, and print what it found."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-artifacts-") as root:
        bench = Bench(Path(root))
        large_array(bench)
        small_values(bench)
        thresholds(bench)
        bench.writer.close()


if __name__ == "__main__":
    main()
