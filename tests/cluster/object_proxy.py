"""An HTTP proxy before an object store's server, as a process of its own.

It delays requests, counts them by kind, and has the n-th of a kind fail in one of several ways. A
test starts one as an `ObjectProxy`.

    client ── proxy ── moto's server
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTROL: Final = "/-proxy"  # no bucket can have this name
_LIMIT: Final = 1 << 20  # of a head
_KEPT_REQUESTS: Final = 100_000

_QUOTED: Final = re.compile(rb'(?i)\r\nif-match: *"')
_BARE: Final = re.compile(rb"(?i)(\r\nif-match: *)([^\r]+)")

WAYS: Final = ("refused", "cut", "half", "409", "503", "500", "silent")
"""How a request can fail:

`refused`  the connection ends, and nothing was done
`cut`      it was done, and the connection ends before the answer
`half`     it was done, and the connection ends within the answer's body
`409`, `503`, `500`  nothing was done, and the answer has this status
`silent`   it was done, and no answer comes
"""


class Request(NamedTuple):
    """A request that a proxy has seen."""

    kind: str
    """`get`, `head`, `list`, `put`, `part`, `begin`, `complete`, `abort`, `delete` or `copy`."""
    key: str
    """Bucket and key."""


@dataclass(frozen=True)
class Fault:
    """Some requests that fail."""

    way: str
    """One of `WAYS`."""
    at: int = 1
    """The first of them, counted from 1 among those that it concerns."""
    times: int = 1
    """How many fail, from that on."""
    kinds: Sequence[str] = ()
    """The kinds that it concerns; all if empty."""
    within: str = ""
    """It concerns only keys with this text."""


@dataclass(frozen=True)
class Setup:
    """What a proxy does with requests."""

    delay: float = 0.0
    """Seconds that each of them waits."""
    faults: Sequence[Fault] = field(default_factory=tuple)
    without: Sequence[str] = ()
    """Names of headers that are taken away, in small letters."""
    bare_etags: bool = False
    """Whether `If-Match` of a put has an ETag without its quotes, as for Ceph 16; no other fits."""


class ObjectProxy:
    """A proxy before the server at this port of this machine; use it in a `with` block."""

    def __init__(self, server: str) -> None:
        port = urlsplit(server).port
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.object_proxy", str(port)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,  # it ends with it
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        """Where it is."""
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def set(
        self,
        *faults: Fault,
        delay: float = 0.0,
        without: Sequence[str] = (),
        bare_etags: bool = False,
    ) -> None:
        """From now on handle requests so; forget those that were counted."""
        self._ask("set", json.dumps(asdict(Setup(delay, faults, without, bare_etags))).encode())

    def requests(self) -> list[Request]:
        """The requests since the last `set`, in order."""
        return [Request(*each) for each in json.loads(self._ask("requests"))]

    def count(self, within: str = "") -> Counter[str]:
        """How many there were of each kind, among keys with this text."""
        return Counter(request.kind for request in self.requests() if within in request.key)

    def failed(self) -> int:
        """How many of them have failed as asked."""
        failed: int = json.loads(self._ask("failed"))
        return failed

    def _ask(self, what: str, data: bytes | None = None) -> bytes:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET" if data is None else "POST", f"{_CONTROL}/{what}", data)
            return connection.getresponse().read()
        finally:
            connection.close()

    def __repr__(self) -> str:
        return f"<ObjectProxy {self.url}>"


# --- the process ------------------------------------------------------------------------------


class _Message(NamedTuple):
    """A request or an answer."""

    first: str
    head: bytes
    body: bytes
    keeps: bool
    """Whether the connection can be used again."""


def kind_of(method: str, target: str, head: bytes) -> Request:
    """What a request to an S3 server is."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).strip("/")
    kind = method.lower()
    match method:
        case "GET" if "list-type" in query or "/" not in key:
            kind, key = "list", f"{key}/{query.get('prefix', [''])[0]}"
        case "PUT" if "partNumber" in query:
            kind = "part"
        case "PUT" if b"\r\nx-amz-copy-source:" in head.lower():
            kind = "copy"
        case "POST" if "uploads" in query:
            kind = "begin"
        case "POST":
            kind = "complete" if "uploadId" in query else "delete"
        case "DELETE" if "uploadId" in query:
            kind = "abort"
    return Request(kind, key)


