"""Makes the client of a server from its URL; TLS and timeouts are the same for all of them."""

import ssl

from gateway.runtime.clock import Clock
from gateway.server.backend_client import BackendClient
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts


class BackendConnector:
    """Makes clients; `timeouts` hold for those made from now on."""

    def __init__(self, *, timeouts: BackendTimeouts, clock: Clock) -> None:
        self.timeouts = timeouts
        self._clock = clock
        self._tls: ssl.SSLContext | None = None

    def connect(self, url: str) -> BackendClient:
        """Make a client; nothing is opened yet. ValueError says what is wrong with the URL."""
        endpoint = BackendEndpoint.parse(url)
        if endpoint.tls and self._tls is None:
            # Reading the system's certificates takes long: once is enough.
            self._tls = ssl.create_default_context()
        options = BackendConnectOptions(
            endpoint=endpoint,
            timeouts=self.timeouts,
            tls=self._tls if endpoint.tls else None,
        )
        return BackendClient(options, clock=self._clock)
