"""Every metric of the gateway, defined once: the page of /metrics and docs/metrics.md follow."""

from gateway.telemetry import server_metric_definitions as servers
from gateway.telemetry.metric_kinds import MetricDefinition, counter, gauge, histogram

_SERVICE = ("pool", "service", "priority")

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


# -- requests ---------------------------------------------------------------------------------

REQUESTS = counter(
    "llm_gateway_requests_total", "Requests that have ended, by outcome.", *_SERVICE, "outcome"
)
REFUSALS = counter(
    "llm_gateway_refusals_total",
    "Requests that were refused, or waited in vain, by reason.",
    *_SERVICE,
    "reason",
)
FAILURES = counter(
    "llm_gateway_failures_total",
    "Requests that failed, or whose stream broke, by what happened last.",
    *_SERVICE,
    "reason",
)
RETRIES = counter(
    "llm_gateway_retries_total", "Attempts on a server after the first one.", *_SERVICE
)
CONTINUATIONS = counter(
    "llm_gateway_continuations_total",
    "Times that another server went on with a stream whose server had failed.",
    *_SERVICE,
)
FALLBACKS = counter(
    "llm_gateway_fallbacks_total",
    "Requests that the service got because no server had the models of the one asked for.",
    *_SERVICE,
)
PROMPT_TOKENS = counter(
    "llm_gateway_prompt_tokens_total", "Prompt tokens, as servers counted them.", *_SERVICE
)
CACHED_TOKENS = counter(
    "llm_gateway_cached_prompt_tokens_total",
    "Prompt tokens that servers had in their prefix cache.",
    *_SERVICE,
)
COMPLETION_TOKENS = counter(
    "llm_gateway_completion_tokens_total", "Output tokens, as servers counted them.", *_SERVICE
)

KEY_REQUESTS = counter(
    "llm_gateway_key_requests_total", "Requests that have ended, by API key.", "key", "outcome"
)
KEY_TOKENS = counter(
    "llm_gateway_key_tokens_total",
    "Tokens that servers counted, by API key and kind: prompt or completion.",
    "key",
    "kind",
)

# -- latency ----------------------------------------------------------------------------------

E2E = histogram(
    "llm_gateway_e2e_latency_seconds",
    "Arrival to last byte of answers that are complete.",
    _SERVICE,
    _MINUTES,
)
TTFT = histogram(
    "llm_gateway_time_to_first_token_seconds",
    "Arrival to first token (TTFT) of complete streamed answers.",
    _SERVICE,
    _TTFT,
)
TPOT = histogram(
    "llm_gateway_time_per_output_token_seconds",
    "Time per output token after the first (TPOT) of complete streamed answers.",
    _SERVICE,
    _PER_TOKEN,
)
NTPOT = histogram(
    "llm_gateway_normalized_time_per_output_token_seconds",
    "End-to-end latency over output tokens (NTPOT) of complete answers.",
    _SERVICE,
    _PER_TOKEN,
)
QUEUE_WAIT = histogram(
    "llm_gateway_queue_wait_seconds",
    "Time in the admission queue, of requests that were dispatched.",
    _SERVICE,
    _WAIT,
)
OVERHEAD = histogram(
    "llm_gateway_overhead_seconds",
    "The gateway's own time before the first attempt, waiting left out.",
    _SERVICE,
    _OVERHEAD,
)
TTFT_ERROR = histogram(
    "llm_gateway_ttft_forecast_error_ratio",
    "Error of the TTFT forecast: |forecast - actual| / actual, from dispatch to first token.",
    _SERVICE,
    _ERROR,
)
TPOT_ERROR = histogram(
    "llm_gateway_tpot_forecast_error_ratio",
    "Error of the TPOT forecast: |forecast - actual| / actual.",
    _SERVICE,
    _ERROR,
)

# -- queue and scheduler ----------------------------------------------------------------------

