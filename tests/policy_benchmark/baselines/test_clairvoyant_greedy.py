from random import Random

from gateway.policy_benchmark.baselines.clairvoyant_greedy import ClairvoyantGreedy, Oracle
from gateway.scheduling.decisions import Dispatch, Reject
from gateway.scheduling.events import BackendLeft, RequestArrived
from gateway.scheduling.model import BackendId, LatencyObjective, RequestId, ServiceName
from gateway.simulator.engine import Engine, EngineOptions, EngineRequest
from gateway.simulator.fleet_model import FleetRequest
from gateway.simulator.profiles import PROFILES
from tests.policy_benchmark.baselines.baseline_rig import request


class World:
    """Two engines and what the oracle knows; one request may already run."""

    def __init__(
        self, objective: LatencyObjective, *, speeds: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        self.engines = {
            BackendId(name): Engine(
                profile=PROFILES["llama3.1-8b-h100-64"],
                rng=Random(1),
                options=EngineOptions(speed=speed),
            )
            for name, speed in zip("ab", speeds, strict=True)
        }
        self.in_flight: dict[RequestId, FleetRequest] = {}
        self.policy = ClairvoyantGreedy(
            Oracle(
                engines=self.engines,
                in_flight=self.in_flight,
                objectives={ServiceName("chat"): objective},
                base_model="base",
                delay_s=0.001,
            )
        )

    def arrive(self, request_id: str, *, prompt: int = 100, output: int = 20) -> str:
        planned = FleetRequest(0.0, request(request_id), prompt, output)
        self.in_flight[planned.request.id] = planned
        (decision,) = self.policy.handle(RequestArrived(planned.request), now=0.0)
        assert isinstance(decision, Dispatch | Reject)
        return decision.backend_id if isinstance(decision, Dispatch) else "refused"


def test_the_server_where_the_request_ends_first_is_taken() -> None:
    assert World(LatencyObjective(ttft_s=1.0), speeds=(0.5, 1.0)).arrive("r1") == "b"


def test_requests_that_are_still_on_the_way_are_reckoned_with() -> None:
    world = World(LatencyObjective(ttft_s=1.0))
    assert {world.arrive("r1", prompt=4000), world.arrive("r2", prompt=4000)} == {"a", "b"}


def test_a_request_that_must_miss_everywhere_is_refused() -> None:
    assert World(LatencyObjective(ttft_s=0.5)).arrive("r1", prompt=30_000) == "refused"


def test_a_request_that_would_make_another_one_miss_is_refused() -> None:
    # One alone decodes at about 10.9 ms a token; a long prefill in between breaks 13 ms.
    world = World(LatencyObjective(tpot_s=0.013))
    assert {world.arrive("r1"), world.arrive("r2")} == {"a", "b"}
    assert world.arrive("r3", prompt=4000) == "refused"


def test_a_server_that_left_is_not_asked() -> None:
    world = World(LatencyObjective(ttft_s=1.0), speeds=(0.5, 1.0))
    world.policy.handle(BackendLeft(BackendId("b")), now=0.0)
    assert world.arrive("r1") == "a"


def test_looking_ahead_leaves_the_engines_as_they_are() -> None:
    world = World(LatencyObjective(ttft_s=1.0))
    engine = world.engines[BackendId("a")]
    engine.submit(EngineRequest(id="x", adapter=None, prompt_tokens=9, output_tokens=9), now=0.0)
    world.in_flight[RequestId("x")] = FleetRequest(0.0, request("x"), 9, 9)
    before = (engine.next_event_at(), engine.stats.steps)
    world.arrive("r1")
    assert (engine.next_event_at(), engine.stats.steps) == before
