"""Stores whose checksums are right and whose content is not.

One case again: `python -m tests.durability.chaos.nonsense SEED`.

One field of one record, summary, ref or manifest is another one: of another type, out of range,
missing, nested, or one too many. Every command that looks has to answer, or to say what is wrong in
an error of its own: never with a traceback, never with more memory than the files account for,
and never by running what a store holds.
"""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
import sys
import tempfile
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any, Final

import msgpack

import asyncflow.cli.limit_commands
import asyncflow.cli.look_commands
import asyncflow.cli.store_commands
import asyncflow.cli.tables
import asyncflow.cli.tag_commands
import asyncflow.store.maintenance.remove
import asyncflow.store.maintenance.verify  # noqa: F401 - here, once, and not in each child
from asyncflow.cli.command_table import invoke
from asyncflow.events.manifests import pack_manifest, unpack_manifest
from asyncflow.events.records import REFERRING, fields_of
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.values import Place

MANIFEST_AT: Final = {1: 6, 4: 7, 5: 15, 7: 7, 11: 7}  # as docs/reference/events.md has it
GOLDEN: Final = Path(__file__).parents[2] / "compatibility" / "golden" / "0.1"
FLOW: Final = "GoldenFlow"
CASES: Final = 400
MEMORY_BYTES: Final = 1 << 30  # of address space, beside what the process has already
DEPTH: Final = 3  # of nested values in which one is changed

WRONG: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1, 1 << 31, (1 << 32) - 1, 1 << 33, (1 << 62) + 1, (1 << 64) - 1),
    *(0.5, -1.0, float("nan"), float("inf"), 1e300),
    *("", "x", "paused", "../../x", "\x1b]0;owned\x07", "9" * 400, b"", b"x", b"\xc1", b"\x93"),
    *([], [[]], [1 << 40], ["x"], {}, {"x": {}}, {"x": b"\xff"}),
    msgpack.ExtType(5, b"x"),
]
NESTED: Final = b"\x91" * 900 + b"\xc0"
LONG: Final = b"\xdd\x7f\xff\xff\xff"


