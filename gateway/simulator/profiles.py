"""Calibrated coefficients of the engine model, one profile per model and GPU, with their sources.

Step time in seconds: `c0 + c1*B + c2*C + c3*P + c4*sum(t*(s + t/2))` with B sequences in the step,
C context tokens of the decoding ones, P prefill tokens, and per prefill chunk its length t after s
tokens already computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What one model on one kind of server can do.

    Attributes:
        c0_s: fixed time of a step.
        c1_s: per sequence in the step.
        c2_s: per context token of the decoding sequences.
        c3_s: per prefill token.
        c4_s: per pair of prefill tokens that attend to each other (quadratic term).
        kv_tokens: KV cache capacity without LoRA slots.
        max_num_seqs: sequences in one batch.
        max_num_batched_tokens: token budget of one step, at least `max_num_seqs`.
        api_overhead_s: from the HTTP request to the engine's queue (assumed: tokenising, IPC).
        lora_any: extra share of c0..c2 as soon as one adapter is in the batch.
        lora_each: extra share per distinct adapter in the batch.
        lora_kv_fixed_tokens: KV tokens lost when LoRA is enabled at all.
        lora_kv_rank_tokens: KV tokens lost per adapter slot and rank.
        max_model_len: longest prompt plus answer.
    """

    name: str
    c0_s: float
    c1_s: float
    c2_s: float
    c3_s: float
    c4_s: float
    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    api_overhead_s: float = 0.004
    lora_any: float = 0.15
    lora_each: float = 0.001
    lora_kv_fixed_tokens: int = 27_000
    lora_kv_rank_tokens: float = 47.0
    max_model_len: int = 131_072


# LoRA's KV cost was measured for the 8B model on 64 GB only (27,000 tokens of 128 kB fixed, 750 per
# rank-16 slot). The other models' figures are that many bytes divided by their own bytes per KV
# token, slots scaled by layers x hidden size.
_ALL = (
    # Fit to vLLM V1 (2025-05) logs of the digital-twin study, arXiv 2508.08343: ITL ms =
    # 10.79 + .0348*B + 6.72e-5*C, mean error 3.5 %; prefill 27-34 k tokens/s on the same card.
    EngineProfile(
        name="llama3.1-8b-h100-64",
        c0_s=10.79e-3,
        c1_s=34.8e-6,
        c2_s=67.2e-9,
        c3_s=24e-6,
        c4_s=1.0e-9,
        kv_tokens=334_944,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
    ),
    # Roofline: weights / HBM bandwidth for c0, 2 x active parameters / (peak FLOPS x .5-.6) for c3.
    EngineProfile(
        name="llama3.1-8b-h100-80",
        c0_s=6.8e-3,
        c1_s=20e-6,
        c2_s=76e-9,
        c3_s=25e-6,
        c4_s=1.0e-9,
        kv_tokens=421_000,
        max_num_seqs=1024,
        max_num_batched_tokens=8192,
    ),
    EngineProfile(
        name="llama3.1-8b-a100-80",
        c0_s=10.5e-3,
        c1_s=20e-6,
        c2_s=125e-9,
        c3_s=80e-6,
        c4_s=3e-9,
        kv_tokens=421_000,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
    ),
    # The filter-tree gateway's own simulator: prefill max(40, 19.69 + .06769*tokens) ms, decode
    # 14 + .10265*B + 5.3535e-4*C ms, 2,810 blocks of 16, 256 sequences. Bound by KV capacity.
    EngineProfile(
        name="llama2-7b-a100-40",
        c0_s=14.0e-3,
        c1_s=102.6e-6,
        c2_s=535e-9,
        c3_s=67.7e-6,
        c4_s=0.0,
        kv_tokens=44_960,
        max_num_seqs=256,
        max_num_batched_tokens=512,
        lora_kv_fixed_tokens=6_750,
        lora_kv_rank_tokens=11.7,
        max_model_len=4096,
    ),
    # Fit: T(8192 prefill tokens) = .40 s on 2 x H100.
    EngineProfile(
        name="qwen3-32b-2xh100",
        c0_s=14.9e-3,
        c1_s=20e-6,
        c2_s=76e-9,
        c3_s=47e-6,
        c4_s=1.3e-9,
        kv_tokens=312_000,
        max_num_seqs=1024,
        max_num_batched_tokens=8192,
        lora_kv_fixed_tokens=13_500,
        lora_kv_rank_tokens=58.0,
        max_model_len=40_960,
    ),
    EngineProfile(
        name="llama3.3-70b-4xh100",
        c0_s=16.6e-3,
        c1_s=20e-6,
        c2_s=48e-9,
        c3_s=72e-6,
        c4_s=0.9e-9,
        kv_tokens=487_000,
        max_num_seqs=1024,
        max_num_batched_tokens=8192,
        lora_kv_fixed_tokens=10_800,
        lora_kv_rank_tokens=94.0,
    ),
)

PROFILES: Mapping[str, EngineProfile] = MappingProxyType({p.name: p for p in _ALL})
