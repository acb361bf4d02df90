"""A pool of which nothing is known yet, in virtual time."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

import pytest

from gateway.scheduling.model import BackendId
from gateway.simulator.fleet_model import FleetOptions, RequestOutcome
from gateway.simulator.profiles import PROFILES
from tests.scenarios.virtual_pool import outcomes


def errors(ended: Sequence[RequestOutcome], kind: str) -> list[float]:
    """|forecast - outcome| / outcome of ttft (from dispatch) or tpot, in order of arrival."""
    found = []
    for outcome in sorted(ended, key=lambda outcome: outcome.planned.at):
        sent_at, first_at, forecast = (
            outcome.dispatched_at,
            outcome.first_token_at,
            outcome.forecast,
        )
        assert sent_at is not None
        assert first_at is not None
        assert forecast is not None
        if kind == "ttft":
            actual_s, told_s = first_at - sent_at, forecast.ttft_s
        else:
            actual_s = (outcome.ended_at - first_at) / (outcome.planned.output_tokens - 1)
            told_s = forecast.tpot_s
        found.append(abs(told_s - actual_s) / actual_s)
    return found


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_first_forecasts_are_sane_and_those_after_fifty_requests_good(profile: str) -> None:
    ended = outcomes(rate_rps=6.0, until=25.0, options=FleetOptions(), profile=profile)
    for kind in ("ttft", "tpot"):
        found = errors(ended, kind)
        assert max(found[:10]) < 3.0
        assert median(found[50:]) < 0.15


def test_requests_one_after_the_other_reach_every_server() -> None:
    ended = outcomes(rate_rps=0.2, until=150.0, options=FleetOptions())
    sent = Counter(outcome.backend_id for outcome in ended)
    assert min(sent[BackendId(name)] for name in "abc") >= 3
