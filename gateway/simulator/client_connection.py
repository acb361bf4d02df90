"""The client's side of a stream: bytes go straight to its connection, which can be reset."""

import asyncio
import os
import socket
from struct import pack


class ClientConnection:
    """A transport that is reset, not closed, when the stream is to break."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        """Write to this transport; the head of the response is already out."""
        self.write = transport.write
        self._transport = transport

    def reset(self) -> None:
        """Drop what is not sent yet and send a TCP reset."""
        # uvloop hands out no real socket: a duplicate of its descriptor shares the options.
        descriptor = self._transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(descriptor)) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self._transport.abort()
