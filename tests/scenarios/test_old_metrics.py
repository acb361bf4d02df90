"""Metrics that are seconds old, or missing, near the capacity of a pool, in virtual time."""

import pytest

from gateway.scheduling.model import LatencyObjective
from gateway.simulator.fleet_model import Ending, FleetOptions
from tests.builders import make_policy, make_service
from tests.scenarios.virtual_pool import outcomes

OBJECTIVE = LatencyObjective(ttft_s=1.0, tpot_s=0.05)


def attainment(poll_interval_s: float) -> float:
    """Share of requests that met the objective; about .8 of what the pool can serve."""
    ended = outcomes(
        rate_rps=45.0,
        until=40.0,
        options=FleetOptions(poll_interval_s=poll_interval_s),
        policy=make_policy(make_service(objective=OBJECTIVE)),
    )
    met = [
        o
        for o in ended
        if o.ending is Ending.COMPLETED
        and o.first_token_at is not None
        and OBJECTIVE.is_met(
            ttft_s=o.first_token_at - o.planned.at,
            e2e_s=o.ended_at - o.planned.at,
            output_tokens=o.planned.output_tokens,
        )
    ]
    return len(met) / len(ended)


@pytest.mark.parametrize("poll_interval_s", [10.0, 3_600.0])
def test_old_or_missing_metrics_cost_less_than_a_point(poll_interval_s: float) -> None:
    fresh = attainment(0.1)
    assert fresh > 0.95
    assert attainment(poll_interval_s) > fresh - 0.01
