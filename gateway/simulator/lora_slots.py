"""LoRA adapters of a simulated engine: GPU slots, host memory, and what loading costs.

vLLM batches at most `max_loras` distinct adapters, keeps `max_cpu_loras` in host memory and evicts
the least recently used that no running request needs (v1/core/sched/scheduler.py, lora/*_manager).
Load times: arXiv 2508.08343 measured 72 / 88 / 154 ms from disk for ranks 8 / 16 / 32, 3-9 ms
from host memory.
"""

from collections import OrderedDict
from math import exp
from random import Random

from gateway.simulator.engine_model import EngineOptions, EngineStats

_HOST_LOAD_S = 0.007
_DISK_LOAD_S = 0.045
_DISK_LOAD_PER_RANK_S = 0.0033
_FIRST_TOUCH = 2.5
_LOAD_SIGMA = 0.3


class LoraSlots:
    """Which adapters run, which are on the GPU, which in host memory.

    Attributes:
        active: adapters of running sequences with their number, in order of arrival.
        used: whether any adapter ever ran.
    """

    def __init__(self, options: EngineOptions, rng: Random, stats: EngineStats) -> None:
        """Make empty slots; load times are drawn from `rng`, loads counted in `stats`."""
        self.active: dict[str, int] = {}
        self.used = False
        self._options = options
        self._rng = rng
        self._stats = stats
        self._resident: OrderedDict[str, None] = OrderedDict()
        self._host: OrderedDict[str, None] = OrderedDict()
        self._touched: dict[str, None] = {}

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters on the GPU, least recently used first."""
        return tuple(self._resident)

    def admits(self, adapter: str | None) -> bool:
        """Whether a sequence of this adapter may join the batch."""
        return (
            adapter is None or adapter in self.active or len(self.active) < self._options.max_loras
        )

    def start(self, adapter: str) -> float:
        """Count a sequence that joins the batch; return the seconds that loading takes."""
        self.used = True
        running = self.active.get(adapter, 0)
        self.active[adapter] = running + 1
        self._stats.max_distinct_adapters = max(self._stats.max_distinct_adapters, len(self.active))
        return 0.0 if running else self._load(adapter)

    def stop(self, adapter: str) -> None:
        """Count a sequence that left the batch."""
        running = self.active[adapter] - 1
        if running:
            self.active[adapter] = running
            return
        del self.active[adapter]
        # While active it counted as used in every step.
        self._resident.move_to_end(adapter)
        self._host.move_to_end(adapter)

    def forget(self, adapter: str) -> None:
        """Drop an adapter from memory, unless it runs."""
        if adapter not in self.active:
            self._resident.pop(adapter, None)
            self._host.pop(adapter, None)

    def copy(self, rng: Random, stats: EngineStats) -> "LoraSlots":
        """Return an independent copy that draws from `rng` and counts in `stats`."""
        twin = LoraSlots(self._options, rng, stats)
        twin.active = dict(self.active)
        twin.used = self.used
        twin._resident = self._resident.copy()
        twin._host = self._host.copy()
        twin._touched = dict(self._touched)
        return twin

    def _load(self, adapter: str) -> float:
        if adapter in self._resident:
            return 0.0
        options = self._options
        self._stats.cold_adapter_loads += 1
        if adapter in self._host:
            mean_s = _HOST_LOAD_S
        else:
            self._stats.disk_adapter_loads += 1
            mean_s = _DISK_LOAD_S + _DISK_LOAD_PER_RANK_S * options.lora_rank
            if adapter not in self._touched:
                mean_s *= _FIRST_TOUCH
                self._touched[adapter] = None
            host_slots = max(options.max_cpu_loras or 0, options.max_loras)
            self._make_room(self._host, host_slots)
            self._host[adapter] = None
        self._make_room(self._resident, options.max_loras)
        self._resident[adapter] = None
        return mean_s * exp(self._rng.gauss(-(_LOAD_SIGMA**2) / 2, _LOAD_SIGMA))

    def _make_room(self, adapters: OrderedDict[str, None], slots: int) -> None:
        if len(adapters) >= slots:
            del adapters[next(a for a in adapters if a not in self.active)]
