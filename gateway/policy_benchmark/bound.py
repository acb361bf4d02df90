"""The closed-form bound: the highest rate that a pool can serve within its objectives.

A vLLM step takes `c0 + c1*B + c2*C + c3*P`; in steady state a server behaves like processor
sharing, `TPOT = c0 / (1 - rho)`, so a TPOT objective S caps the work rate at `1 - f*c0/S`. The
work of a request with i input tokens, of which u are not in the prefix cache, and o output tokens
is `w = u*c3 + c4*u^2/2 + f*o*(c1 + c2*(i + o/2))`, f being the LoRA factor. It is the limit
without refusing: refusals favour small requests, so that a policy that refuses may exceed it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.scheduling.model import LatencyObjective
from gateway.simulator.profiles import EngineProfile


@dataclass(frozen=True, slots=True)
class ServerCapability:
    """One server as the bound sees it: coefficients, speed, LoRA factor and KV capacity."""

    profile: EngineProfile
    speed: float
    lora_factor: float
    kv_tokens: int


@dataclass(slots=True)
class ClassMoments:
    """Sums over the feasible requests of one service, from which mean work follows.

    Attributes:
        count: requests.
        uncached: of prompt tokens not in the prefix cache.
        uncached_squared: of their squares.
        output: of output tokens.
        context: of `o * (i + o/2)`, the tokens read from the KV cache.
    """

    count: int = 0
    uncached: float = 0.0
    uncached_squared: float = 0.0
    output: float = 0.0
    context: float = 0.0

    def add(self, *, prompt: int, uncached: int, output: int) -> None:
        """Count one request (tokens)."""
        self.count += 1
        self.uncached += uncached
        self.uncached_squared += uncached * uncached
        self.output += output
        self.context += output * (prompt + output / 2.0)

    def work_s(self, server: ServerCapability) -> float:
        """Sum of the requests' work on this server, in seconds."""
        profile = server.profile
        prefill = profile.c3_s * self.uncached + profile.c4_s * self.uncached_squared / 2.0
        decode = profile.c1_s * self.output + profile.c2_s * self.context
        return (prefill + server.lora_factor * decode) / server.speed


@dataclass(frozen=True, slots=True)
class DemandClass:
    """Requests that share a TPOT objective (None: no bound on it)."""

    moments: ClassMoments
    tpot_s: float | None


def request_work_s(server: ServerCapability, *, prompt: int, uncached: int, output: int) -> float:
    """Work of one request on one server, in seconds of its steps."""
    moments = ClassMoments()
    moments.add(prompt=prompt, uncached=uncached, output=output)
    return moments.work_s(server)


def server_rate_rps(server: ServerCapability, classes: Sequence[DemandClass]) -> float:
    """Requests per second of this mix that one server carries: compute or KV, the lesser.

    0.0 when some class can never meet its TPOT objective here.
    """
    total = sum(demand.moments.count for demand in classes)
    if total == 0:
        return 0.0
    step_s = server.lora_factor * server.profile.c0_s / server.speed
    compute = 0.0
    for demand in classes:
        room = 1.0 if demand.tpot_s is None else 1.0 - step_s / demand.tpot_s
        if room <= 0.0:
            return 0.0
        compute += demand.moments.work_s(server) / total / room
    work_s = sum(demand.moments.work_s(server) for demand in classes) / total
    context = sum(demand.moments.context for demand in classes) / total
    held = context * step_s + server.kv_tokens * work_s
    by_compute = 1.0 / compute if compute > 0.0 else math.inf
    return min(by_compute, server.kv_tokens / held if held > 0.0 else math.inf)


def pool_rate_rps(servers: Sequence[ServerCapability], classes: Sequence[DemandClass]) -> float:
    """Requests per second of this mix that the pool carries: the sum over its servers."""
    return sum(server_rate_rps(server, classes) for server in servers)


def alone_ttft_s(server: ServerCapability, prompt: int, overhead_s: float) -> float:
    """Time to first token of an uncached prompt on the idle server, gateway overhead included."""
    profile = server.profile
    steps = math.ceil(prompt / profile.max_num_batched_tokens)
    prefill = steps * server.lora_factor * profile.c0_s + profile.c3_s * prompt
    prefill += profile.c4_s * prompt * prompt / 2.0
    return overhead_s + profile.api_overhead_s + prefill / server.speed


def is_feasible(
    server: ServerCapability,
    objective: LatencyObjective | None,
    *,
    prompt: int,
    output: int,
    overhead_s: float,
) -> bool:
    """Whether a request of these lengths meets its objective alone on the idle server."""
    profile = server.profile
    longest = min(profile.max_model_len, server.kv_tokens)
    if prompt + output > longest:
        return False
    if objective is None:
        return True
    ttft_s = alone_ttft_s(server, prompt, overhead_s)
    context = prompt + output / 2.0
    step_s = profile.c0_s + profile.c1_s + profile.c2_s * context
    tpot_s = server.lora_factor * step_s / server.speed
    return objective.is_met(
        ttft_s=ttft_s, e2e_s=ttft_s + tpot_s * (output - 1), output_tokens=output
    )
