"""What the first of Ray's autoscalers tells of itself; `tests/cluster` has the second one."""

from __future__ import annotations

import json

import pytest

from asyncflow.workers.cluster.ray_autoscaler import is_adding


@pytest.mark.parametrize(
    ("report", "adds"),
    [
        (None, False),
        ({"pending_nodes": [], "pending_launches": {}}, False),
        ({"pending_nodes": [["f00001", "small", "uninitialized"]]}, True),
        ({"pending_nodes": [], "pending_launches": {"small": 2}}, True),
        ({"node_availability_summary": {"node_availabilities": {"small": {}}}}, True),
        ({"node_availability_summary": {"node_availabilities": {}}}, False),
    ],
)
def test_the_first_autoscaler_is_waited_for_while_it_adds_nodes(report, adds):
    """Or while it tries to. Its status tells nothing of what it could never add."""
    assert is_adding(json.dumps({"autoscaler_report": report}).encode()) is adds
