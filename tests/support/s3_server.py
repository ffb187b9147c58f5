"""moto's S3 in a process of its own: `python -m tests.support.s3_server ADDRESS` prints its port.

It ends with its standard input. A line `fill BUCKET PREFIX COUNT` there makes so many objects at
once, each with its own key as its value, and is answered by `done`.

moto looks at the condition of a write first and writes afterwards, in one thread for each
connection: of two programs that create one object at the same time, both may be told that they have
written it. No object store does that. So here one request is carried out at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_ACCOUNT: Final = "123456789012"  # moto's own


def serve() -> None:
    """Serve until standard input ends."""
    import logging

    from moto.s3.models import s3_backends
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    one_at_a_time, carry_out = threading.Lock(), S3Response.key_response

    def key_response(self: S3Response, *request: Any) -> Any:
        with one_at_a_time:
            return carry_out(self, *request)

    S3Response.key_response = key_response
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=sys.argv[1], port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    for line in sys.stdin:
        _, bucket, prefix, count = line.split()
        backend = s3_backends[_ACCOUNT]["aws"]
        for number in range(int(count)):
            key = f"{prefix}{number:06}"
            backend.put_object(bucket, key, key.encode())
        print("done", flush=True)
    server.stop()


class S3Server:
    """The process, for a `with` block; `environment` is what a client needs."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address
        self._process: subprocess.Popen[str]
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.s3_server", self._address],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "MOTO_ACCOUNT_ID": _ACCOUNT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.endpoint = f"http://{self._address}:{self._answer()}"
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which obstore and boto3 find it."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket."""
        connection = HTTPConnection(urlsplit(self.endpoint).netloc, timeout=10)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == HTTPStatus.OK
        connection.close()
        return name

    def fill(self, bucket: str, prefix: str, count: int) -> None:
        """Make objects `PREFIX000000` and so on, each with its key as its value."""
        assert self._process.stdin
        print("fill", bucket, prefix, count, file=self._process.stdin, flush=True)
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline().strip()
        assert line, "moto's server has ended"
        return line


if __name__ == "__main__":
    serve()
