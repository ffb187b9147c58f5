"""A small object store for benchmarks: one process that keeps objects in memory, and answers late.

It speaks as much of S3's protocol as a store of runs needs, over plain HTTP and over TLS, each on a
port of its own. It heeds the conditions of writes, and looks at no signature. What it takes of the
CPU is for the most part the kernel's: a body is received right into the bytes that are kept.

Tests use moto's server, which knows the protocol better, behind a proxy that can have requests
fail. Both are Python that handles each request several times, so they would be measured as well.

`python -m benchmarks.object_server FOLDER` prints its two ports, and ends with its standard input.
A line there is a number of seconds: from then on each answer waits so long, and the requests until
then are forgotten. It is answered by those requests, a count for each kind, as JSON.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.object_proxy import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD_BYTES: Final = 64 << 10  # the most that a request may have before its body
_META: Final = "x-amz-meta-"
_KEY_ELEMENT: Final = re.compile("<Key>(.*?)</Key>")
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"


class ObjectServer:
    """The process, for a `with` block; `folder` is given its certificate."""

    def __init__(self, folder: str) -> None:
        self._certificate = f"{folder}/{_CERTIFICATE}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.object_server", folder],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._plain, self._tls = map(int, self._answer().split())
        self.pid: Final = self._process.pid

    def environment(self, *, tls: bool) -> dict[str, str]:
        """The variables with which obstore finds it, and trusts its certificate."""
        plain, encrypted = f"http://127.0.0.1:{self._plain}", f"https://127.0.0.1:{self._tls}"
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": encrypted if tls else plain,
            "SSL_CERT_FILE": self._certificate,
        }

    def set(self, delay_seconds: float) -> Counter[str]:
        """From now on let each request wait so long; return those until now, by their kinds."""
        assert self._process.stdin  # noqa: S101 - it was opened with a pipe
        print(delay_seconds, file=self._process.stdin, flush=True)
        return Counter(json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout  # noqa: S101 - it was opened with a pipe
        return self._process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate("")


# --- the process ----------------------------------------------------------------------------------


class _Object(NamedTuple):
    data: bytearray
    e_tag: str
    modified: float
    meta: dict[str, str]

    @property
    def head(self) -> dict[str, str]:
        return {"ETag": self.e_tag, "Last-Modified": formatdate(self.modified, usegmt=True)} | {
            _META + name: value for name, value in self.meta.items()
        }


class _Request(NamedTuple):
    method: str
    key: str
    """The bucket, `/`, and the name of an object in it."""
    query: dict[str, list[str]]
    fields: dict[str, str]
    body: bytearray


class _Answer(NamedTuple):
    status: str = "200 OK"
    fields: Mapping[str, str] = MappingProxyType({})
    body: bytes | memoryview = b""


class _Store:
    """The objects, and how long an answer waits."""

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}
        self._e_tags = (f'"{number:x}"' for number in count(1))
        self.delay_seconds = 0.0
        self.counts: Counter[str] = Counter()

    def answer(self, request: _Request) -> _Answer:
        match request.method:
            case "PUT":
                return self._put(request)
            case "GET" if "list-type" in request.query:
                return self._list(request)
            case "GET" | "HEAD":
                return self._get(request)
            case "DELETE":
                self._objects.pop(request.key, None)
                return _Answer("204 No Content")
            case "POST" if "delete" in request.query:
                return self._delete(request)
        return _Answer("501 Not Implemented")

    def _put(self, request: _Request) -> _Answer:
        there = self._objects.get(request.key)
        if there is not None and request.fields.get("if-none-match") == "*":
            return _failed("412 Precondition Failed", "PreconditionFailed")
        wanted = request.fields.get("if-match")
        if wanted is not None and there is None:
            return _failed("404 Not Found", "NoSuchKey")
        if wanted is not None and there is not None and wanted != there.e_tag:
            return _failed("412 Precondition Failed", "PreconditionFailed")
        if "x-amz-copy-source" in request.fields or "partNumber" in request.query:
            return _Answer("501 Not Implemented")
        meta = {
            name.removeprefix(_META): value
            for name, value in request.fields.items()
            if name.startswith(_META)
        }
        now = datetime.now(UTC).timestamp()
        stored = _Object(request.body, next(self._e_tags), now, meta)
        self._objects[request.key] = stored
        return _Answer(fields={"ETag": stored.e_tag})

    def _get(self, request: _Request) -> _Answer:
        found = self._objects.get(request.key)
        if found is None:
            return _failed("404 Not Found", "NoSuchKey")
        data, size = memoryview(found.data), len(found.data)
        wanted = request.fields.get("range", "").removeprefix("bytes=")
        if not wanted:
            return _Answer(fields=found.head, body=data)
        first, _, last = wanted.partition("-")
        begin, end = int(first), min(size, int(last) + 1 if last else size)
        if begin >= size:
            return _failed("416 Range Not Satisfiable", "InvalidRange")
        fields = {**found.head, "Content-Range": f"bytes {begin}-{end - 1}/{size}"}
        return _Answer("206 Partial Content", fields, data[begin:end])

    def _list(self, request: _Request) -> _Answer:
        """All that there is: no page of a list is ever followed by another one."""
        bucket = f"{request.key.rstrip('/')}/"
        prefix, delimiter, after = (
            request.query.get(name, [""])[0] for name in ("prefix", "delimiter", "start-after")
        )
        lines, folders = [], set()
        for key in sorted(self._objects):
            name = key.removeprefix(bucket)
            if not key.startswith(bucket + prefix) or name <= after:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            found = self._objects[key]
            modified = datetime.fromtimestamp(found.modified, UTC).isoformat()
            lines.append(
                f"<Contents><Key>{escape(name)}</Key><Size>{len(found.data)}</Size>"
                f"<LastModified>{modified}</LastModified><ETag>{escape(found.e_tag)}</ETag>"
                "</Contents>"
            )
        lines += [
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        ]
        text = f"{''.join(lines)}<IsTruncated>false</IsTruncated>"
        return _Answer(body=f"<ListBucketResult>{text}</ListBucketResult>".encode())

    def _delete(self, request: _Request) -> _Answer:
        names = [unescape(name) for name in _KEY_ELEMENT.findall(request.body.decode())]
        for name in names:
            self._objects.pop(f"{request.key.rstrip('/')}/{name}", None)
        deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
        return _Answer(body=f"<DeleteResult>{deleted}</DeleteResult>".encode())


def _failed(status: str, code: str) -> _Answer:
    return _Answer(status, body=f"<Error><Code>{code}</Code></Error>".encode())


class _Connection(asyncio.BufferedProtocol):
    """A client's connection: one request after the other, each answered before the next one."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._head = bytearray(_HEAD_BYTES)
        self._received = 0  # of the head, or of the body once there is one
        self._request: _Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream has no other
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        to_fill = self._head if self._request is None else self._request.body
        return memoryview(to_fill)[self._received :]

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        if self._request is None:
            end = self._head.find(b"\r\n\r\n", 0, self._received)
            if end < 0:
                if self._received == len(self._head):
                    self._transport.abort()
                return
            self._request = self._parse(bytes(self._head[:end]))
            begun = self._head[end + 4 : self._received]
            self._request.body[: len(begun)] = begun
            self._received = len(begun)
        if self._received >= len(self._request.body):
            request, self._request, self._received = self._request, None, 0
            loop = asyncio.get_running_loop()
            loop.call_later(self._store.delay_seconds, self._answer, request)

    def _parse(self, head: bytes) -> _Request:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        self._store.counts[kind_of(method, target, head + b"\r\n").kind] += 1
        fields = {name.lower(): text.strip() for name, _, text in (x.partition(":") for x in lines)}
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        body = bytearray(int(fields.get("content-length", 0)))
        return _Request(method, unquote(url.path).lstrip("/"), query, fields, body)

    def _answer(self, request: _Request) -> None:
        if self._transport.is_closing():
            return
        status, fields, body = self._store.answer(request)
        lines = [f"{name}: {text}\r\n" for name, text in fields.items()]
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{''.join(lines)}\r\n"
        self._transport.write(head.encode())
        if request.method != "HEAD":
            self._transport.write(body)


def _make_certificate(folder: str) -> ssl.SSLContext:
    """Make a certificate for 127.0.0.1 that is good for a day, and what a server needs of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    Path(folder, _CERTIFICATE).write_bytes(certificate.public_bytes(pem))
    Path(folder, _KEY).write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/{_CERTIFICATE}", f"{folder}/{_KEY}")
    return context


async def _serve(folder: str) -> None:
    store, loop = _Store(), asyncio.get_running_loop()
    ports = []
    for context in (None, _make_certificate(folder)):
        server = await loop.create_server(lambda: _Connection(store), "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        counts, store.counts = store.counts, Counter()
        store.delay_seconds = float(line)
        print(json.dumps(counts), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
