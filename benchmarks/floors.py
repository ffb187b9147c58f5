"""What the parts of a short task cost at least: each operation alone, in CPU time.

So `docs/performance.md` can say how far a part is from its floor. Nothing of asyncflow's logic is
in it, only the system calls and the library calls that the part cannot do without.
"""

from __future__ import annotations

import os
import pickle
import socket
import statistics
import tempfile
import time
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 20_000
ROUNDS = 5
ORDER = (8, 1, 4, 32, "work", (), 0, (1234,), b"12345678", ())
REPORT = (4, (1, 1234, 0), 0.00001, (b"m" * 150, None, b"", ""), (0, 0))
RECORD = (4, 2468, 1_795_472_682_985_927, "work", 1234, 0, (17,), b"m" * 150, 1e-5, 4711, None)


def microseconds(call: Callable[[], Any], calls: int = CALLS) -> float:
    """The CPU time of one call, the lowest of some rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            call()
        found.append((time.process_time() - began) / calls * 1e6)
    return min(found)


def handing_over() -> float:
    """The time until a thread has done nothing, and said so: the median."""
    asked: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[int] = SimpleQueue()

    def serve() -> None:
        while number := asked.get():
            done.put(number)

    thread = Thread(target=serve)
    thread.start()
    found = []
    for _ in range(CALLS // 10):
        began = time.perf_counter()
        asked.put(1)
        done.get()
        found.append((time.perf_counter() - began) * 1e6)
    asked.put(0)
    thread.join()
    return statistics.median(found)


class Instance:
    """Something with a method."""

    def method(self) -> None:
        """Do nothing."""


def main() -> None:
    """Print the floors."""
    pack = msgpack.Packer().pack
    packets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    claims, claiming = os.pipe()
    room = memoryview(bytearray(1 << 18))
    report, record = cast("bytes", pack(REPORT)), cast("bytes", pack(RECORD))

    def order() -> None:
        packets[0].send(cast("bytes", pack(ORDER)))
        msgpack.unpackb(room[: packets[1].recv_into(room)])

    def claim() -> None:
        os.write(claiming, b"12345678")
        os.read(claims, 8)

    def tell() -> None:
        stream[0].sendall(cast("bytes", pack(REPORT)))
        msgpack.unpackb(stream[1].recv(4096))

    def write_record() -> None:
        data = cast("bytes", pack(RECORD))
        len(data).to_bytes(4, "little") + crc32(data).to_bytes(4, "little") + data

    with tempfile.TemporaryFile() as file:
        floors = {
            "an order in a packet, both ends": microseconds(order),
            "a claim, both ends": microseconds(claim),
            "a report in the stream, both ends": microseconds(tell),
            "a record of an end, packed and framed": microseconds(write_record),
            "a journal's append of 20 records": microseconds(
                lambda: os.write(file.fileno(), 20 * record)
            ),
            "a hand-over to a thread and back (elapsed)": handing_over(),
            "an instance and a call of its method": microseconds(lambda: Instance().method()),
            "a float pickled, and unpickled": microseconds(
                lambda: pickle.loads(pickle.dumps(0.5, 5))
            ),
        }
    print(f"CPU time of each, in µs; a report has {len(report)} bytes")
    for name, floor in floors.items():
        print(f"  {name:44s} {floor:5.2f}")
    for each in (*packets, *stream):
        each.close()


if __name__ == "__main__":
    main()
