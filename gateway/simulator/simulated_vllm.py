"""What the handlers of a simulated server share: engine, models, faults, answers in the making."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from gateway.simulator.api_requests import GenerationRequest, RequestReader
from gateway.simulator.engine import BLOCK_TOKENS, Engine, EngineOptions, EngineRequest
from gateway.simulator.fault_switches import FaultSwitches
from gateway.simulator.live_answers import StreamedAnswer, WholeAnswer
from gateway.simulator.live_engine import AnswerListener, LiveEngine
from gateway.simulator.metrics_page import ServerMetrics
from gateway.simulator.profiles import PROFILES, EngineProfile
from gateway.simulator.synthetic_language import SyntheticLanguage, prefix_hashes


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedServerOptions:
    """How a simulated server is started.

    Attributes:
        model: name of the base model.
        adapters: LoRA adapters that are loaded from the start; they need `engine.max_loras` > 0.
        max_model_len: longest prompt plus answer; None: what the profile and the KV cache allow.
        time_scale: engine seconds per real second.
        shutdown_s: how long `stop` waits for connections.
    """

    model: str = "base"
    adapters: tuple[str, ...] = ()
    profile: EngineProfile = PROFILES["llama3.1-8b-h100-80"]
    engine: EngineOptions = field(default_factory=EngineOptions)
    max_model_len: int | None = None
    time_scale: float = 1.0
    shutdown_s: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerClocks:
    """Where time comes from: `monotonic` for the engine, `wall` for dates in answers."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


class SimulatedVllm:
    """One simulated server without its HTTP.

    Attributes:
        adapters: loaded adapters, name to path.
        answers: answers in the making, in order of arrival.
        created: start of the server, seconds since the epoch.
    """

    def __init__(
        self, *, options: SimulatedServerOptions, clocks: ServerClocks, rng: Random
    ) -> None:
        """Start an idle engine.

        Raises:
            ValueError: adapters are named, but the engine has no slots.
        """
        if options.adapters and not options.engine.max_loras:
            raise ValueError("adapters need max_loras of at least 1")
        engine = Engine(profile=options.profile, rng=rng, options=options.engine)
        most = options.max_model_len or options.profile.max_model_len
        self.options = options
        self.max_model_len = min(most, engine.capacity_tokens)
        self.adapters = {name: f"adapters/{name}" for name in options.adapters}
        self.language = SyntheticLanguage()
        self.reader = RequestReader(self.language, options.model, self.adapters, self.max_model_len)
        self.switches = FaultSwitches()
        self.answers: dict[int, StreamedAnswer | WholeAnswer] = {}
        self.created = int(clocks.wall())
        self.metrics = ServerMetrics(model=options.model, wall_clock=clocks.wall)
        self.live = LiveEngine(
            engine=engine,
            clock=clocks.monotonic,
            time_scale=options.time_scale,
            observer=self.metrics,
        )
        self._clocks = clocks
        self._rng = rng
        self._count = 0

    def wall_time(self) -> int:
        """Whole seconds since the epoch."""
        return int(self._clocks.wall())

    def new_id(self, prefix: str, requested: str | None) -> str:
        """Id of an answer: the client's wish, or 16 random hexadecimal digits."""
        return f"{prefix}-{requested or f'{self._rng.getrandbits(64):016x}'}"

    def next_number(self) -> int:
        """Return a number that no other answer of this server has."""
        self._count += 1
        return self._count

    def submit(
        self, number: int, requests: list[tuple[EngineRequest, AnswerListener]], *, watched: bool
    ) -> bool:
        """Hand all of an answer's engine requests in; False, and none, if the queue is full."""
        for done, (request, listener) in enumerate(requests):
            self.metrics.on_arrival(request.id, self.live.now())
            if not self.live.submit(request, listener, watched=watched):
                self.metrics.on_rejection(request.id)
                self.abort(number, done)
                return False
        return True

    def abort(self, number: int, requests: int) -> None:
        """Drop the engine requests of an answer, as many as it has; finished ones are ignored."""
        for index in range(requests):
            request_id = engine_id(number, index)
            self.metrics.on_abort(request_id)
            self.live.abort(request_id)

    def engine_requests(
        self, number: int, request: GenerationRequest, lengths: list[int]
    ) -> list[EngineRequest]:
        """Return one engine request per choice of each prompt, in the order of `lengths`."""
        caching = self.options.engine.prefix_caching
        requests: list[EngineRequest] = []
        for prompt in request.prompts:
            blocks = prefix_hashes(prompt, BLOCK_TOKENS, request.cache_salt) if caching else ()
            for _ in range(request.choices):
                index = len(requests)
                requests.append(
                    EngineRequest(
                        id=engine_id(number, index),
                        adapter=request.adapter,
                        prompt_tokens=len(prompt),
                        output_tokens=lengths[index],
                        prefix_blocks=blocks,
                        priority=request.priority,
                    )
                )
        return requests


def engine_id(number: int, index: int) -> str:
    """Id of an engine request: the answer's number and the choice's index in it."""
    return f"{number}-{index}"