async def _receive(reader: asyncio.StreamReader, *, bodiless: bool = False) -> _Message | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = b""
    status = first.split()[1] if first.startswith("HTTP/") else ""
    if bodiless or status in {"204", "304"}:
        pass
    elif fields.get("transfer-encoding", "").lower() == "chunked":
        body = await _receive_chunks(reader)
    elif "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    elif status:
        body = await reader.read()
        return _Message(first, head, body, keeps=False)
    keeps = fields.get("connection", "").lower() != "close" and "HTTP/1.0" not in first
    return _Message(first, head, body, keeps=keeps)


async def _receive_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it is."""
    pieces = []
    while True:
        size = await reader.readuntil(b"\r\n")
        pieces += [size, await reader.readexactly(int(size.split(b";")[0], 16) + 2)]
        if pieces[-1] == b"\r\n":
            return b"".join(pieces)


class _Proxy:
    def __init__(self, port: int) -> None:
        self._port = port
        self._setup = Setup()
        self._seen: list[Request] = []
        self._counts: Counter[int] = Counter()  # by fault: requests that it concerns
        self._failed = 0
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (message := await _receive(reader)) is not None:
                if not await self._handle(message, writer) or not message.keeps:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _handle(self, message: _Message, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; False if the connection must end."""
        method, target, _ = message.first.split(" ", 2)
        if target.startswith(_CONTROL):
            writer.write(_answer("200 OK", self._control(target, message.body)))
            await writer.drain()
            return True
        request = kind_of(method, target, message.head)
        if len(self._seen) < _KEPT_REQUESTS:
            self._seen.append(request)
        way, delay = self._way_of(request), self._setup.delay
        if delay:
            await asyncio.sleep(delay)
        if way == "refused":
            return False
        if way.isdigit():
            writer.write(_answer(f"{way} Injected", _error(int(way))))
            await writer.drain()
            return True
        if self._setup.bare_etags and method == "PUT":
            if _QUOTED.search(message.head):
                writer.write(_answer("412 Precondition Failed", _error(412)))
                await writer.drain()
                return True
            message = message._replace(head=_BARE.sub(rb'\1"\2"', message.head))
        answer = await self._forward(message, bodiless=method == "HEAD")
        return await self._pass_on(answer, way, writer)

    @staticmethod
    async def _pass_on(answer: _Message, way: str, writer: asyncio.StreamWriter) -> bool:
        if way == "silent":
            await asyncio.sleep(3600)
        if way == "cut":
            return False
        if way == "half":
            writer.write(answer.head + answer.body[: len(answer.body) // 2])
        else:
            writer.write(answer.head + answer.body)
        await writer.drain()
        return way != "half"

    def _way_of(self, request: Request) -> str:
        way = ""
        for number, fault in enumerate(self._setup.faults):
            if (fault.kinds and request.kind not in fault.kinds) or fault.within not in request.key:
                continue
            self._counts[number] += 1
            if fault.at <= self._counts[number] < fault.at + fault.times:
                self._failed += 1
                way = fault.way
        return way

    async def _forward(self, message: _Message, *, bodiless: bool) -> _Message:
        while True:
            used = bool(self._idle)
            reader, writer = self._idle.pop() if used else await self._connect()
            answer = None
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(_without(self._setup.without, message.head) + message.body)
                await writer.drain()
                answer = await _receive(reader, bodiless=bodiless)
            if answer is not None:
                break
            writer.close()
            if not used:  # an idle connection may have ended meanwhile, a new one may not
                raise ConnectionResetError
        if answer.keeps:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)

    def _control(self, target: str, body: bytes) -> bytes:
        match target.removeprefix(_CONTROL):
            case "/set":
                setup: dict[str, Any] = json.loads(body)
                faults = [Fault(**fault) for fault in setup["faults"]]
                self._setup = Setup(setup["delay"], faults, setup["without"], setup["bare_etags"])
                self._seen.clear()
                self._counts.clear()
                self._failed = 0
            case "/requests":
                return json.dumps(self._seen).encode()
            case "/failed":
                return json.dumps(self._failed).encode()
        return b""


def _without(names: Sequence[str], head: bytes) -> bytes:
    """A head without the headers of these names."""
    if not names:
        return head
    lines = head.split(b"\r\n")
    return b"\r\n".join(
        line for line in lines if line.partition(b":")[0].decode("latin-1").lower() not in names
    )


def _answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _error(status: int) -> bytes:
    code = {409: "ConditionalRequestConflict", 412: "PreconditionFailed", 503: "SlowDown"}.get(
        status, "InternalError"
    )
    return f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()


async def _main(port: int) -> None:
    proxy = _Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_LIMIT)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
