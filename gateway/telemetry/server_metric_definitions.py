"""The metrics of model servers: how each is, and how good its forecasts are."""

from gateway.telemetry.metric_kinds import counter, gauge

_BACKEND = ("pool", "backend")

# -- servers ----------------------------------------------------------------------------------

BACKEND_USABLE = gauge(
    "llm_gateway_backend_usable", "1 if the server is up and not draining.", *_BACKEND
)
BACKEND_FULL = gauge(
    "llm_gateway_backend_full", "1 if the server takes no further request for now.", *_BACKEND
)
BACKEND_EJECTED = gauge(
    "llm_gateway_backend_ejected",
    "1 if the server gets nothing new for now because requests failed there.",
    *_BACKEND,
)
BACKEND_EJECTIONS = counter(
    "llm_gateway_backend_ejections_total",
    "Times the server was ejected after it had been well.",
    *_BACKEND,
)
BACKEND_FAILURE_RATE = gauge(
    "llm_gateway_backend_failure_ratio",
    "Chance that a request fails at the server, judged by about the last 30 seconds.",
    *_BACKEND,
)
BACKEND_FAILURES = counter(
    "llm_gateway_backend_failures_total",
    "Attempts that failed at the server, by what happened; those made good elsewhere too.",
    *_BACKEND,
    "reason",
)
BACKEND_SATURATION = gauge(
    "llm_gateway_backend_saturation_ratio",
    "Share in use of what is scarcest there: places, prefill, KV cache, or pace (TPOT against the"
    " strictest objective there).",
    *_BACKEND,
)
BACKEND_IN_FLIGHT = gauge(
    "llm_gateway_backend_requests_in_flight", "Our requests at the server.", *_BACKEND
)
BACKEND_EXTERNAL = gauge(
    "llm_gateway_backend_external_sequences",
    "Estimate of the sequences at the server that are not ours.",
    *_BACKEND,
)
BACKEND_PREFILL = gauge(
    "llm_gateway_backend_pending_prefill_tokens",
    "Uncached prompt tokens of our requests there that have no first token yet.",
    *_BACKEND,
)
BACKEND_KV_RESERVED = gauge(
    "llm_gateway_backend_kv_reserved_tokens",
    "Prompts plus expected answers of our requests at the server.",
    *_BACKEND,
)
BACKEND_KV_USAGE = gauge(
    "llm_gateway_backend_kv_usage_ratio", "KV cache in use, as the server reports it.", *_BACKEND
)
BACKEND_WAITING = gauge(
    "llm_gateway_backend_waiting_requests", "The engine's own queue, as reported.", *_BACKEND
)
BACKEND_REPORT_AGE = gauge(
    "llm_gateway_backend_metrics_age_seconds", "Age of the server's last report.", *_BACKEND
)
ADAPTERS_ACTIVE = gauge(
    "llm_gateway_backend_adapters_active", "LoRA adapters with requests in flight.", *_BACKEND
)
ADAPTERS_RESIDENT = gauge(
    "llm_gateway_backend_adapters_resident", "LoRA adapters believed to be loaded.", *_BACKEND
)
ADAPTER_SLOTS = gauge(
    "llm_gateway_backend_adapter_slots", "LoRA adapters that fit into one batch.", *_BACKEND
)

# -- forecasts per server ---------------------------------------------------------------------

BACKEND_TTFT_ERROR = gauge(
    "llm_gateway_backend_ttft_forecast_error_ratio",
    "Running mean of |forecast - actual| / actual of TTFT, each at most 3, from dispatch, over"
    " about 50 requests.",
    *_BACKEND,
)
BACKEND_TTFT_COVERAGE = gauge(
    "llm_gateway_backend_ttft_p90_coverage_ratio",
    "Running share of TTFTs within the forecast of their 90th percentile; 0.9 is right.",
    *_BACKEND,
)
BACKEND_TTFT_SAMPLES = counter(
    "llm_gateway_backend_ttft_forecast_samples_total",
    "TTFTs that forecasts were compared with.",
    *_BACKEND,
)
BACKEND_TPOT_ERROR = gauge(
    "llm_gateway_backend_tpot_forecast_error_ratio",
    "Running mean of |forecast - actual| / actual of TPOT, each at most 3, over about 50 requests.",
    *_BACKEND,
)
BACKEND_TPOT_COVERAGE = gauge(
    "llm_gateway_backend_tpot_p90_coverage_ratio",
    "Running share of TPOTs within the forecast of their 90th percentile; 0.9 is right.",
    *_BACKEND,
)
BACKEND_TPOT_SAMPLES = counter(
    "llm_gateway_backend_tpot_forecast_samples_total",
    "TPOTs that forecasts were compared with.",
    *_BACKEND,
)
BACKEND_TRUST = gauge(
    "llm_gateway_backend_forecast_trust_ratio",
    "How far the choice of a server goes by its forecasts: 1 fully, 0 by what is outstanding.",
    *_BACKEND,
)

OF_SERVERS = (
    *(BACKEND_USABLE, BACKEND_SATURATION, BACKEND_FULL, BACKEND_EJECTED, BACKEND_EJECTIONS),
    *(BACKEND_FAILURE_RATE, BACKEND_FAILURES),
    *(BACKEND_IN_FLIGHT, BACKEND_EXTERNAL, BACKEND_PREFILL),
    *(BACKEND_KV_RESERVED, BACKEND_KV_USAGE, BACKEND_WAITING, BACKEND_REPORT_AGE),
    *(ADAPTERS_ACTIVE, ADAPTERS_RESIDENT, ADAPTER_SLOTS),
)
OF_FORECASTS = (
    *(BACKEND_TTFT_ERROR, BACKEND_TTFT_COVERAGE, BACKEND_TTFT_SAMPLES),
    *(BACKEND_TPOT_ERROR, BACKEND_TPOT_COVERAGE, BACKEND_TPOT_SAMPLES),
    BACKEND_TRUST,
)
