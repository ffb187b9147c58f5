"""Processes are killed at each place where durable state changes; see `tests/durability/chaos`."""

from __future__ import annotations

import pytest

from tests.durability.chaos.killing import Fault, close_nurseries, everything, kill, points_in_code
from tests.durability.chaos.scenarios import SCENARIOS


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left():
    """Other tests count the processes of this one."""
    yield
    close_nurseries()


ROLES = {
    "blob": "worker",
    "card": "worker",
    "segment": "worker",
    **dict.fromkeys(("gc", "rm", "bounds", "update"), "gc"),
}
"""Who comes by the points whose names begin so; the engine's process by all others."""

SAMPLED = {
    "blob.sync": ("power", 1),
    "segment.sync": ("power", 2),
    "segment.synced": ("power", 1),
    "segment.append": ("nested", 1),
    "segment.appended": ("async", 2),
    "card.tell": ("cards", 2),
    "card.told": ("cards", 2),
    "card.kept": ("cards", 1),
    "inputs.spill": ("join", 1),
    "inputs.spilled": ("join", 1),
    "journal.append": ("stream", 4),
    "journal.appended": ("timeout", 4),
    "journal.sync": ("branch", 1),  # how often it comes by depends on how busy the machine is
    "journal.synced": ("retry", 1),
    "journal.close": ("cancel", 1),
    "mailbox.act": ("message", 1),
    "key.write": ("message", 1),
    "key.written": ("message", 1),
    "limit.create": ("limit", 1),
    "limit.link": ("limit", 2),
    "bounds.set": ("gc", 1),
    "update.begin": ("gc", 1),
    "update.synced": ("gc", 1),
    "run.begun": ("resume", 1),
    "run.ended": ("catch", 1),
    "run.end": ("cancel", 1),
    "file.rename": ("foreach", 2),
    "blob.renamed": ("early", 1),
    **{point: ("gc", 1) for point in points_in_code() if point.startswith(("gc.", "rm."))},
}
"""In which scenario each point is tried, and at which hit; in `linear`, at the first, if not here.

`make chaos` tries every point in every scenario that comes by it. A commit point that is new and
that `linear` does not reach fails until it has a line here, and a scenario.
"""


def sample():
    """One kill at each commit point, from inside and from outside in turn."""
    cases = []
    for number, point in enumerate(sorted(points_in_code())):
        scenario, hit = SAMPLED.get(point, ("linear", 1))
        role = ROLES.get(point.partition(".")[0], "engine")
        cases.append((scenario, Fault(role, point, hit, ("exit", "kill")[number % 2])))
    return cases


@pytest.mark.parametrize(("scenario", "fault"), sample(), ids=str)
def test_whoever_dies_at_a_commit_point_loses_nothing(scenario, fault):
    """The store opens, what was announced is there and is not run again, a resume completes."""
    assert kill(scenario, fault).died, f"{scenario} does not come by {fault.point}: see SAMPLED"


def test_every_scenario_is_in_the_sample():
    """What `make test` tries is a little of everything."""
    assert {scenario for scenario, _ in sample()} == set(SCENARIOS)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whoever_dies_anywhere_loses_nothing(scenario):
    """The same at every point that the scenario comes by, at its first, second and last hit."""
    everything([scenario], at_once=1)
