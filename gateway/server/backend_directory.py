"""The model servers of one pool as the HTTP shell sees them: clients, and models of the healthy."""

import asyncio
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from gateway.scheduling.model import BackendId, ServedModel
from gateway.server.backend_client import BackendClient
from gateway.server.contact import Contact
from gateway.server.options import BackendTimeouts


class BackendDirectory:
    """Servers by id. The monitor writes who takes requests and what they serve; routing reads."""

    def __init__(self, clients: Mapping[BackendId, BackendClient] = MappingProxyType({})) -> None:
        self._clients = dict(clients)
        self._contacts: dict[BackendId, Contact] = {}
        self._models: dict[BackendId, tuple[ServedModel, ...]] = {}
        self._served: dict[str, ServedModel] = {}
        self._suspicions = {backend_id: asyncio.Event() for backend_id in clients}

    def add(self, backend_id: BackendId, client: BackendClient) -> None:
        """Take in a server; it is not healthy before the monitor says so."""
        self._clients[backend_id] = client
        self._suspicions[backend_id] = asyncio.Event()

    def remove(self, backend_id: BackendId) -> None:
        """Forget a server and close its connections; none of our requests may be there."""
        self.set_unusable(backend_id)
        self._contacts.pop(backend_id, None)
        del self._suspicions[backend_id]
        self._clients.pop(backend_id).close()

    def set_timeouts(self, timeouts: BackendTimeouts) -> None:
        """Change the bounds on attempts, also on those under way."""
        for client in self._clients.values():
            client.set_timeouts(timeouts)

    def client(self, backend_id: BackendId) -> BackendClient:
        """Return the client of a server of this pool."""
        return self._clients[backend_id]

    def keep_contact(self, backend_id: BackendId, contact: Contact) -> None:
        """Take what the monitor writes what it has seen of a server into."""
        self._contacts[backend_id] = contact

    def contact(self, backend_id: BackendId) -> Contact | None:
        """Return what looks at a server have shown; None where nobody looks."""
        return self._contacts.get(backend_id)

    def usable_clients(self) -> tuple[BackendClient, ...]:
        """Return the clients of the servers that take requests."""
        return tuple(self._clients[backend_id] for backend_id in self._models)

    def __iter__(self) -> Iterator[BackendId]:
        return iter(self._clients)

    @property
    def any_usable(self) -> bool:
        """Whether at least one server takes requests."""
        return bool(self._models)

    def set_models(self, backend_id: BackendId, models: tuple[ServedModel, ...]) -> None:
        """Note a healthy server and what it serves."""
        self._models[backend_id] = models
        self._reindex()

    def set_unusable(self, backend_id: BackendId) -> None:
        """Note that a server takes no requests."""
        if self._models.pop(backend_id, None) is not None:
            self._reindex()

    def suspect(self, backend_id: BackendId) -> None:
        """Ask the monitor to look at a server now: something failed there."""
        self._suspicions[backend_id].set()

    def suspicion(self, backend_id: BackendId) -> asyncio.Event:
        """Return the event that `suspect` sets; whoever looks at the server clears it."""
        return self._suspicions[backend_id]

    def served(self, model: str) -> ServedModel | None:
        """Return a healthy server's entry for a model, or None."""
        return self._served.get(model)

    def served_models(self) -> tuple[ServedModel, ...]:
        """Return the union over healthy servers, one entry per name, first server first."""
        return tuple(self._served.values())

    def close(self) -> None:
        """Close every connection to the servers."""
        for client in self._clients.values():
            client.close()

    def _reindex(self) -> None:
        self._served = {}
        for models in self._models.values():
            for model in models:
                self._served.setdefault(model.name, model)