QUEUE_DEPTH = gauge("llm_gateway_queue_requests", "Requests that wait for a server.", *_SERVICE)
QUEUE_BYTES = gauge("llm_gateway_queue_bytes", "Size of the bodies of all that wait.", "pool")
TRACKED = gauge("llm_gateway_tracked_requests", "Requests that wait or are at a server.", "pool")
DRAINING = gauge(
    "llm_gateway_draining",
    "1 while the gateway finishes what it has and accepts no connections.",
    "pool",
)
PANIC = gauge(
    "llm_gateway_panic",
    "1 while so many servers are ejected that all of them are used all the same.",
    "pool",
)
IGNORED_EVENTS = counter(
    "llm_gateway_ignored_events_total",
    "Events about requests or servers that the scheduler no longer knew.",
    "pool",
)

# -- services ---------------------------------------------------------------------------------

SERVICE_ATTAINMENT = gauge(
    "llm_gateway_service_attainment_ratio",
    "Share that met the service's objective, of requests judged in the fairness window;"
    " without an objective, share that was served.",
    *_SERVICE,
)
SERVICE_BURN = gauge(
    "llm_gateway_service_burn",
    "Use of the error budget in the fairness window, times the fairness weight;"
    " 1 is exactly at the target, above it is worse.",
    *_SERVICE,
)
SERVICE_TARGET = gauge(
    "llm_gateway_service_target_ratio",
    "Share of its requests that must meet the service's objective; absent without one.",
    *_SERVICE,
)
SERVICE_JUDGED = counter(
    "llm_gateway_service_judged_total",
    "Requests of which it is certain whether they meet the service's objective.",
    *_SERVICE,
)
SERVICE_MISSED = counter(
    "llm_gateway_service_missed_total",
    "Those of them that missed it; without an objective, those that were not served.",
    *_SERVICE,
)
SERVICE_IN_FLIGHT = gauge(
    "llm_gateway_service_in_flight",
    "Requests at servers that have neither met nor missed the objective yet.",
    *_SERVICE,
)
SERVICE_EXPECTED_MISSES = gauge(
    "llm_gateway_service_expected_misses",
    "How many of those will miss it, by forecast.",
    *_SERVICE,
)

# -- servers that come and go -----------------------------------------------------------------

SERVERS = gauge(
    "llm_gateway_servers",
    "Servers of the pool by state: up, down, draining (gets nothing new), leaving (is removed when"
    " its last request has ended).",
    "pool",
    "state",
)
DISCOVERY_ERRORS = counter(
    "llm_gateway_discovery_errors_total",
    "Looks for servers that failed; what was found before stays.",
    "pool",
    "source",
)
DISCOVERY_AGE = gauge(
    "llm_gateway_discovery_age_seconds",
    "Time since a source of servers could last be read.",
    "pool",
    "source",
)
RELOADS = counter(
    "llm_gateway_reloads_total", "Reloads of the configuration, by result: ok, failed.", "result"
)

# -- the gateway itself -----------------------------------------------------------------------

CONNECTIONS = gauge(
    "llm_gateway_client_connections",
    "Open connections of clients, or of administrators.",
    "listener",
)
CUT_CONNECTIONS = counter(
    "llm_gateway_cut_connections_total",
    "Connections closed, or not taken, because of a limit on connections or headers, or because"
    " what came was malformed.",
    "listener",
    "reason",
)
LOOP_LAG = histogram(
    "llm_gateway_event_loop_lag_seconds",
    "How late the event loop wakes who waited a quarter of a second; large values mean that the"
    " gateway has too little CPU.",
    (),
    _LAG,
)
LOST_LINES = counter(
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
    ("Servers", servers.OF_SERVERS),
    ("Forecasts per server", servers.OF_FORECASTS),
    ("Servers that come and go", (SERVERS, DISCOVERY_ERRORS, DISCOVERY_AGE, RELOADS)),
    ("The gateway itself", (LOOP_LAG, CONNECTIONS, CUT_CONNECTIONS, LOST_LINES)),
)
"""Every metric, in the order of the document."""
