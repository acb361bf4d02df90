import pytest

from gateway.policy_benchmark.bound import (
    ClassMoments,
    DemandClass,
    ServerCapability,
    alone_ttft_s,
    is_feasible,
    pool_rate_rps,
    request_work_s,
    server_rate_rps,
)
from gateway.scheduling.model import LatencyObjective
from gateway.simulator.profiles import EngineProfile

PROFILE = EngineProfile(
    name="round",
    c0_s=0.010,
    c1_s=10e-6,
    c2_s=100e-9,
    c3_s=20e-6,
    c4_s=2e-9,
    kv_tokens=1_000_000,
    max_num_seqs=100,
    max_num_batched_tokens=1000,
    api_overhead_s=0.004,
)


def server(*, speed: float = 1.0, lora: float = 1.0, kv: int = 1_000_000) -> ServerCapability:
    return ServerCapability(PROFILE, speed, lora, kv)


def demand(tpot_s: float | None = 0.05, *, uncached: int = 1000, count: int = 1) -> DemandClass:
    moments = ClassMoments()
    for _ in range(count):
        moments.add(prompt=1000, uncached=uncached, output=100)
    return DemandClass(moments, tpot_s)


# w = 1000*20us + 2ns*1000^2/2 + 100*(10us + 100ns*1050) = .02 + .001 + .0115 = .0325
WORK_S = 0.0325


def test_the_work_of_a_request_is_prefill_and_decode() -> None:
    assert request_work_s(server(), prompt=1000, uncached=1000, output=100) == pytest.approx(WORK_S)


def test_a_prefix_hit_saves_prefill_only() -> None:
    # 200 uncached: .004 + 2ns*200^2/2 = .00004, + .0115
    work = request_work_s(server(), prompt=1000, uncached=200, output=100)
    assert work == pytest.approx(0.01554)


def test_the_objective_leaves_room_for_its_share_of_steps() -> None:
    # 1 - 10 ms / 50 ms = .8
    assert server_rate_rps(server(), [demand(0.05)]) == pytest.approx(0.8 / WORK_S)


def test_without_an_objective_the_server_may_be_full() -> None:
    assert server_rate_rps(server(kv=10**12), [demand(None)]) == pytest.approx(1.0 / WORK_S)


def test_classes_with_different_objectives_add_up_by_share() -> None:
    # Half needs w/.8, half w/.5: 1 / (.5*w/.8 + .5*w/.5)
    rate = server_rate_rps(server(), [demand(0.05), demand(0.02)])
    assert rate == pytest.approx(1.0 / (0.5 * WORK_S / 0.8 + 0.5 * WORK_S / 0.5))


def test_the_kv_cache_can_be_the_lesser_limit() -> None:
    # context 100 * 1050 = 105,000; K / (105000*.01 + K*w) with K = 10,000
    rate = server_rate_rps(server(kv=10_000), [demand()])
    assert rate == pytest.approx(10_000 / (1050 + 325))


def test_lora_slows_decoding_not_prefill() -> None:
    # f = 1.2: w = .021 + 1.2*.0115 = .0348, room 1 - 1.2*.2 = .76
    assert server_rate_rps(server(lora=1.2), [demand()]) == pytest.approx(0.76 / 0.0348)


def test_a_pool_is_the_sum_of_its_servers_each_at_its_own_speed() -> None:
    # At half speed: w = .065, room 1 - .02/.05 = .6
    rate = pool_rate_rps([server(), server(speed=0.5)], [demand()])
    assert rate == pytest.approx(0.8 / WORK_S + 0.6 / 0.065)


def test_an_objective_below_one_empty_step_cannot_be_met() -> None:
    assert server_rate_rps(server(), [demand(0.009)]) == 0.0


def test_nothing_asked_for_is_no_rate() -> None:
    assert server_rate_rps(server(), []) == 0.0


def test_the_first_token_of_a_request_alone_takes_its_chunks() -> None:
    # 2,500 tokens: 3 steps * 10 ms + 50 ms + 2ns*2500^2/2 = 6.25 ms + 4 ms + 2 ms
    assert alone_ttft_s(server(), 2500, 0.002) == pytest.approx(0.09225)


@pytest.mark.parametrize(
    ("objective", "prompt", "output", "expected"),
    [
        (LatencyObjective(ttft_s=0.093), 2500, 10, True),
        (LatencyObjective(ttft_s=0.092), 2500, 10, False),
        (LatencyObjective(tpot_s=0.0100), 100, 10, False),
        (LatencyObjective(tpot_s=0.0101), 100, 10, True),
        (None, 100, 10, True),
        (None, 130_000, 2000, False),
    ],
)
def test_feasible_is_what_an_idle_server_can_do(
    objective: LatencyObjective | None, prompt: int, output: int, *, expected: bool
) -> None:
    feasible = is_feasible(server(), objective, prompt=prompt, output=output, overhead_s=0.002)
    assert feasible is expected
