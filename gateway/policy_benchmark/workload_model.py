"""What a workload is: the shape of a workload file (YAML), validated.

A workload fixes everything but the policy and the load: model servers, services with their
objectives and priorities, how requests arrive, how long they are and what prefixes they share.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.policy_benchmark.durations import Duration, Instant

Tokens = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Quantile = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LogNormal(_Model):
    """A lognormal distribution by its mean and its coefficient of variation."""

    mean: Share
    cv: Share


class TokenCounts(_Model):
    """A distribution of token counts; exactly one of the fields is given.

    `quantiles` maps probabilities (0 and 1 among them) to tokens; between them the value is
    interpolated linearly.
    """

    fixed: Tokens | None = None
    uniform: tuple[Tokens, Tokens] | None = None
    lognormal: LogNormal | None = None
    quantiles: dict[Quantile, Tokens] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = (self.fixed, self.uniform, self.lognormal, self.quantiles)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("give exactly one of fixed, uniform, lognormal, quantiles")
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform needs [lowest, highest]")
        if self.quantiles is not None:
            values = [self.quantiles[p] for p in sorted(self.quantiles)]
            if values != sorted(values) or not {0.0, 1.0} <= set(self.quantiles):
                raise ValueError("quantiles need 0 and 1 and must not decrease")
        return self


class MixturePart(_Model):
    """One component of a mixture of lengths."""

    weight: Share
    lengths: "Lengths"


class Lengths(_Model):
    """Input and output tokens of a request: from a trace, from distributions, or a mixture.

    Attributes:
        max_input: rows with a longer prompt are left out (servers refuse them: max_model_len).
        in_order: where arrivals follow the same trace, each has the lengths of its own row, with
            the trend and correlation that were recorded; else rows are drawn evenly.
    """

    trace: str | None = None
    input: TokenCounts | None = None
    output: TokenCounts | None = None
    mixture: tuple[MixturePart, ...] = ()
    max_input: Tokens | None = None
    in_order: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        drawn = self.input is not None or self.output is not None
        if (self.trace is not None) + drawn + bool(self.mixture) != 1:
            raise ValueError("give exactly one of trace, input with output, mixture")
        if drawn and (self.input is None or self.output is None):
            raise ValueError("input and output belong together")
        return self


class Stage(_Model):
    """A stretch of time with its own rate: a multiple of the scaled rate, or requests/s."""

    duration: Duration
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Bulk(_Model):
    """Requests that arrive all at once, at each of the instants."""

    at: tuple[Instant, ...] = Field(min_length=1)
    requests: Annotated[int, Field(ge=1)]


class Arrivals(_Model):
    """When requests arrive: as a trace's do, in stages, in bulk, or as a renewal process.

    Attributes:
        trace: arrival offsets of this trace, time scaled to the wanted rate, repeated at its end.
        level_over: with a trace: the stretch of its own time over which its rate is levelled out.
            Compressing hours into minutes turns the day's slow trend into a burst that no pool
            sees; levelled, only variation faster than this is kept. None: as recorded.
        cv: coefficient of variation of gamma distributed gaps; 1 is a Poisson process.
        stages: Poisson with these rates, from the start of the simulation; repeated at the end
            when `repeat`, else the last stage goes on.
        bulk: absolute instants and numbers of requests, not scaled by the load.
    """

    trace: str | None = None
    level_over: Duration | None = None
    cv: Share | None = None
    stages: tuple[Stage, ...] = ()
    repeat: bool = True
    bulk: Bulk | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = (self.trace is not None, self.cv is not None, bool(self.stages), self.bulk)
        if sum(map(bool, kinds)) > 1:
            raise ValueError("give one of trace, cv, stages, bulk")
        if self.level_over is not None and self.trace is None:
            raise ValueError("level_over belongs to a trace")
        if self.stages and not any(stage.rate > 0 for stage in self.stages):
            raise ValueError("at least one stage needs a rate above 0")
        if self.stages and not self.repeat and self.stages[-1].rate <= 0:
            raise ValueError("the last stage goes on for ever and needs a rate above 0")
        return self


class Objective(_Model):
    """Latency bounds of a service; see gateway.scheduling.model.LatencyObjective."""

    ttft: Duration | None = None
    tpot: Duration | None = None
    ntpot: Duration | None = None
    percentile: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.ttft is None and self.tpot is None and self.ntpot is None:
            raise ValueError("an objective needs ttft, tpot or ntpot")
        return self


class Adapters(_Model):
    """LoRA adapters of a service; it becomes one service per adapter, named NAME-00, NAME-01...

    Popularity is `1 / rank**zipf`, or the given `shares`.
    """

    count: Annotated[int, Field(ge=1, le=10_000)] | None = None
    zipf: Annotated[float, Field(ge=0)] = 1.0
    shares: tuple[Share, ...] = ()
    rank: Annotated[int, Field(ge=1)] = 16

    @model_validator(mode="after")
    def _some(self) -> Self:
        if (self.count is None) == (not self.shares):
            raise ValueError("give either count or shares")
        return self


class PrefixGroups(_Model):
    """Prompts that share a system prompt: `groups` of them, each with `prompts` questions."""

    groups: Annotated[int, Field(ge=1)]
    prompts: Annotated[int, Field(ge=1)] = 1
    system_tokens: Tokens
    block_tokens: Annotated[int, Field(ge=16, multiple_of=16)] = 80


class Service(_Model):
    """One service; `share` of the arrivals is its own unless it has `arrivals` of its own.

    With `arrivals` of its own, `share` scales them (a share of 1 is the workload's whole rate).
    """

    name: str = Field(min_length=1)
    share: Share = 1.0
    lengths: Lengths
    arrivals: Arrivals | None = None
    objective: Objective | None = None
    priority: Literal["critical", "non-critical"] | int | None = None
    fairness_weight: Share = 1.0
    max_share: Annotated[float, Field(gt=0, le=1)] | None = None
    max_queue_wait: Duration | None = None
    max_tokens: Tokens | None = None
    adapters: Adapters | None = None
    prefix: PrefixGroups | None = None


class EngineTerms(_Model):
    """Terms that the engine's step formula lacks; see gateway.simulator.engine_model.

    With them a predictor that merely inverts the simulator's own formula is found out.
    """

    batch_square: Annotated[float, Field(ge=0)] = 0.0
    stall_every: Instant = 0.0
    stall: Instant = 0.2
    speculative_tokens: Annotated[int, Field(ge=1, le=8)] = 1


class Servers(_Model):
    """The model servers. `speeds` is repeated over them; 0.5 is a server at half speed.

    Attributes:
        max_loras: adapter slots in one batch; None means the pool has no LoRA.
        kv_reserved_slots: adapter slots whose memory is taken from the KV cache (`max_loras`
            where not given).
        unmodelled: extra terms of the engines.
    """

    profile: str
    count: Annotated[int, Field(ge=1, le=10_000)]
    speeds: tuple[Share, ...] = (1.0,)
    max_loras: Annotated[int, Field(ge=1)] | None = None
    kv_reserved_slots: Annotated[int, Field(ge=0)] | None = None
    unmodelled: EngineTerms = EngineTerms()


class ServerFault(_Model):
    """At this instant `kill` servers die for good (the last ones by number)."""

    at: Instant
    kill: Annotated[int, Field(ge=1)]


class Measurement(_Model):
    """What is measured: after `warmup`, either a number of requests or a stretch of time."""

    warmup: Instant = 60.0
    requests: Annotated[int, Field(ge=1)] | None = None
    duration: Duration | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.requests is None) == (self.duration is None):
            raise ValueError("give either requests or duration")
        return self


class Workload(_Model):
    """A whole workload file.

    Attributes:
        load_unit: `bound`: load 1.0 is the closed-form bound; `published`: the rates are
            requests/s as written, and the load multiplies them.
        loads: what is run when no load is asked for.
    """

    name: str = Field(min_length=1)
    description: str
    servers: Servers
    services: tuple[Service, ...]
    arrivals: Arrivals = Arrivals()
    measure: Measurement
    load_unit: Literal["bound", "published"] = "bound"
    loads: tuple[Share, ...] = (0.5, 0.8, 0.9, 1.2)
    faults: tuple[ServerFault, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.services:
            raise ValueError("at least one service is needed")
        names = [service.name for service in self.services]
        if len(set(names)) != len(names):
            raise ValueError("service names must differ")
        if sum(fault.kill for fault in self.faults) >= self.servers.count:
            raise ValueError("at least one server must survive the faults")
        if self.load_unit == "published" and self.measure.duration is None:
            raise ValueError("load_unit published needs measure.duration")
        if self.servers.max_loras is None and any(s.adapters for s in self.services):
            raise ValueError("services with adapters need servers.max_loras")
        return self
