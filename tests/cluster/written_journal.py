"""Writes a run into an object store step by step, and dies at a commit point if it is told to.

`python -m tests.cluster.written_journal URL` reads lines `POINT HIT` and carries out `write` in a
forked process for each, which dies when it reaches that point for that time. What was announced
until then is printed as JSON, with the names of all points that were reached.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncflow._support import commit_points
from asyncflow.store import open_store
from asyncflow.store.frames import frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.store.interface import RunStore

DEAD = 7
"""The exit status of a process that has died where it was to."""
RECORDS = 4


def write(url: str, *, durable: bool, tell: Callable[[str, Any], object]) -> None:
    """Begin two runs, end one of them as a resume does, and finish the other.

    `tell` is called with `run` and an id, with `record` and the number of a record that may be
    announced now, with `ended` and with `finished`.
    """
    store = open_store(url, create=True)
    try:
        _write(store, durable=durable, tell=tell)
    finally:
        store.close()


def _write(store: RunStore, *, durable: bool, tell: Callable[[str, Any], object]) -> None:
    old = store.make_run("Old")
    journal = old.begin_journal()
    try:
        journal.write(frame(b"record 0"))
        journal.deliver()
        old.end_writing()
    finally:
        journal.close()
    tell("ended", old.run_id)
    run = store.make_run("F")
    journal = run.begin_journal(durable=durable)
    tell("run", run.run_id)
    try:
        for number in range(RECORDS):
            journal.write(frame(b"record %d" % number))
            tell("record", number)
        journal.deliver()
        run.put_file("index", b"index")
        run.update_file("tags", lambda data: data + b"tag", most=100)
        tell("finished", run.run_id)
    finally:
        journal.close()


def _serve(url: str) -> None:
    for line in sys.stdin:
        point, hit = line.split()
        reading, writing = os.pipe()
        child = os.fork()  # before anything has used the store: see `Objects`
        if child == 0:
            os.close(reading)
            _die_at(point, int(hit), url, writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = [json.loads(line) for line in pipe]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, told]), flush=True)


def _die_at(point: str, hit: int, url: str, writing: int) -> None:
    reached: Counter[str] = Counter()

    def tell(what: str, value: Any) -> None:
        os.write(writing, json.dumps([what, value]).encode() + b"\n")

    def watch(name: str) -> None:
        reached[name] += 1
        if (name, reached[name]) == (point, hit):
            os._exit(DEAD)

    commit_points.watcher = watch
    status = 1
    try:
        write(url, durable=False, tell=tell)
        tell("reached", reached)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
