"""Where a worker gets its orders from: the packets of a socket, and the claims of a pipe.

Worker and engine both read from either. What one of them has read the other does not get, so the
engine can take back what a worker has not begun, whatever the worker is doing. A `StartTask` is the
worker's once it is received. The tasks of a `StartItems` are claimed one by one: a claim is in the
pipe before its packet is sent, and whoever reads it has the task.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow.workers.messages import CLAIM_BYTES, StartItems, unpack_claim, unpack_order

if TYPE_CHECKING:
    import socket

    from asyncflow.workers.messages import OrderMessage, StartTask

_PACKET_BYTES: Final = 1 << 18


class OrderReader:
    """Reads the orders of one worker."""

    def __init__(self, orders: socket.socket, claims: int = -1) -> None:
        """Read packets from the socket; without the descriptor of a pipe there are no claims."""
        self._orders, self._claims = orders, claims
        self.opened = [Descriptor(orders.fileno())]
        """Its descriptors, which a step may close."""
        if claims >= 0:
            os.set_inheritable(claims, False)  # noqa: FBT003 - the function's own signature
            self.opened.append(Descriptor(claims))
        # One buffer for all orders: `recv` would allocate as much for each, which may take 20 µs.
        self._packet = memoryview(bytearray(_PACKET_BYTES))
        self._items: StartItems | None = None  # the packet with tasks that may still be claimed
        self._passed: deque[OrderMessage] = deque()  # orders between two packets with items

    def next(self, flags: int = 0) -> OrderMessage | None:
        """The next order; None if the engine is gone.

        Raises:
            BlockingIOError: With MSG_DONTWAIT among the flags: there is none.
        """
        while True:
            items = self._items
            if items is not None and (order := self._claim(items)) is not None:
                return order
            received = self._passed.popleft() if self._passed else self._receive(flags)
            if not isinstance(received, StartItems):
                return received
            self._items = received

    def _claim(self, items: StartItems) -> StartTask | None:
        """The next task that can be had; None if the engine has taken back what was left."""
        self._items = None
        try:
            claim = os.read(self._claims, CLAIM_BYTES)
        except BlockingIOError:
            return None
        if not claim:  # the engine is gone, as the socket will tell
            return None
        run, task = unpack_claim(claim)
        at = task - items.first
        while run != items.run or not 0 <= at < items.number:
            received = self._receive()  # it is in a later packet, which is here or on its way
            if received is None:
                return None
            if isinstance(received, StartItems):
                items, at = received, task - received.first
            else:
                self._passed.append(received)
        if at < items.number - 1:
            self._items = items
        return items.order(task)

    def _receive(self, flags: int = 0) -> OrderMessage | None:
        size = self._orders.recv_into(self._packet, 0, flags)
        return unpack_order(self._packet[:size]) if size else None

    def __repr__(self) -> str:
        return f"<OrderReader {self._items.number if self._items is not None else 0} items>"
