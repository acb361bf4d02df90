from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from gateway.scheduling.model import LatencyObjective, LLMServerPool, TargetModel
from gateway.scheduling.policy import FairnessDimension, PickerKind, SchedulingPolicy
from gateway.settings.loading import load_file, load_settings
from gateway.settings.policies import forwarding_policy, scheduling_policies
from gateway.wire.http_headers import CredentialPolicy

WriteConfig = Callable[[str], Path]


@pytest.fixture
def policy_of(write_config: WriteConfig) -> Callable[[str], SchedulingPolicy]:
    """The policy of the only pool, whose services are given."""

    def build(services: str) -> SchedulingPolicy:
        settings = load_file(write_config(f"pools: [{{name: p, services: [{services}]}}]"))
        return scheduling_policies(settings)["p"]

    return build


PolicyOf = Callable[[str], SchedulingPolicy]


def test_without_configuration_every_policy_is_the_shipped_one() -> None:
    assert scheduling_policies(load_settings({})) == {
        "default": SchedulingPolicy(pool=LLMServerPool(name="default"))
    }


def test_every_parameter_of_every_policy_can_be_configured(write_config: WriteConfig) -> None:
    settings = load_file(
        write_config(
            """
            queue_max_requests: 1
            queue_max_bytes: 2
            queue_max_non_critical_requests: 3
            queue_timeout: 4
            preempt_non_critical: true
            retry_max_attempts: 5
            retry_budget_ratio: 0.6
            retry_budget_burst: 7
            max_requests_per_backend: 8
            max_engine_waiting: 9
            default_max_loras: 10
            prefill_chunk_tokens: 12
            engine_backlog_steps: 1.3
            margin_critical: 0.14
            margin_non_critical: 0.15
            margin_late: 0.13
            fairness_dimension: deadline
            fairness_window: 16min
            fairness_tolerance: 0.17
            fairness_neutral_requests: 18
            fairness_late_share: 0.19
            fairness_ids: true
            picker: least_outstanding
            picker_cold_adapter_cost: 11
            picker_miss_cost: 20
            picker_slot_price: 21
            picker_load_price: 22
            picker_prefill_price: 23
            picker_copy_price: 23.5
            picker_tie_tolerance: 0.24
            eject_after_failures: 25
            eject_failure_share: 0.26
            eject_min_requests: 27
            eject_slow_factor: 28
            eject_time: 29s
            eject_max_time: 30s
            max_ejected_share: 0.31
            """
        )
    )
    policy = scheduling_policies(settings)["default"]
    configured = {
        (part.name, parameter.name): getattr(getattr(policy, part.name), parameter.name)
        for part in fields(policy)
        if part.name != "pool" and is_dataclass(getattr(policy, part.name))
        for parameter in fields(getattr(policy, part.name))
    }
    assert configured == {
        ("queue", "max_requests"): 1,
        ("queue", "max_bytes"): 2,
        ("queue", "max_non_critical_requests"): 3,
        ("queue", "timeout_s"): 4.0,
        ("queue", "preempts"): True,
        ("retry", "max_attempts"): 5,
        ("retry", "budget_ratio"): 0.6,
        ("retry", "budget_burst"): 7.0,
        ("breaker", "consecutive_failures"): 25,
        ("breaker", "failure_share"): 0.26,
        ("breaker", "min_requests"): 27,
        ("breaker", "slow_factor"): 28.0,
        ("breaker", "first_ejection_s"): 29.0,
        ("breaker", "longest_ejection_s"): 30.0,
        ("breaker", "max_ejected_share"): 0.31,
        ("capacity", "max_requests_per_backend"): 8,
        ("capacity", "max_engine_waiting"): 9,
        ("capacity", "default_max_loras"): 10,
        ("capacity", "chunk_budget_tokens"): 12,
        ("capacity", "engine_backlog_steps"): 1.3,
        ("capacity", "margin_critical"): 0.14,
        ("capacity", "margin_non_critical"): 0.15,
        ("capacity", "margin_late"): 0.13,
        ("fairness", "dimension"): FairnessDimension.DEADLINE,
        ("fairness", "window_s"): 960.0,
        ("fairness", "tolerance"): 0.17,
        ("fairness", "neutral_requests"): 18,
        ("fairness", "late_share"): 0.19,
        ("fairness", "sub_flows"): True,
        ("picker", "kind"): PickerKind.LEAST_OUTSTANDING,
        ("picker", "cold_adapter_cost"): 11.0,
        ("picker", "miss_cost"): 20.0,
        ("picker", "slot_price"): 21.0,
        ("picker", "load_price"): 22.0,
        ("picker", "prefill_price_per_s"): 23.0,
        ("picker", "copy_price_per_s"): 23.5,
        ("picker", "tie_tolerance"): 0.24,
    }