class Canary:
    """What leaves a mark if somebody unpickles it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def plant(store: Path) -> None:
    """Have each inline value of the store leave a mark where it is unpickled."""
    data = pickle.dumps(Canary())
    for path in (store / "flows" / FLOW).glob("[0-9]*/journal"):
        with JournalReader(path) as journal:
            records = [fields_of(record) for _, record, _ in journal.read_from()]
        for values in records:
            if values[0] in REFERRING:
                at = MANIFEST_AT[values[0]]
                refs = unpack_manifest(values[at])
                for name, ref in refs.items():
                    if ref.place == Place.INLINE:
                        refs[name] = ref._replace(size=len(data), data=data)
                values[at] = pack_manifest(refs)
        path.write_bytes(HEADER + b"".join(frame(msgpack.packb(values)) for values in records))
        path.with_name("summary").unlink()


def changed(value: Any, random: Random, depth: int = DEPTH) -> Any:
    """The value with one thing in it, or the whole of it, replaced."""
    if depth and random.random() < 0.7:
        if isinstance(value, list) and value:
            at = random.randrange(len(value))
            within = [changed(value[at], random, depth - 1)]
            longer = [*value, random.choice(WRONG)]
            kinds = [value[:at], longer, *[[*value[:at], *within, *value[at + 1 :]]] * 6]
            return random.choice(kinds)
        if isinstance(value, dict) and value:
            name = random.choice(list(value))
            return {**value, name: changed(value[name], random, depth - 1)}
        if isinstance(value, bytes) and value:
            try:
                within = msgpack.unpackb(value, strict_map_key=False)
            except ValueError:
                return random.choice(WRONG)
            return msgpack.packb(changed(within, random, depth - 1))
    return random.choice(WRONG)


def spoil(store: Path, random: Random) -> str:
    """Change one thing in a store; what it was."""
    runs = sorted(path for path in (store / "flows" / FLOW).glob("[0-9]*"))
    run = random.choice(runs)
    if random.random() < 0.3 and (run / "summary").exists():
        return _spoil_summary(run / "summary", random)
    with JournalReader(run / "journal") as journal:
        records = [record for _, record, _ in journal.read_from()]
    at = random.randrange(len(records))
    kind = random.randrange(12)
    if kind == 0:
        record = random.choice([b"", NESTED, LONG, LONG * 900, b"\x80", records[at][:-1]])
    else:
        values = changed(msgpack.unpackb(records[at], strict_map_key=False), random)
        record = msgpack.packb(values)
    before, records[at] = records[at], record
    (run / "journal").write_bytes(HEADER + b"".join(map(frame, records)))
    if random.random() < 0.6:
        (run / "summary").unlink(missing_ok=True)
    return f"record {at} of {run.name}: {before[:60]!r} became {record[:60]!r}"


def _spoil_summary(path: Path, random: Random) -> str:
    values = changed(msgpack.unpackb(path.read_bytes()[8:]), random)
    path.write_bytes(frame(msgpack.packb(values)))
    return f"the summary of {path.parent.name} became {values!r:.200}"


def spoil_tags(store: Path, random: Random) -> str:
    """Give a run nonsense as changed tags; what it is."""
    run = random.choice(sorted((store / "flows" / FLOW).glob("[0-9]*")))
    values = changed([1, ["a", "b"]], random)
    (run / "tags").write_bytes(frame(msgpack.packb(values)))
    return f", and the tags of {run.name} {values!r:.200}"


def commands(store: Path, random: Random) -> list[list[str]]:
    """All that look, and those that would change something, told not to."""
    runs = [path.name for path in (store / "flows" / FLOW).glob("[0-9]*")]
    run = f"{FLOW}/{random.choice(runs)}"
    return [
        ["runs"],
        ["runs", "--json"],
        ["verify"],
        ["gc", "--dry-run"],
        ["rm", "--flow", FLOW, "--keep-last", "1", "--dry-run"],
        ["limit", "list"],
        ["tag", "list", "--all"],
        ["tag", "list", "--run-id", run, "--json"],
        ["show", FLOW],
        *([command, each] for each in [f"{FLOW}/{name}" for name in runs] for command in ("show",)),
        ["show", run, "--json"],
        ["show", f"{run}/work"],
        ["show", f"{run}/work/2"],
        ["events", run],
        ["events", run, "--json"],
        ["logs", run],
        ["logs", f"{run}/work/2"],
    ]


def check(seed: int) -> None:
    """One spoilt store; every command answers.

    Raises:
        AssertionError: One did not.
    """
    random = Random(seed)
    with tempfile.TemporaryDirectory(prefix="asyncflow-nonsense-") as folder:
        store = Path(folder) / "store"
        shutil.copytree(GOLDEN, store)
        if seed % 4 == 0:
            plant(store)
        what = spoil(store, random)
        if seed % 4 == 1:
            what += spoil_tags(store, random)
        for command in commands(store, random):
            said = _answered_apart([*command, "--store", str(store)], folder)
            assert not said, f"seed {seed}: {what}: {' '.join(command)}: {said}"
        assert not (Path(folder) / "unpickled").exists(), f"seed {seed}: {what}: something ran"


def _answered_apart(command: list[str], folder: str) -> str:
    """In a process of its own, with so much memory: what went wrong, if anything."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        try:
            os.chdir(folder)
            said = _answer(command)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            said = traceback.format_exc()
        os.write(sending, said[-4000:].encode("utf-8", "replace"))
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def _answer(command: list[str]) -> str:
    with Path("/proc/self/statm").open() as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES,) * 2)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = invoke(command)
    if status and not any(word in said.getvalue() for word in ("Error: ", "Damaged: ")):
        return f"status {status} without a word"
    if "not enough memory" in said.getvalue():
        return said.getvalue()
    return ""


def everything() -> str:
    """All seeds."""
    for seed in range(CASES):
        check(seed)
    return f"{CASES} stores with right checksums and wrong content"


if __name__ == "__main__":
    check(int(sys.argv[1]))
