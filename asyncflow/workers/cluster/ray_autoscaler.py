"""Whether the autoscaler of a Ray cluster may add a node for a request.

Ray has two autoscalers. The second one tells which requests no kind of node could hold, as far as
it may add nodes. The first one tells what it is about to add. A cluster that nobody scales answers
as one whose autoscaler has no kind of node.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS: Final = b"__autoscaling_status"  # where the first autoscaler writes what it does
_ROUNDING: Final = 1e-3  # Ray counts in parts of 10,000


def may_come(gcs_address: str, need: Mapping[str, float]) -> bool:
    """Whether a node may come that has so much of each resource, as Ray names and counts them."""
    try:
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

        client = import_module("ray._raylet").GcsClient(gcs_address)  # it is compiled
        reply = GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=10))
        state = reply.autoscaling_state
        if not state.autoscaler_state_version:
            return is_adding(client.internal_kv_get(_STATUS, None, timeout=10) or b"{}")
        refused = [dict(each.resources_bundle) for each in state.infeasible_resource_requests]
    except Exception as error:  # noqa: BLE001 - the interface is Ray's own, and may change
        log.warning("cannot tell whether the Ray cluster is autoscaled", error=repr(error))
        return True
    return not any(_are_alike(each, need) for each in refused)


def is_adding(status: bytes) -> bool:
    """Whether the first autoscaler is about to add nodes, or tries to, according to its status."""
    report: Mapping[str, Any] = json.loads(status).get("autoscaler_report") or {}
    summary = report.get("node_availability_summary") or {}
    tried = summary.get("node_availabilities")  # kinds of nodes that it has tried to get of late
    return bool(report.get("pending_nodes") or report.get("pending_launches") or tried)


def _are_alike(refused: Mapping[str, float], need: Mapping[str, float]) -> bool:
    """Whether these are the same amounts of the same resources."""
    if refused.keys() != need.keys():
        return False
    return all(abs(refused[name] - need[name]) <= _ROUNDING * need[name] for name in need)
