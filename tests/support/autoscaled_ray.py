"""A Ray cluster whose nodes come and go with what waits, all on this machine.

Its autoscaler is Ray's second one, and the provider that starts nodes as processes is Ray's as well
(`FakeMultiNodeProvider`). `ray.cluster_utils.AutoscalingCluster` is no use here: it ends all
processes of Ray on the machine first, and its defaults are not in the wheel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.support.dask_processes import RUN_TO_THE_END

_PROVIDER: Final = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_HEAD: Final = "f" * 51 + "00000"  # as the provider calls it
_COMMANDS: Final = (
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
)
_MB: Final = 1_000_000
_START_SECONDS: Final = 120.0
ENVIRONMENT: Final = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class AutoscaledRay:
    """A head without room for workers, and an autoscaler that may add so many nodes of one CPU."""

    def __init__(self, *, most: int) -> None:
        """Start it."""
        # The paths of its sockets have to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        """Where the head is."""
        config = self._folder / "config.json"
        config.write_text(json.dumps(self._config(most)))
        self.log: Final = self._folder / "log"
        """What its head has printed."""
        environment = {
            **ENVIRONMENT,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD,
            "RAY_CLOUD_INSTANCE_ID": _HEAD,
        }
        options = (
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--object-store-memory={80 * _MB}",
            f"--temp-dir={self._folder / 'ray'}",
            f"--autoscaling-config={config}",
            "--block",
        )
        with self.log.open("wb") as log:
            self._head = psutil.Popen(
                [sys.executable, "-c", RUN_TO_THE_END, "ray.scripts.scripts", "start", *options],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.address = f"{self._wait()}:{port}"  # it does not listen on the loopback

    def _config(self, most: int) -> dict[str, object]:
        small = {"CPU": 1, "object_store_memory": 80 * _MB}
        return {
            "cluster_name": "simulated",
            "max_workers": most,
            "upscaling_speed": 10.0,
            "idle_timeout_minutes": 0.05,
            "provider": {
                "type": "external",
                "module": _PROVIDER,
                "head_node_id": _HEAD,
                "gcs_address": self.address,
                "launch_multiple": True,
                "disable_node_updaters": True,  # it would log in to each node
                "disable_launch_config_check": True,
            },
            "auth": {"ssh_user": "nobody"},
            **{f"{what}_commands": [] for what in _COMMANDS},
            "file_mounts": {},
            **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
            "file_mounts_sync_continuously": False,
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "small": {
                    "resources": small,
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": most,
                },
            },
        }

    def _wait(self) -> str:
        """Wait until it is up; return its IP address, as it tells it."""
        until = time.monotonic() + _START_SECONDS
        while True:
            text = self.log.read_text()
            told = re.search(r"Local node IP: (\S+)", text)
            if told is not None and "will now block forever" in text:
                return told[1]
            if time.monotonic() > until or self._head.poll() is not None:
                raise AssertionError(text)
            time.sleep(0.1)

    def close(self) -> None:
        """End all of its processes."""
        processes = []
        with suppress(psutil.NoSuchProcess):
            processes = self._head.children(recursive=True)
            self._head.terminate()  # then it ends those that it has started
        self._head.wait()
        _, alive = psutil.wait_procs(processes, timeout=5)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __repr__(self) -> str:
        return f"<AutoscaledRay at {self.address}>"
