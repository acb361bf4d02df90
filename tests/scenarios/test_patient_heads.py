"""A request that waits is not passed over for ever by arrivals that find a place at once."""

from gateway.scheduling.decisions import Dispatch
from gateway.scheduling.model import RequestId
from tests.builders import make_policy, make_request, make_service
from tests.scheduling.checked_scheduler import CheckedScheduler


def test_small_non_critical_arrivals_do_not_starve_a_critical_request_that_needs_two_places() -> (
    None
):
    checked = CheckedScheduler(make_policy(make_service("vip", priority=0), slots=2))
    checked.join("only", "base")
    for name in ("first", "second"):
        checked.arrive(make_request(name, model="base"))
    assert checked.arrive(make_request("pair", service="vip", model="vip", choices=2)) == []
    running = ["first", "second"]
    for number in range(10):
        done = RequestId(running.pop(0))
        checked.finish(done)
        decisions = checked.arrive(make_request(f"single{number}", model="base"))
        running += [d.request_id for d in decisions if isinstance(d, Dispatch)]
        if not running:
            break

    assert checked.backend_of("pair") == "only"
