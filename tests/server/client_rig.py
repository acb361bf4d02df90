"""Our upstream client in front of a scripted server, and a sink that records."""

from gateway.runtime.clock import monotonic_clock
from gateway.server.backend_client import BackendClient
from gateway.server.backend_connection import ReadFlow, ResponseHead
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts
from tests.server.raw_server import (
    RawServer,
)


class Recorder:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.flow: ReadFlow | None = None
        self.reads: list[bytes] = []
        self.ended = False

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    def head_received(self, head: ResponseHead, flow: ReadFlow) -> None:
        self.head, self.flow = head, flow

    def body_received(self, data: bytes, *, last: bool) -> None:
        assert not self.ended
        self.reads.append(data)
        self.ended = last


def client_of(server: RawServer, **timeouts: float) -> BackendClient:
    return BackendClient(
        BackendConnectOptions(
            endpoint=BackendEndpoint.parse(server.url), timeouts=BackendTimeouts(**timeouts)
        ),
        clock=monotonic_clock,
    )


async def one_exchange(client: BackendClient) -> Recorder:
    sink = Recorder()
    headers = b"host: %b\r\ncontent-length: 2\r\n" % client.authority.encode()
    await client.exchange(client.compose(b"POST", b"/v1/x", headers), b"{}", sink)
    return sink
