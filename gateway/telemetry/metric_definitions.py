"""Every metric of the gateway, defined once: the page of /metrics and docs/metrics.md follow."""

from enum import StrEnum
from typing import NamedTuple

_SERVICE = ("pool", "service", "priority")
_BACKEND = ("pool", "backend")

_MINUTES = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800)
_TTFT = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 40, 80)
_WAIT = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60)
_PER_TOKEN = (
    *(0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.045, 0.05, 0.06, 0.075, 0.1, 0.125),
    *(0.15, 0.2, 0.3, 0.5, 1, 2, 5),
)
_OVERHEAD = (5e-05, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_LAG = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_ERROR = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2, 5)


class MetricKind(StrEnum):
    """The kinds of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricDefinition(NamedTuple):
    """One metric family; `buckets` are upper bounds in the unit of the name."""

    name: str
    kind: MetricKind
    meaning: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


def _counter(name: str, meaning: str, *labels: str) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.GAUGE, meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...]) -> MetricDefinition:
    return MetricDefinition(name, MetricKind.HISTOGRAM, meaning, _SERVICE, buckets)


# -- requests ---------------------------------------------------------------------------------

REQUESTS = _counter(
    "llm_gateway_requests_total", "Requests that have ended, by outcome.", *_SERVICE, "outcome"
)
REFUSALS = _counter(
    "llm_gateway_refusals_total",
    "Requests that were refused, or waited in vain, by reason.",
    *_SERVICE,
    "reason",
)
FAILURES = _counter(
    "llm_gateway_failures_total",
    "Requests that failed, or whose stream broke, by what happened last.",
    *_SERVICE,
    "reason",
)
RETRIES = _counter(
    "llm_gateway_retries_total", "Attempts on a server after the first one.", *_SERVICE
)
CONTINUATIONS = _counter(
    "llm_gateway_continuations_total",
    "Times that another server went on with a stream whose server had failed.",
    *_SERVICE,
)
FALLBACKS = _counter(
    "llm_gateway_fallbacks_total",
    "Requests that the service got because no server had the models of the one asked for.",
    *_SERVICE,
)
PROMPT_TOKENS = _counter(
    "llm_gateway_prompt_tokens_total", "Prompt tokens, as servers counted them.", *_SERVICE
)
CACHED_TOKENS = _counter(
    "llm_gateway_cached_prompt_tokens_total",
    "Prompt tokens that servers had in their prefix cache.",
    *_SERVICE,
)
COMPLETION_TOKENS = _counter(
    "llm_gateway_completion_tokens_total", "Output tokens, as servers counted them.", *_SERVICE
)

KEY_REQUESTS = _counter(
    "llm_gateway_key_requests_total", "Requests that have ended, by API key.", "key", "outcome"
)
KEY_TOKENS = _counter(
    "llm_gateway_key_tokens_total",
    "Tokens that servers counted, by API key and kind: prompt or completion.",
    "key",
    "kind",
)

# -- latency ----------------------------------------------------------------------------------

E2E = _histogram(
    "llm_gateway_e2e_latency_seconds",
    "Arrival to last byte of answers that are complete.",
    _MINUTES,
)
TTFT = _histogram(
    "llm_gateway_time_to_first_token_seconds",
    "Arrival to first token (TTFT) of complete streamed answers.",
    _TTFT,
)
TPOT = _histogram(
    "llm_gateway_time_per_output_token_seconds",
    "Time per output token after the first (TPOT) of complete streamed answers.",
    _PER_TOKEN,
)
NTPOT = _histogram(
    "llm_gateway_normalized_time_per_output_token_seconds",
    "End-to-end latency over output tokens (NTPOT) of complete answers.",
    _PER_TOKEN,
)
QUEUE_WAIT = _histogram(
    "llm_gateway_queue_wait_seconds",
    "Time in the admission queue, of requests that were dispatched.",
    _WAIT,
)
OVERHEAD = _histogram(
    "llm_gateway_overhead_seconds",
    "The gateway's own time before the first attempt, waiting left out.",
    _OVERHEAD,
)
TTFT_ERROR = _histogram(
    "llm_gateway_ttft_forecast_error_ratio",
    "Error of the TTFT forecast: |forecast - actual| / actual, from dispatch to first token.",
    _ERROR,
)
TPOT_ERROR = _histogram(
    "llm_gateway_tpot_forecast_error_ratio",
    "Error of the TPOT forecast: |forecast - actual| / actual.",
    _ERROR,
)

# -- queue and scheduler ----------------------------------------------------------------------

QUEUE_DEPTH = _gauge("llm_gateway_queue_requests", "Requests that wait for a server.", *_SERVICE)
QUEUE_BYTES = _gauge("llm_gateway_queue_bytes", "Size of the bodies of all that wait.", "pool")
TRACKED = _gauge("llm_gateway_tracked_requests", "Requests that wait or are at a server.", "pool")
DRAINING = _gauge(
    "llm_gateway_draining",
    "1 while the gateway finishes what it has and accepts no connections.",
    "pool",
)
PANIC = _gauge(
    "llm_gateway_panic",
    "1 while so many servers are ejected that all of them are used all the same.",
    "pool",
)
IGNORED_EVENTS = _counter(
    "llm_gateway_ignored_events_total",
    "Events about requests or servers that the scheduler no longer knew.",
    "pool",
)

# -- services ---------------------------------------------------------------------------------

SERVICE_ATTAINMENT = _gauge(
    "llm_gateway_service_attainment_ratio",
    "Share that met the service's objective, of requests judged in the fairness window;"
    " without an objective, share that was served.",
    *_SERVICE,
)
SERVICE_BURN = _gauge(
    "llm_gateway_service_burn",
    "Use of the error budget in the fairness window, times the fairness weight;"
    " 1 is exactly at the target, above it is worse.",
    *_SERVICE,
)
SERVICE_TARGET = _gauge(
    "llm_gateway_service_target_ratio",
    "Share of its requests that must meet the service's objective; absent without one.",
    *_SERVICE,
)
SERVICE_JUDGED = _counter(
    "llm_gateway_service_judged_total",
    "Requests of which it is certain whether they meet the service's objective.",
    *_SERVICE,
)
SERVICE_MISSED = _counter(
    "llm_gateway_service_missed_total",
    "Those of them that missed it; without an objective, those that were not served.",
    *_SERVICE,
)
SERVICE_IN_FLIGHT = _gauge(
    "llm_gateway_service_in_flight",
    "Requests at servers that have neither met nor missed the objective yet.",
    *_SERVICE,
)
SERVICE_EXPECTED_MISSES = _gauge(
    "llm_gateway_service_expected_misses",
    "How many of those will miss it, by forecast.",
    *_SERVICE,
)

# -- servers ----------------------------------------------------------------------------------

BACKEND_USABLE = _gauge(
    "llm_gateway_backend_usable", "1 if the server is up and not draining.", *_BACKEND
)
BACKEND_FULL = _gauge(
    "llm_gateway_backend_full", "1 if the server takes no further request for now.", *_BACKEND
)
BACKEND_EJECTED = _gauge(
    "llm_gateway_backend_ejected",
    "1 if the server gets nothing new for now because requests failed there.",
    *_BACKEND,
)
BACKEND_EJECTIONS = _counter(
    "llm_gateway_backend_ejections_total",
    "Times the server was ejected after it had been well.",
    *_BACKEND,
)
BACKEND_FAILURE_RATE = _gauge(
    "llm_gateway_backend_failure_ratio",
    "Chance that a request fails at the server, judged by about the last 30 seconds.",
    *_BACKEND,
)
BACKEND_FAILURES = _counter(
    "llm_gateway_backend_failures_total",
    "Attempts that failed at the server, by what happened; those made good elsewhere too.",
    *_BACKEND,
    "reason",
)
BACKEND_SATURATION = _gauge(
    "llm_gateway_backend_saturation_ratio",
    "Share in use of what is scarcest there: places, prefill, KV cache, or pace (TPOT against the"
    " strictest objective there).",
    *_BACKEND,
)
BACKEND_IN_FLIGHT = _gauge(
    "llm_gateway_backend_requests_in_flight", "Our requests at the server.", *_BACKEND
)
BACKEND_EXTERNAL = _gauge(
    "llm_gateway_backend_external_sequences",
    "Estimate of the sequences at the server that are not ours.",
    *_BACKEND,
)
BACKEND_PREFILL = _gauge(
    "llm_gateway_backend_pending_prefill_tokens",
    "Uncached prompt tokens of our requests there that have no first token yet.",
    *_BACKEND,
)
BACKEND_KV_RESERVED = _gauge(
    "llm_gateway_backend_kv_reserved_tokens",
    "Prompts plus expected answers of our requests at the server.",
    *_BACKEND,
)
BACKEND_KV_USAGE = _gauge(
    "llm_gateway_backend_kv_usage_ratio", "KV cache in use, as the server reports it.", *_BACKEND
)
BACKEND_WAITING = _gauge(
    "llm_gateway_backend_waiting_requests", "The engine's own queue, as reported.", *_BACKEND
)
BACKEND_REPORT_AGE = _gauge(
    "llm_gateway_backend_metrics_age_seconds", "Age of the server's last report.", *_BACKEND
)
ADAPTERS_ACTIVE = _gauge(
    "llm_gateway_backend_adapters_active", "LoRA adapters with requests in flight.", *_BACKEND
)
ADAPTERS_RESIDENT = _gauge(
    "llm_gateway_backend_adapters_resident", "LoRA adapters believed to be loaded.", *_BACKEND
)
ADAPTER_SLOTS = _gauge(
    "llm_gateway_backend_adapter_slots", "LoRA adapters that fit into one batch.", *_BACKEND
)

# -- forecasts per server ---------------------------------------------------------------------

BACKEND_TTFT_ERROR = _gauge(
    "llm_gateway_backend_ttft_forecast_error_ratio",
    "Running mean of |forecast - actual| / actual of TTFT, from dispatch, over about 50 requests.",
    *_BACKEND,
)
BACKEND_TTFT_COVERAGE = _gauge(
    "llm_gateway_backend_ttft_p90_coverage_ratio",
    "Running share of TTFTs within the forecast of their 90th percentile; 0.9 is right.",
    *_BACKEND,
)
BACKEND_TTFT_SAMPLES = _counter(
    "llm_gateway_backend_ttft_forecast_samples_total",
    "TTFTs that forecasts were compared with.",
    *_BACKEND,
)
BACKEND_TPOT_ERROR = _gauge(
    "llm_gateway_backend_tpot_forecast_error_ratio",
    "Running mean of |forecast - actual| / actual of TPOT, over about 50 requests.",
    *_BACKEND,
)
BACKEND_TPOT_COVERAGE = _gauge(
    "llm_gateway_backend_tpot_p90_coverage_ratio",
    "Running share of TPOTs within the forecast of their 90th percentile; 0.9 is right.",
    *_BACKEND,
)
BACKEND_TPOT_SAMPLES = _counter(
    "llm_gateway_backend_tpot_forecast_samples_total",
    "TPOTs that forecasts were compared with.",
    *_BACKEND,
)
BACKEND_TRUST = _gauge(
    "llm_gateway_backend_forecast_trust_ratio",
    "How far the choice of a server goes by its forecasts: 1 fully, 0 by what is outstanding.",
    *_BACKEND,
)

# -- servers that come and go -----------------------------------------------------------------

SERVERS = _gauge(
    "llm_gateway_servers",
    "Servers of the pool by state: up, down, draining (gets nothing new), leaving (is removed when"
    " its last request has ended).",
    "pool",
    "state",
)
DISCOVERY_ERRORS = _counter(
    "llm_gateway_discovery_errors_total",
    "Looks for servers that failed; what was found before stays.",
    "pool",
    "source",
)
DISCOVERY_AGE = _gauge(
    "llm_gateway_discovery_age_seconds",
    "Time since a source of servers could last be read.",
    "pool",
    "source",
)
RELOADS = _counter(
    "llm_gateway_reloads_total", "Reloads of the configuration, by result: ok, failed.", "result"
)

# -- the gateway itself -----------------------------------------------------------------------

CONNECTIONS = _gauge(
    "llm_gateway_client_connections",
    "Open connections of clients, or of administrators.",
    "listener",
)
CUT_CONNECTIONS = _counter(
    "llm_gateway_cut_connections_total",
    "Connections closed, or not taken, because of a limit on connections or headers.",
    "listener",
    "reason",
)
LOOP_LAG = MetricDefinition(
    "llm_gateway_event_loop_lag_seconds",
    MetricKind.HISTOGRAM,
    "How late the event loop wakes who waited a quarter of a second; large values mean that the"
    " gateway has too little CPU.",
    (),
    _LAG,
)
LOST_LINES = _counter(
    "llm_gateway_lost_lines_total",
    "Lines of the journal or the request log that could not be written.",
    "output",
)

SECTIONS: tuple[tuple[str, tuple[MetricDefinition, ...]], ...] = (
    (
        "Requests",
        (
            *(REQUESTS, REFUSALS, FAILURES, RETRIES, CONTINUATIONS, FALLBACKS),
            *(PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS, KEY_REQUESTS, KEY_TOKENS),
        ),
    ),
    (
        "Latency and forecasts",
        (E2E, TTFT, TPOT, NTPOT, QUEUE_WAIT, OVERHEAD, TTFT_ERROR, TPOT_ERROR),
    ),
    (
        "Queue and scheduler",
        (QUEUE_DEPTH, QUEUE_BYTES, TRACKED, DRAINING, PANIC, IGNORED_EVENTS),
    ),
    (
        "Services",
        (
            *(SERVICE_ATTAINMENT, SERVICE_BURN, SERVICE_TARGET, SERVICE_JUDGED, SERVICE_MISSED),
            *(SERVICE_IN_FLIGHT, SERVICE_EXPECTED_MISSES),
        ),
    ),
    (
        "Servers",
        (
            *(BACKEND_USABLE, BACKEND_SATURATION, BACKEND_FULL, BACKEND_EJECTED, BACKEND_EJECTIONS),
            *(BACKEND_FAILURE_RATE, BACKEND_FAILURES),
            *(BACKEND_IN_FLIGHT, BACKEND_EXTERNAL, BACKEND_PREFILL),
            *(BACKEND_KV_RESERVED, BACKEND_KV_USAGE, BACKEND_WAITING, BACKEND_REPORT_AGE),
            *(ADAPTERS_ACTIVE, ADAPTERS_RESIDENT, ADAPTER_SLOTS),
        ),
    ),
    (
        "Forecasts per server",
        (
            *(BACKEND_TTFT_ERROR, BACKEND_TTFT_COVERAGE, BACKEND_TTFT_SAMPLES),
            *(BACKEND_TPOT_ERROR, BACKEND_TPOT_COVERAGE, BACKEND_TPOT_SAMPLES),
            BACKEND_TRUST,
        ),
    ),
    ("Servers that come and go", (SERVERS, DISCOVERY_ERRORS, DISCOVERY_AGE, RELOADS)),
    ("The gateway itself", (LOOP_LAG, CONNECTIONS, CUT_CONNECTIONS, LOST_LINES)),
)
"""Every metric, in the order of the document."""
