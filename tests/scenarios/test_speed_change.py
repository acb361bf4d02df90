"""A server whose speed halves under load, in virtual time."""

from collections.abc import Mapping, Sequence
from statistics import median

from gateway.scheduling.model import BackendId
from gateway.simulator.engine import Engine
from gateway.simulator.fleet_model import FleetOptions, RequestOutcome
from tests.scenarios.virtual_pool import outcomes

HALVED_AT = 60.0
SLOW = BackendId("a")


def halve(now: float, engines: Mapping[BackendId, Engine]) -> None:
    if now >= HALVED_AT:
        engines[SLOW].set_speed(0.5)


def tpot_error(ended: Sequence[RequestOutcome], start: float, end: float) -> float:
    """Median absolute error of what was forecast for the server within [start, end)."""
    errors = []
    for outcome in ended:
        sent_at, first_at, forecast = (
            outcome.dispatched_at,
            outcome.first_token_at,
            outcome.forecast,
        )
        assert sent_at is not None
        assert first_at is not None
        assert forecast is not None
        if outcome.backend_id == SLOW and start <= sent_at < end:
            actual_s = (outcome.ended_at - first_at) / (outcome.planned.output_tokens - 1)
            errors.append(abs(forecast.tpot_s - actual_s) / actual_s)
    assert len(errors) > 10
    return median(errors)


def test_forecasts_are_as_good_as_before_within_thirty_seconds() -> None:
    ended = outcomes(rate_rps=38.0, until=HALVED_AT + 45.0, options=FleetOptions(), watch=halve)
    assert tpot_error(ended, HALVED_AT - 30.0, HALVED_AT) < 0.07
    assert tpot_error(ended, HALVED_AT + 30.0, HALVED_AT + 45.0) < 0.07
