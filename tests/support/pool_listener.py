"""Who listens to a pool of workers in tests, and a pool that ends with its test."""

from __future__ import annotations

from contextlib import asynccontextmanager

import psutil

from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.messages import GaveBack, Ready


class Listener:
    """Keeps what the pool tells."""

    def __init__(self):
        self.exits, self.reports, self.broken, self.stopped = [], [], [], []
        self.ready = []
        self.rooms = 0

    def on_reports(self, worker, reports):
        self.ready += [worker for report in reports if isinstance(report, Ready)]
        self.reports += [report for report in reports if not isinstance(report, Ready)]

    @property
    def given_back(self):
        return [report.key.task for report in self.reports if isinstance(report, GaveBack)]

    def on_exit(self, worker, how):
        self.exits.append((worker, how))

    def on_room(self):
        self.rooms += 1

    def on_refused(self, kind, error):
        raise error

    def on_broken(self, error):
        self.broken.append(error)

    def on_stopped(self, worker, how):
        self.stopped.append((worker, how))

    def on_continued(self, worker):
        self.stopped.append((worker, ""))


@asynccontextmanager
async def opened_pool(listener, scratch):
    """A pool of two workers that has been started; nothing of it is left behind the block."""
    opened = WorkerPool(listener, size=2, scratch=scratch)
    await opened.start()
    yield opened
    await opened.close()
    assert not psutil.Process().children(recursive=True)
