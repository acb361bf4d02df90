"""Which servers hold an adapter, found without asking every server."""

from gateway.scheduling.adapter_residency import AdapterResidency
from gateway.scheduling.model import BackendId


class AdapterHolders:
    """Servers that an adapter was sent to; those that dropped it since are weeded out on reading.

    At most one entry per adapter and server.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._holders: dict[str, dict[BackendId, AdapterResidency]] = {}

    def note(self, adapter: str, backend_id: BackendId, residency: AdapterResidency) -> None:
        """The adapter was sent to the server whose slots are `residency`."""
        holders = self._holders.get(adapter)
        if holders is None:
            holders = self._holders[adapter] = {}
        holders[backend_id] = residency

    def of(self, adapter: str) -> list[BackendId]:
        """Servers where the adapter is resident, the first that got it first."""
        holders = self._holders.get(adapter)
        if holders is None:
            return []
        gone = [name for name, slots in holders.items() if not slots.is_resident(adapter)]
        for name in gone:
            del holders[name]
        return list(holders)

    def forget(self, backend_id: BackendId) -> None:
        """The server is gone for good."""
        for holders in self._holders.values():
            holders.pop(backend_id, None)
