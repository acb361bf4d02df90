"""The pool of a workload: engines to simulate, and what the closed-form bound makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.bound import ServerCapability
from gateway.policy_benchmark.workload_model import EngineTerms, Servers
from gateway.scheduling.model import BackendId
from gateway.simulator.engine import Engine, EngineOptions, EngineVariant, kv_capacity_tokens
from gateway.simulator.profiles import PROFILES, EngineProfile


@dataclass(frozen=True, slots=True)
class PoolSetup:
    """Servers of one run, by id, in a fixed order.

    Attributes:
        capabilities: what the bound knows of each.
        options: how each engine was started.
    """

    profile: EngineProfile
    capabilities: Mapping[BackendId, ServerCapability]
    options: Mapping[BackendId, EngineOptions]

    def engines(self, seed: int) -> dict[BackendId, Engine]:
        """Fresh engines; each draws its noise from a source of its own."""
        return {
            key: Engine(profile=self.profile, rng=Random(f"{seed} {key}"), options=options)
            for key, options in self.options.items()
        }


def find_profile(name: str) -> EngineProfile:
    """The engine profile of this name.

    Raises:
        BenchmarkError: no such profile.
    """
    if name not in PROFILES:
        raise BenchmarkError(f"unknown profile {name!r}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def build_pool(servers: Servers, adapters: int) -> PoolSetup:
    """Set up the servers of a workload that uses `adapters` distinct adapters.

    The LoRA factor of the bound assumes full slots: as many distinct adapters in each batch as
    fit, at most all.
    """
    profile = find_profile(servers.profile)
    slots = servers.max_loras or 0
    reserved = slots if servers.kv_reserved_slots is None else servers.kv_reserved_slots
    kv_tokens = kv_capacity_tokens(profile, EngineOptions(max_loras=reserved))
    distinct = min(reserved, adapters)
    factor = 1.0 + profile.lora_any + profile.lora_each * distinct if distinct else 1.0
    capabilities, options = {}, {}
    for index in range(servers.count):
        key = BackendId(f"s{index:04d}")
        speed = servers.speeds[index % len(servers.speeds)]
        capabilities[key] = ServerCapability(profile, speed, factor, kv_tokens)
        options[key] = EngineOptions(
            max_loras=slots,
            kv_tokens=kv_tokens,
            speed=speed,
            variant=_variant(servers.unmodelled),
        )
    return PoolSetup(profile, capabilities, options)


def _variant(terms: EngineTerms) -> EngineVariant:
    return EngineVariant(
        batch_square_s=terms.batch_square,
        stall_every_s=terms.stall_every,
        stall_s=terms.stall,
        speculative_tokens=terms.speculative_tokens,
    )
