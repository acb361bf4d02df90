"""The simulated server's /metrics page: vLLM 0.32's names, labels and quirks (as recorded).

Only what routers read is there; families that would stay 0 are left out.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from gateway.scheduling.model import BackendLoad
from gateway.simulator.engine import Engine

_LATENCY_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_E2E_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Histogram:
    """Counts per bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Make an empty histogram with these upper bounds."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, model: str) -> Iterator[str]:
        """Yield the samples in Prometheus text format."""
        total = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{engine="0",le="{bound}",model_name="{model}"}} {total}.0'
        yield f'{name}_count{{engine="0",model_name="{model}"}} {total}.0'
        yield f'{name}_sum{{engine="0",model_name="{model}"}} {self._sum!r}'


class ServerMetrics:
    """What a server counts beside its engine; an `EngineObserver`."""

    def __init__(self, *, model: str, wall_clock: Callable[[], float]) -> None:
        """Count for the base model `model`; `wall_clock` gives seconds since the epoch."""
        self._model = model
        self._wall_clock = wall_clock
        self._arrived_at: dict[str, float] = {}
        self._ttft = Histogram(_LATENCY_BUCKETS)
        self._e2e = Histogram(_E2E_BUCKETS)
        self._finished = {"stop": 0, "length": 0, "abort": 0, "error": 0, "repetition": 0}
        self._lora_series: dict[str, float] = {}
        self._rejections = 0

    def on_arrival(self, request_id: str, at: float) -> None:
        """A request is handed to the engine."""
        self._arrived_at[request_id] = at

    def on_rejection(self, request_id: str) -> None:
        """A request found the queue full."""
        del self._arrived_at[request_id]
        self._rejections += 1

    def on_abort(self, request_id: str) -> None:
        """A request was dropped: vLLM counts nothing for it."""
        self._arrived_at.pop(request_id, None)

    def on_first_token(self, request_id: str, at: float) -> None:
        """A request's first token came."""
        if (arrived_at := self._arrived_at.get(request_id)) is not None:
            self._ttft.observe(at - arrived_at)

    def on_finished(self, request_id: str, at: float) -> None:
        """A request ended."""
        if (arrived_at := self._arrived_at.pop(request_id, None)) is not None:
            self._e2e.observe(at - arrived_at)

    def on_finish_reason(self, reason: str) -> None:
        """An answer ended, by this reason."""
        self._finished[reason] += 1

    def on_adapters(self, running: tuple[str, ...]) -> None:
        """These adapters run now: their combination's series gets the time, forever."""
        if running or self._lora_series:
            self._lora_series[",".join(running)] = self._wall_clock()

    def page(self, engine: Engine) -> str:
        """Write the page."""
        model = self._model
        load = engine.load()
        blocks = [
            *_gauges(load, model),
            *_counters(load, model),
            _block(
                "vllm:request_success_total",
                "counter",
                "Count of successfully processed requests.",
                [
                    f'{{engine="0",finished_reason="{reason}",model_name="{model}"}} {count}.0'
                    for reason, count in self._finished.items()
                ],
            ),
            _block(
                "vllm:admission_rejections_total",
                "counter",
                "Number of admission attempts rejected by a queue limit, by reason.",
                [f'{{model_name="{model}",reason="max_num_queued_reqs"}} {self._rejections}.0'],
            ),
            self._steps(load),
            _histogram("vllm:time_to_first_token_seconds", self._ttft, model),
            _histogram("vllm:e2e_request_latency_seconds", self._e2e, model),
            *self._lora(engine.options.max_loras),
            _cache_config(load, caching=engine.options.prefix_caching),
        ]
        return "\n".join(blocks) + "\n"

    def _steps(self, load: BackendLoad) -> str:
        name = "vllm:iteration_tokens_total"
        tokens = (load.prompt_tokens_total or 0.0) + (load.generation_tokens_total or 0.0)
        labels = f'{{engine="0",model_name="{self._model}"}}'
        everything = f'{{engine="0",le="+Inf",model_name="{self._model}"}}'
        return "\n".join(
            (
                f"# HELP {name} Histogram of number of tokens per engine_step.",
                f"# TYPE {name} histogram",
                f"{name}_bucket{everything} {load.steps_total}",
                f"{name}_count{labels} {load.steps_total}",
                f"{name}_sum{labels} {tokens}",
            )
        )

    def _lora(self, max_loras: int) -> Iterator[str]:
        if self._lora_series:
            samples = [
                f'{{max_lora="{max_loras}",running_lora_adapters="{names}",'
                f'waiting_lora_adapters="{names}"}} {updated_at:.16e}'
                for names, updated_at in self._lora_series.items()
            ]
            yield _block(
                "vllm:lora_requests_info", "gauge", "Running stats on lora requests.", samples
            )


def _block(name: str, kind: str, text: str, samples: list[str]) -> str:
    head = f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    return head + "\n".join(name + sample for sample in samples)


def _histogram(name: str, histogram: Histogram, model: str) -> str:
    lines = "\n".join(histogram.lines(name, model))
    return f"# HELP {name} Histogram in seconds.\n# TYPE {name} histogram\n{lines}"


def _gauges(load: BackendLoad, model: str) -> Iterator[str]:
    labels = f'{{engine="0",model_name="{model}"}}'
    waiting = load.waiting or 0
    deferred = load.waiting_deferred or 0
    yield _block(
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
        [f"{labels} {load.running}.0"],
    )
    yield _block(
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        [f"{labels} {waiting}.0"],
    )
    yield _block(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling "
        "capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, "
        "blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        [
            f'{{engine="0",model_name="{model}",reason="capacity"}} {waiting - deferred}.0',
            f'{{engine="0",model_name="{model}",reason="deferred"}} {deferred}.0',
        ],
    )
    yield _block(
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage. 1 means 100 percent usage.",
        [f"{labels} {load.kv_usage!r}"],
    )


def _counters(load: BackendLoad, model: str) -> Iterator[str]:
    labels = f'{{engine="0",model_name="{model}"}}'
    for name, text, value in (
        (
            "vllm:prefix_cache_queries_total",
            "Prefix cache queries, in terms of number of queried tokens.",
            load.prefix_queries_total,
        ),
        (
            "vllm:prefix_cache_hits_total",
            "Prefix cache hits, in terms of number of cached tokens.",
            load.prefix_hits_total,
        ),
        (
            "vllm:num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            load.preemptions_total,
        ),
        (
            "vllm:prompt_tokens_total",
            "Number of prefill tokens processed.",
            load.prompt_tokens_total,
        ),
        (
            "vllm:generation_tokens_total",
            "Number of generation tokens processed.",
            load.generation_tokens_total,
        ),
    ):
        yield _block(name, "counter", text, [f"{labels} {value}"])


def _cache_config(load: BackendLoad, *, caching: bool) -> str:
    blocks, tokens = load.kv_blocks or 0, load.block_tokens or 0
    sample = (
        f'{{_block_size_resolved="True",block_size="{tokens}",cache_dtype="auto",'
        f'enable_prefix_caching="{caching}",engine="0",gpu_memory_utilization="0.92",'
        f'kv_cache_size_tokens="{blocks * tokens}",num_cpu_blocks="None",'
        f'num_gpu_blocks="{blocks}",num_gpu_blocks_override="None",'
        'prefix_caching_hash_algo="sha256",sliding_window="None"} 1.0'
    )
    text = "Information of the LLMEngine CacheConfig"
    return _block("vllm:cache_config_info", "gauge", text, [sample])
