from itertools import islice, takewhile
from pathlib import Path

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from tests.policy_benchmark.workload_texts import SMALL, plan

TWO_SERVICES = """\
name: two
description: one steady, one bursting
servers: {profile: llama3.1-8b-h100-64, count: 2, max_loras: 2}
services:
  - name: steady
    share: 3
    lengths: {input: {fixed: 500}, output: {fixed: 100}}
    adapters: {count: 3, zipf: 1}
    objective: {ttft: 1s, tpot: 50ms}
  - name: bursting
    lengths: {input: {fixed: 100}, output: {fixed: 10}}
    arrivals: {stages: [{duration: 10s, rate: 1}, {duration: 10s, rate: 5}]}
measure: {warmup: 5s, requests: 300}
"""


def test_requests_are_the_same_for_a_seed_and_differ_between_seeds(tmp_path: Path) -> None:
    made = plan(tmp_path)
    first = list(islice(made.requests(0.5, 1), 50))
    assert first == list(islice(made.requests(0.5, 1), 50))
    assert first != list(islice(made.requests(0.5, 2), 50))


def test_the_load_is_a_fraction_of_the_bound(tmp_path: Path) -> None:
    made = plan(tmp_path)
    arrived = sum(1 for _ in takewhile(lambda r: r.at < 300.0, made.requests(0.5, 1)))
    assert arrived == pytest.approx(300.0 * 0.5 * made.bound_rps, rel=0.04)


def test_the_bound_is_the_closed_form(tmp_path: Path) -> None:
    made = plan(tmp_path)
    # 500 * 24us + 1ns*500^2/2 + 100*(34.8us + 67.2ns*550); 1 - 10.79/50
    work = 0.012 + 0.000125 + 100 * (34.8e-6 + 67.2e-9 * 550)
    assert made.bound_rps == pytest.approx(2 * (1 - 0.2158) / work, rel=1e-6)


def test_a_service_with_adapters_becomes_one_service_each_by_popularity(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO_SERVICES)
    assert [s.name for s in made.services] == ["steady-00", "steady-01", "steady-02", "bursting"]
    shares = [s.share for s in made.services]
    assert shares[0] == pytest.approx(0.75 / (1 + 1 / 2 + 1 / 3))
    assert shares[1] == pytest.approx(shares[0] / 2)
    assert made.adapters == ("steady-00", "steady-01", "steady-02")


def test_a_request_for_an_adapter_names_it_as_its_model(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO_SERVICES)
    for planned in islice(made.requests(1.0, 1), 200):
        setup = made.services[planned.service_index]
        assert planned.request.model == (setup.adapter or "base")
        assert planned.request.service == setup.service.name


def test_streams_are_merged_in_order_of_time_and_ids_are_unique(tmp_path: Path) -> None:
    made = list(islice(plan(tmp_path, TWO_SERVICES).requests(1.0, 1), 500))
    assert [r.at for r in made] == sorted(r.at for r in made)
    assert len({r.request.id for r in made}) == 500


def test_a_bursting_service_scales_its_share_by_its_stages(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO_SERVICES)
    bursting = [
        r.at
        for r in takewhile(lambda r: r.at < 200.0, made.requests(1.0, 1))
        if r.service_index == 3
    ]
    fast = sum(1 for at in bursting if at % 20.0 >= 10.0)
    assert fast / len(bursting) == pytest.approx(5 / 6, abs=0.03)


def test_a_policy_cannot_read_the_true_lengths_off_the_request(tmp_path: Path) -> None:
    planned = next(plan(tmp_path).requests(0.5, 1))
    request = planned.request
    assert request.prompt_tokens is None
    assert 3.6 <= request.prompt_bytes / planned.prompt_tokens <= 4.8
    assert request.max_tokens is None


def test_infeasible_requests_do_not_count_in_the_load(tmp_path: Path) -> None:
    mixture = """{mixture: [
        {weight: 9, lengths: {input: {fixed: 500}, output: {fixed: 100}}},
        {weight: 1, lengths: {input: {fixed: 60000}, output: {fixed: 100}}}]}"""
    made = plan(tmp_path, SMALL.replace("{input: {fixed: 500}, output: {fixed: 100}}", mixture))
    assert made.feasible_share == pytest.approx(0.9, abs=0.01)
    assert made.bound_rps == pytest.approx(plan(tmp_path).bound_rps)
    assert made.offered_rps(1.0) == pytest.approx(made.bound_rps / made.feasible_share)
    offered = list(islice(made.requests(1.0, 1), 1000))
    assert sum(not r.feasible for r in offered) == pytest.approx(100, abs=40)


def test_a_workload_that_no_server_can_meet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no request could meet its objective"):
        plan(tmp_path, SMALL.replace("tpot: 50ms", "tpot: 5ms"))


def test_an_unknown_profile_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="unknown profile 'tpu'; known: llama"):
        plan(tmp_path, SMALL.replace("llama3.1-8b-h100-64", "tpu"))


def test_shared_prefixes_raise_the_bound(tmp_path: Path) -> None:
    text = SMALL.replace(
        "    objective", "    prefix: {groups: 3, prompts: 2, system_tokens: 320}\n    objective"
    )
    shared = plan(tmp_path, text)
    assert shared.hit_ratio == pytest.approx(480 / 500, abs=0.01)
    assert shared.bound_rps > plan(tmp_path).bound_rps
    blocks = {r.request.prefix_blocks for r in islice(shared.requests(1.0, 1), 300)}
    assert len(blocks) == 6
    assert len({b[:4] for b in blocks}) == 3


def test_half_speed_servers_carry_less(tmp_path: Path) -> None:
    mixed = plan(tmp_path, SMALL.replace("count: 2", "count: 2, speeds: [1, 0.5]"))
    whole = plan(tmp_path).bound_rps / 2
    slow = 0.5 * whole * (1 - 2 * 0.2158) / (1 - 0.2158)
    assert mixed.bound_rps == pytest.approx(whole + slow, rel=1e-6)
