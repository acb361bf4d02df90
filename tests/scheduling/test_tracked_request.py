import pytest

from gateway.scheduling.model import RequestPhase
from gateway.scheduling.tracked_request import TRANSITIONS
from tests.builders import make_tracked

ENDS = {
    RequestPhase.COMPLETED,
    RequestPhase.FAILED,
    RequestPhase.CANCELLED,
    RequestPhase.REJECTED,
    RequestPhase.EVICTED,
}


def test_every_phase_has_its_row() -> None:
    assert set(TRANSITIONS) == set(RequestPhase)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_nothing_follows_an_end(end: RequestPhase) -> None:
    assert TRANSITIONS[end] == frozenset()


@pytest.mark.parametrize("phase", sorted(set(RequestPhase) - ENDS))
def test_a_client_may_leave_in_every_living_phase(phase: RequestPhase) -> None:
    assert RequestPhase.CANCELLED in TRANSITIONS[phase]


def test_a_stream_that_began_never_waits_again() -> None:
    assert RequestPhase.QUEUED not in TRANSITIONS[RequestPhase.STREAMING]


def test_a_request_moves_along_the_table() -> None:
    tracked = make_tracked()
    for phase in (RequestPhase.DISPATCHED, RequestPhase.STREAMING, RequestPhase.COMPLETED):
        tracked.enter(phase)
    assert tracked.phase is RequestPhase.COMPLETED


def test_a_move_that_the_table_does_not_have_is_a_defect() -> None:
    tracked = make_tracked("r1")
    with pytest.raises(ValueError, match=r"r1 queued .* may not become streaming"):
        tracked.enter(RequestPhase.STREAMING)
    assert tracked.phase is RequestPhase.QUEUED
