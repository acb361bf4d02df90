"""Which LoRA adapters one server holds: active now, still resident, or in need of a slot.

vLLM batches at most `max_loras` distinct adapters; a request for one more waits in the engine
until all requests of some other adapter have ended, so slots are a capacity. Its metric
`lora_requests_info` lists only adapters with requests in flight, hence residency is our own LRU
of what we dispatched, capped by the number of slots, corrected by what is reported.
"""


class AdapterResidency:
    """LoRA slots of one server.

    Attributes:
        max_loras: number of slots.
        active: requests in flight per adapter, ours only. Not to be changed by the caller.
        crowding: share of the slots in use, 0 to 1 (above where others wait for one).
    """

    __slots__ = ("_external", "_last_used_at", "active", "crowding", "max_loras")

    def __init__(self, *, max_loras: int) -> None:
        """Start empty. `max_loras` is the number of slots until the server reports its own."""
        self.max_loras = max_loras
        self.active: dict[str, int] = {}
        self.crowding = 0.0
        self._external: tuple[str, ...] = ()
        self._last_used_at: dict[str, float] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters believed to be in a slot, least recently used first."""
        return tuple(self._last_used_at)

    @property
    def slots_in_use(self) -> int:
        """Slots held by adapters with requests in flight, ours and others'."""
        return len(self.active) + len(self._external)

    def admits(self, adapter: str) -> bool:
        """Whether a request for this adapter would run at once: it is active, or a slot is free.

        Where others use more adapters than there are slots, theirs may be waiting for one.
        """
        if adapter in self.active:
            return True
        in_use = len(self.active) + len(self._external)
        return in_use < self.max_loras or (in_use == self.max_loras and adapter in self._external)

    def is_resident(self, adapter: str) -> bool:
        """Whether the adapter is in a slot, so that no load is needed."""
        return adapter in self._last_used_at

    def acquire(self, adapter: str, *, now: float) -> None:
        """Count one more request for the adapter, loading it in place of the least recent one."""
        self.active[adapter] = self.active.get(adapter, 0) + 1
        if adapter in self._external:
            self._external = tuple(name for name in self._external if name != adapter)
        self._weigh()
        self._touch(adapter, now)

    def release(self, adapter: str, *, now: float) -> None:
        """Count one request less; the adapter stays resident until its slot is taken."""
        left = self.active[adapter] - 1
        if left:
            self.active[adapter] = left
        else:
            del self.active[adapter]
            self._weigh()
        self._touch(adapter, now)

    def report(self, active: tuple[str, ...], *, max_loras: int | None, taken_at: float) -> None:
        """Take in what the server says is in flight there, as of `taken_at`.

        An adapter reported active that we have not used since then is used by somebody else.
        """
        if max_loras is not None:
            self.max_loras = max_loras
        used_at = self._last_used_at
        self._external = tuple(
            name
            for name in active
            if name not in self.active and used_at.get(name, -1.0) < taken_at
        )
        self._weigh()
        for name in self._external:
            self._touch(name, used_at.get(name, -1.0))
        self._evict_down_to(self.max_loras)

    def forget(self) -> None:
        """Drop what was believed of idle adapters: the server may have restarted."""
        self._external = ()
        self._weigh()
        self._last_used_at = {
            name: at for name, at in self._last_used_at.items() if name in self.active
        }

    def _weigh(self) -> None:
        self.crowding = (len(self.active) + len(self._external)) / max(1, self.max_loras)

    def _touch(self, adapter: str, at: float) -> None:
        self._last_used_at.pop(adapter, None)
        if len(self._last_used_at) >= self.max_loras:
            self._evict_down_to(self.max_loras - 1)
        self._last_used_at[adapter] = at

    def _evict_down_to(self, room: int) -> None:
        excess = len(self._last_used_at) - max(0, room)
        if excess <= 0:
            return
        idle = [
            name
            for name in self._last_used_at
            if name not in self.active and name not in self._external
        ]
        for name in idle[:excess]:
            del self._last_used_at[name]
