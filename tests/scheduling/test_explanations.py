from gateway.scheduling.backend_picker import Candidate, Choice
from gateway.scheduling.capacity import ClosedReason, OpenServer
from gateway.scheduling.explanations import Explanations
from gateway.scheduling.model import BackendId, Forecast, RequestId
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_backend, make_prediction, make_tracked

A, B = make_backend("a"), make_backend("b")
PREDICTION = make_prediction()
TOLD = Forecast(0.5, 0.7, 0.02, 0.03)
SERVER = OpenServer(A, PREDICTION)
ONLY_A = Choice(SERVER, [SERVER], [2.0], None)


def dispatched(request_id: str, *, attempt: int = 1) -> TrackedRequest:
    tracked = make_tracked(request_id, arrived_at=1.0)
    tracked.prediction = PREDICTION
    tracked.told = TOLD
    tracked.backend_id = BackendId("a")
    tracked.attempts = attempt
    return tracked


def test_an_explanation_tells_what_was_compared_and_what_was_closed() -> None:
    kept = Explanations()
    kept.keep(dispatched("r1"), ONLY_A, (A, B), {B.id: ClosedReason.FULL}, 3.5)
    found = kept.find(RequestId("r1"))
    assert found is not None
    assert (found.decided_at, found.waited_s, found.attempt) == (3.5, 2.5, 1)
    assert (found.service, found.target, found.adapter) == ("chat", "base", None)
    assert (found.chosen, found.forecast) == ("a", TOLD)
    assert found.candidates == (Candidate(A.id, 2.0, 0.5, 0.02, "base model"),)
    assert found.closed == ((B.id, ClosedReason.FULL),)


def test_an_unknown_request_has_none() -> None:
    assert Explanations().find(RequestId("r1")) is None


def test_the_newest_attempt_is_told() -> None:
    kept = Explanations()
    kept.keep(dispatched("r1"), ONLY_A, (A,), {}, 1.0)
    kept.keep(dispatched("r1", attempt=2), ONLY_A, (A, B), {}, 2.0)
    found = kept.find(RequestId("r1"))
    assert found is not None
    assert (found.attempt, found.decided_at) == (2, 2.0)
    assert found.closed == ((B.id, ClosedReason.NOT_COMPARED),)


def test_the_oldest_is_dropped_when_many_are_kept() -> None:
    kept = Explanations()
    for number in range(2_561):
        kept.keep(dispatched(f"r{number}"), ONLY_A, (A,), {}, 1.0)
    assert kept.find(RequestId("r0")) is None
    assert kept.find(RequestId("r1")) is not None
    assert kept.find(RequestId("r2560")) is not None
