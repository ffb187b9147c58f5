"""Hosts on one machine: each has a network, processes, mounts and a name of its own.

They are network namespaces on a bridge. A command on a host runs in an empty folder, which stands
in the place of a folder that other hosts have, too, as do `/tmp` and `/dev/shm`. So hosts share the
installed code and nothing else. That needs root, and `ip` and `unshare`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_SETUP: Final = """
hostname "$0"
for folder in /tmp /dev/shm "$1"; do mkdir -p "$folder"; mount -t tmpfs none "$folder"; done
cd "$1"; shift
while [ "$1" != -- ]; do printf %s "$2" > "$1"; shift 2; done
shift
exec "$@"
"""


def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    if os.geteuid():
        return "network namespaces need root"
    missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} cannot be found"
    try:
        with Network():
            return ""
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made: {error.stderr.decode().strip()}"


class Network:
    """A bridge, and the hosts on it; for a `with` block, at whose end they are gone."""

    def __init__(self) -> None:
        self._name = f"af{os.getpid()}"
        self._hosts: list[Host] = []
        self._part = f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.address = f"{self._part}.1"
        """The address of this machine, for the hosts."""

    def __enter__(self) -> Self:
        _ip("link", "add", self._name, "type", "bridge")
        try:
            _ip("addr", "add", f"{self.address}/24", "dev", self._name)
            _ip("link", "set", self._name, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            host.close()
        with suppress(subprocess.CalledProcessError):
            _ip("link", "del", self._name)

    def add_host(self, name: str) -> Host:
        """One more host, of this name."""
        number = len(self._hosts) + 11
        self._hosts.append(host := Host(name, self._name, number, f"{self._part}.{number}"))
        return host

    def __repr__(self) -> str:
        return f"<Network {self.address}: {len(self._hosts)} hosts>"


class Host:
    """One of them."""

    def __init__(self, name: str, bridge: str, number: int, address: str) -> None:
        self.name, self.address = name, address
        self._space, self._link = f"{bridge}-{number}", f"{bridge}v{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self._space)
        inside = ("netns", "exec", self._space, "ip")
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._space)
        _ip("link", "set", self._link, "master", bridge, "up")
        _ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")

    def start(
        self,
        *command: str,
        folder: Path,
        log: Path,
        files: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command in an empty folder that hides this one; `files` are made there."""
        made: Sequence[str] = [part for pair in (files or {}).items() for part in pair]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self._space),
                    *("unshare", "-m", "-u", "-p", "-f", "--mount-proc", "--kill-child"),
                    *("sh", "-ec", _SETUP, self.name, str(folder), *made, "--", *command),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(variables or {}), "TMPDIR": "/tmp"},  # noqa: S108 - each host has a /tmp of its own
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """What runs there now."""
        found = []
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(process.pid).children(recursive=True)
        return found

    def cut(self) -> None:
        """Take its link down: nobody reaches it, and it reaches nobody."""
        _ip("link", "set", self._link, "down")

    def kill(self) -> None:
        """Have everything on it end at once."""
        for process in self._processes:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Remove it. Harmless when repeated."""
        self.kill()
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self._space)
        with suppress(subprocess.CalledProcessError):  # it goes with its other end, a moment later
            _ip("link", "del", self._link)

    def __repr__(self) -> str:
        return f"<Host {self.name} at {self.address}>"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
