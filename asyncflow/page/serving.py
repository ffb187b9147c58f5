"""Serves the page by itself, as `asyncflow ui` does."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncflow._support.locations import absolute_location
from asyncflow.errors import NotInstalledError, SettingsError
from asyncflow.page.guard import LOOPBACK_NAMES, HostNames, Token
from asyncflow.page.launching import CommandLauncher
from asyncflow.page.mounting import application
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.page.routes import Options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PORT: Final = 8265
_CUT: Final = "timeout graceful shutdown exceeded"
_LEAST_TOKEN: Final = 16  # characters
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - refused without a token file


@dataclass(frozen=True, slots=True)
class PageAddress:
    """Where the page is served, and to whom."""

    host: str = "127.0.0.1"
    port: int = PORT
    """0 for any that is free."""
    token_file: Path | None = None


def serve(
    store: str, address: PageAddress, *, read_only: bool, announce: Callable[[str], object]
) -> None:
    """Serve the page until the process gets SIGINT or SIGTERM; `announce` gets its address.

    Raises:
        NotInstalledError: uvicorn is missing.
        SettingsError: The address cannot be used, or must not be without a token file.
        StoreError: There is no store, or it cannot be read.
    """
    try:
        import uvicorn

        from asyncflow.page.connections import PageConnection
    except ModuleNotFoundError as missing:
        message = 'the page needs uvicorn: pip install "asyncflow-engine[ui]"'
        raise NotInstalledError(message) from missing
    token, shown = _token(address)
    opened = OpenedRuns(str(absolute_location(store)))
    hosts = HostNames([address.host], every_address=address.host in _EVERYWHERE)
    launcher = None if read_only else CommandLauncher(opened)
    options = Options(read_only=read_only, launcher=launcher)
    app = application(opened, options, token=token, hosts=hosts)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # a browser that watches a run would hold up the end
        http=PageConnection,
        lifespan="off",
    )
    with _listening(address) as listener:
        port = listener.getsockname()[1]
        name = f"[{address.host}]" if ":" in address.host else address.host
        announce(f"http://{name}:{port}/{shown}")
        log = logging.getLogger("uvicorn.error")
        log.addFilter(_is_no_end)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            log.removeFilter(_is_no_end)


def _is_no_end(record: logging.LogRecord) -> bool:
    """Whether a message is about anything but requests that are cut because the server ends.

    Each page that watches a run has one, and nobody is to look at a traceback after Ctrl-C.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError) and _CUT not in str(record.msg)


def _listening(address: PageAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"the page cannot be served at {address.host}, port {address.port}: {reason}"
        raise SettingsError(message) from error


def _token(address: PageAddress) -> tuple[Token, str]:
    """The token, and how it stands in the first address."""
    if address.token_file is not None:
        return Token(_read_token(address.token_file)), "?token=…"
    if address.host not in LOOPBACK_NAMES:
        message = (
            f"{address.host} is reached by other machines: name a file that has a secret with "
            "--token-file, or leave out --host"
        )
        raise SettingsError(message)
    text = secrets.token_urlsafe(24)
    return Token(text), f"?token={text}"


def _read_token(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        text = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        message = f"the token file {file} cannot be read: {error}"
        raise SettingsError(message) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"others may read the token file {file}: chmod 600 {file}"
        raise SettingsError(message)
    if len(text) < _LEAST_TOKEN:
        message = f"the token in {file} is to have at least {_LEAST_TOKEN} characters"
        raise SettingsError(message)
    return text
