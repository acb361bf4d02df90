"""Makes the client of a server from its URL; TLS and timeouts are the same for all of a pool."""

import ssl
from collections.abc import Callable

from gateway.runtime.clock import Clock
from gateway.server.backend_client import BackendClient
from gateway.server.options import BackendConnectOptions, BackendEndpoint, BackendTimeouts


class BackendConnector:
    """Makes clients; `timeouts` hold for those made from now on."""

    def __init__(
        self,
        *,
        timeouts: BackendTimeouts,
        clock: Clock,
        make_tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        authorization: str = "",
    ) -> None:
        """Take what `set_security` takes, and the rest."""
        self.timeouts = timeouts
        self._clock = clock
        self.set_security(make_tls, authorization)

    def set_security(self, make_tls: Callable[[], ssl.SSLContext], authorization: str) -> None:
        """Speak to servers otherwise from now on.

        Args:
            make_tls: makes what https servers are spoken to with.
            authorization: see BackendConnectOptions.
        """
        self._make_tls = make_tls
        self._authorization = authorization
        self._tls: ssl.SSLContext | None = None

    def connect(self, url: str) -> BackendClient:
        """Make a client; nothing is opened yet. ValueError says what is wrong with the URL."""
        return BackendClient(self._options(BackendEndpoint.parse(url)), clock=self._clock)

    def reconnect(self, client: BackendClient) -> None:
        """Let a client open its next connections as new clients do."""
        client.reconfigure(self._options(client.endpoint))

    def _options(self, endpoint: BackendEndpoint) -> BackendConnectOptions:
        if endpoint.tls and self._tls is None:
            # Reading the system's certificates takes long: once is enough.
            self._tls = self._make_tls()
        return BackendConnectOptions(
            endpoint=endpoint,
            timeouts=self.timeouts,
            tls=self._tls if endpoint.tls else None,
            authorization=self._authorization,
        )
