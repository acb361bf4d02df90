"""Traffic splits and unregistered models (scenarios 9 to 11, the scheduler's part)."""

from collections import Counter
from math import sqrt

import pytest

from gateway.scheduling.decisions import Dispatch, RefusalReason, Reject
from gateway.scheduling.model import BackendId, TargetModel, is_critical
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler
from tests.scheduling.invariants import queued


def pool_with(*targets: tuple[str, float]) -> CheckedScheduler:
    checked = CheckedScheduler(make_policy(make_service("chat", targets=targets), max_loras=4))
    checked.join("a", "v1", "v2")
    return checked


@pytest.mark.parametrize(("weights", "share"), [((50.0, 50.0), 0.5), ((90.0, 10.0), 0.9)])
def test_targets_get_their_share_of_a_thousand_requests(
    weights: tuple[float, float], share: float
) -> None:
    """Scenario 9, within three sigma."""
    checked = pool_with(("v1", weights[0]), ("v2", weights[1]))
    requests, sent = 1_000, Counter[str]()
    for number in range(requests):
        (dispatch,) = checked.arrive(make_request(f"r{number}", service="chat"))
        assert isinstance(dispatch, Dispatch)
        sent[dispatch.model] += 1
        checked.finish(f"r{number}")
    assert sent["v1"] + sent["v2"] == requests
    assert abs(sent["v1"] - requests * share) <= 3 * sqrt(requests * share * (1 - share))


def test_without_any_weight_the_request_is_refused_for_what_it_is() -> None:
    """Scenario 10."""
    checked = pool_with(("v1", 0.0), ("v2", 0.0))
    (reject,) = checked.arrive(make_request("r1", service="chat"))
    assert reject == Reject(reject.request_id, RefusalReason.NO_TARGET_MODEL)


def test_weights_left_out_split_evenly() -> None:
    """Scenario 10: a target's weight is 1 unless set."""
    assert TargetModel("v1").weight == TargetModel("v2").weight == 1.0


def test_an_unregistered_model_is_served_as_non_critical() -> None:
    """Scenario 11, accepted by configuration."""
    checked = CheckedScheduler(make_policy(slots=1))
    checked.join("a", "v1")
    (dispatch,) = checked.arrive(make_request("r1", service=DEFAULT_SERVICE, model="v1"))
    assert isinstance(dispatch, Dispatch)
    assert (dispatch.backend_id, dispatch.model) == (BackendId("a"), "v1")
    checked.arrive(make_request("r2", service=DEFAULT_SERVICE, model="v1"))
    (waiting,) = queued(checked.scheduler)
    assert not is_critical(waiting.service.priority)


def test_an_unregistered_model_is_unknown() -> None:
    """Scenario 11, refused by configuration."""
    checked = CheckedScheduler(make_policy(accept_unregistered_models=False))
    checked.join("a", "v1")
    (reject,) = checked.arrive(make_request("r1", service=DEFAULT_SERVICE, model="v1"))
    assert reject == Reject(reject.request_id, RefusalReason.UNKNOWN_MODEL)