def test_a_pool_overrides_the_default_of_all_pools(write_config: WriteConfig) -> None:
    settings = load_file(
        write_config(
            """
            queue_timeout: 10s
            max_engine_waiting: 7
            pools: [{name: a, queue_timeout: 20s}, {name: b}]
            """
        )
    )
    policies = scheduling_policies(settings)
    assert policies["a"].queue.timeout_s == 20.0
    assert policies["b"].queue.timeout_s == 10.0
    assert policies["a"].capacity.max_engine_waiting == 7


def test_a_service_keeps_all_that_was_configured(policy_of: PolicyOf) -> None:
    (service,) = policy_of(
        "{name: s, model: m, targets: [{name: x, weight: 90}, {name: y, weight: 10}],"
        " objective: {ttft: 300ms, tpot: 50ms, ntpot: 80ms}, priority: 4,"
        " fairness_weight: 2, max_queue_wait: 5min, max_share: 0.4}"
    ).pool.services
    assert (service.name, service.model, service.priority) == ("s", "m", 4)
    assert service.targets == (TargetModel("x", 90.0), TargetModel("y", 10.0))
    assert service.objective == LatencyObjective(ttft_s=0.3, tpot_s=0.05, ntpot_s=0.08)
    assert (service.fairness_weight, service.max_queue_wait_s) == (2.0, 300.0)
    assert service.max_share == 0.4


def test_clients_bounds_are_trusted_only_where_that_is_configured(
    write_config: WriteConfig,
) -> None:
    settings = load_file(write_config("pools: [{name: a, trust_client_slo: true}, {name: b}]"))
    policies = scheduling_policies(settings)
    assert policies["a"].pool.trusts_client_slo
    assert not policies["b"].pool.trusts_client_slo


def test_a_pool_may_set_one_bound_for_services_without_an_objective(
    write_config: WriteConfig,
) -> None:
    settings = load_file(write_config("pools: [{name: p, default_objective: {ttft: 5s}}]"))
    objective = scheduling_policies(settings)["p"].pool.default_objective
    shipped = LLMServerPool(name="p").default_objective
    assert (objective.ttft_s, objective.tpot_s) == (5.0, shipped.tpot_s)


def test_targets_without_weights_share_evenly(policy_of: PolicyOf) -> None:
    (service,) = policy_of("{name: s, targets: [{name: x}, {name: y}]}").pool.services
    assert [target.weight for target in service.targets] == [1.0, 1.0]


def test_a_service_without_model_is_known_by_its_name(policy_of: PolicyOf) -> None:
    (service,) = policy_of("{name: s}").pool.services
    assert service.model == "s"


@pytest.mark.parametrize(
    ("text", "priority"),
    [
        ("name: s", -1),
        ("name: s, objective: {ttft: 1s}", 0),
        ("name: s, objective: {ttft: 1s}, priority: Non-Critical", -1),
        ("name: s, priority: Critical", 0),
    ],
)
def test_an_objective_makes_critical_unless_the_priority_says_otherwise(
    policy_of: PolicyOf, text: str, priority: int
) -> None:
    (service,) = policy_of(f"{{{text}}}").pool.services
    assert service.priority == priority


def test_the_highest_percentile_of_the_bounds_is_the_target(policy_of: PolicyOf) -> None:
    (service,) = policy_of(
        "{name: s, objective: {ttft: 1s, ttft_percentile: 0.5, tpot: 1s, percentile: p90}}"
    ).pool.services
    assert service.objective is not None
    assert service.objective.percentile == pytest.approx(0.9)


def test_other_models_are_accepted_unless_services_are_configured(policy_of: PolicyOf) -> None:
    assert policy_of("").pool.accept_unregistered_models
    assert not policy_of("{name: s}").pool.accept_unregistered_models


def test_a_key_for_the_servers_replaces_the_credentials_of_clients() -> None:
    (pool,) = load_settings({"upstream_api_key": "sk-1"}).effective_pools()
    policy = forwarding_policy(pool)
    assert (policy.credentials, policy.authorization) == (CredentialPolicy.REPLACE, "Bearer sk-1")


@pytest.mark.parametrize(
    ("written", "credentials"),
    [("forward", CredentialPolicy.FORWARD), ("drop", CredentialPolicy.DROP)],
)
def test_credentials_of_clients_are_forwarded_or_dropped(
    written: str, credentials: CredentialPolicy
) -> None:
    (pool,) = load_settings({"upstream_authorization": written}).effective_pools()
    assert forwarding_policy(pool).credentials is credentials


def test_headers_for_a_gateway_are_passed_on_where_configured() -> None:
    (pool,) = load_settings({"forward_steering_headers": "true"}).effective_pools()
    assert forwarding_policy(pool).forwards_steering
