"""Options of clients' sockets."""

import asyncio
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def bound_unread(transport: asyncio.BaseTransport, unread_s: float) -> None:
    """Let the system drop a client that takes nothing more; closing alone waits for it."""
    sock = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, option, int(unread_s * 1_000))


def reset(transport: asyncio.Transport) -> None:
    """Reset the connection, so that what was sent cannot pass for a whole response."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
