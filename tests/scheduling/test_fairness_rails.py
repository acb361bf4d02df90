"""Ceilings of services' shares, and turns between the clients of one service."""

from collections import Counter
from random import Random

import pytest

from gateway.scheduling.build import build_scheduler
from gateway.scheduling.events import BackendJoined, PoliciesChanged, RequestArrived
from gateway.scheduling.fairness import FirstComeFirstServed, RailedOrder
from gateway.scheduling.model import CRITICAL, BackendId, LatencyObjective, TokenUsage
from gateway.scheduling.policy import FairnessDimension
from gateway.scheduling.sub_flows import SubFlows, flow_of
from gateway.scheduling.token_shares import TokenShares
from tests.builders import make_policy, make_request, make_service, make_tracked, serving
from tests.scheduling.checked_scheduler import CheckedScheduler

CAPPED = make_service("capped", priority=CRITICAL, max_share=0.5)
FREE = make_service("free", priority=CRITICAL)


class OnePlace:
    """A server with one place; requests of 100 tokens, each served for a tenth of a second."""

    def __init__(self, checked: CheckedScheduler) -> None:
        self.checked = checked
        self.checked.join("a")

    def ask(self, service: str, *, times: int = 1, client: str | None = None) -> None:
        for _ in range(times):
            self.checked.arrive(
                make_request(
                    f"{client or service}-{len(self.checked.lives)}",
                    service=service,
                    prompt_tokens=50,
                    max_tokens=50,
                    fairness_id=client,
                )
            )

    def serve(self, times: int) -> list[str]:
        """Let the running request end, so often; whose they were, in order."""
        served = []
        for _ in range(times):
            self.checked.now += 0.1
            (running,) = self.checked.ids_in("in flight")
            served.append(running.partition("-")[0])
            self.checked.first_token(running)
            self.checked.finish(running, TokenUsage(None, 50, None, 1))
        return served


def place(*, dimension: FairnessDimension = FairnessDimension.FCFS) -> OnePlace:
    policy = make_policy(CAPPED, FREE, slots=1, fairness=dimension)
    return OnePlace(CheckedScheduler(policy))


@pytest.mark.parametrize("dimension", FairnessDimension)
def test_above_its_share_a_service_goes_after_the_others(dimension: FairnessDimension) -> None:
    server = place(dimension=dimension)
    server.ask("capped", times=40)
    server.ask("free", times=10)
    assert server.serve(1) == ["capped"]
    assert Counter(server.serve(20))["free"] >= 9  # they were all that waited beside it


def test_without_others_waiting_the_share_does_not_matter() -> None:
    server = place()
    server.ask("capped", times=5)
    assert server.serve(5) == ["capped"] * 5


def test_below_its_share_a_service_goes_in_its_turn() -> None:
    server = place()
    server.ask("free", times=3)
    server.ask("capped", times=3)
    assert server.serve(6) == ["free"] * 3 + ["capped"] * 3


def test_above_its_share_a_service_does_not_pass_others_either_that_do_not_fit_yet() -> None:
    adapter = make_service("free", priority=CRITICAL, targets=[("lora-b", 1.0)])
    checked = CheckedScheduler(make_policy(CAPPED, adapter, slots=2))
    checked.join("a", "lora-a", "lora-b")
    checked.arrive(make_request("other", model="lora-a"))
    checked.arrive(make_request("free", service="free"))  # waits for the slot
    assert checked.backend_of("free") is None
    for number in range(2):
        checked.arrive(make_request(f"capped-{number}", service="capped"))
    assert checked.backend_of("capped-0") == "a"
    checked.finish("capped-0")
    assert checked.backend_of("capped-1") == "a"


def test_what_was_dispatched_half_a_minute_ago_counts_no_longer() -> None:
    shares = TokenShares()
    shares.dispatched(make_tracked(service=CAPPED), now=5.5)
    shares.dispatched(make_tracked(service=FREE), now=20.0)
    shares.dispatched(make_tracked(service=CAPPED), now=20.5)
    assert shares.is_above(CAPPED, now=34.9)
    assert not shares.is_above(CAPPED, now=35.1)
    assert not shares.is_above(FREE, now=34.9)


def test_shares_are_kept_over_a_change_of_other_policies_and_begin_anew_with_new_ceilings() -> None:
    server = place()
    server.ask("capped", times=6)
    server.serve(4)
    server.ask("free")
    server.checked.feed(PoliciesChanged(make_policy(CAPPED, FREE, slots=1)))
    server.checked.feed(
        PoliciesChanged(make_policy(CAPPED, FREE, slots=1, fairness=FairnessDimension.FCFS))
    )
    server.ask("capped")
    assert server.serve(1) == ["capped"]


class TestClients:
    @staticmethod
    def of_one_service(*, sub_flows: bool = True) -> OnePlace:
        policy = make_policy(FREE, slots=1, sub_flows=sub_flows)
        return OnePlace(CheckedScheduler(policy))

    def test_the_clients_of_a_service_take_turns(self) -> None:
        server = self.of_one_service()
        server.ask("free", client="ann", times=20)
        server.ask("free", client="bob", times=5)
        assert abs(Counter(server.serve(11)[1:])["bob"] - 5) <= 1

    def test_unless_ids_are_not_regarded(self) -> None:
        server = self.of_one_service(sub_flows=False)
        server.ask("free", client="ann", times=20)
        server.ask("free", client="bob", times=5)
        assert server.serve(11) == ["ann"] * 11

    def test_who_was_idle_has_banked_nothing(self) -> None:
        server = self.of_one_service()
        server.ask("free", client="ann", times=40)
        server.serve(20)
        server.ask("free", client="bob", times=20)
        served = Counter(server.serve(20))
        assert abs(served["ann"] - served["bob"]) <= 2

    def test_between_services_the_order_is_still_that_of_the_pool(self) -> None:
        other = make_service("other", priority=CRITICAL, objective=LatencyObjective(ttft_s=1.0))
        policy = make_policy(
            FREE, other, slots=1, sub_flows=True, fairness=FairnessDimension.DEADLINE
        )
        server = OnePlace(CheckedScheduler(policy))
        server.ask("free", client="ann", times=3)
        server.ask("other")
        assert server.serve(2) == ["ann", "other"]

    def test_there_are_64_flows_however_many_ids_clients_make_up(self) -> None:
        flows = {flow_of(f"client {number}") for number in range(5_000)}
        assert flows == set(range(1, 65))
        assert flow_of(None) not in flows


class TestClientsBounds:
    """What x-slo-ttft-ms and x-slo-tpot-ms do; see also test_latency_picker.py."""

    STRICT = LatencyObjective(ttft_s=1.0, tpot_s=0.05)

    def burn_of(self, *, trusted: bool) -> float:
        service = make_service("chat", objective=self.STRICT, priority=CRITICAL)
        checked = CheckedScheduler(make_policy(service, trusts_client_slo=trusted))
        checked.join("a")
        checked.arrive(make_request("r1", service="chat", ttft_slo_s=0.1))
        checked.now += 0.5
        checked.first_token("r1")
        checked.finish("r1")
        return checked.snapshot().services[0].burn

    def test_a_bound_of_the_clients_own_burns_nothing(self) -> None:
        assert self.burn_of(trusted=False) < 1.0

    def test_unless_the_pool_trusts_its_clients(self) -> None:
        assert self.burn_of(trusted=True) > 1.0

    def test_it_does_not_move_a_request_ahead(self) -> None:
        for trusted, first in ((False, "slack"), (True, "pressed")):
            service = make_service("chat", objective=self.STRICT, priority=CRITICAL)
            other = make_service("other", objective=self.STRICT, priority=CRITICAL)
            policy = make_policy(
                service,
                other,
                slots=1,
                fairness=FairnessDimension.DEADLINE,
                trusts_client_slo=trusted,
            )
            checked = CheckedScheduler(policy)
            checked.join("a")
            checked.arrive(make_request("running", service="chat"))
            checked.arrive(make_request("slack", service="chat"))
            checked.arrive(make_request("pressed", service="other", ttft_slo_s=0.5))
            (dispatch,) = checked.finish("running")
            assert dispatch.request_id == first

    def test_it_does_not_change_what_a_server_may_carry(self) -> None:
        for trusted, strictest_s in ((False, 0.05), (True, 0.01)):
            service = make_service("chat", objective=self.STRICT, priority=CRITICAL)
            policy = make_policy(service, trusts_client_slo=trusted)
            scheduler = build_scheduler(policy, Random(0))
            scheduler.handle(BackendJoined(BackendId("a"), serving()), now=0.0)
            request = make_request("r1", service="chat", tpot_slo_s=0.01)
            scheduler.handle(RequestArrived(request), now=0.0)
            (backend,) = scheduler._ledger.backends
            assert backend.strictest_tpot_s == strictest_s

    def test_a_looser_bound_than_the_services_changes_nothing(self) -> None:
        service = make_service("chat", objective=self.STRICT, priority=CRITICAL)
        scheduler = build_scheduler(make_policy(service, trusts_client_slo=True), Random(0))
        scheduler.handle(BackendJoined(BackendId("a"), serving()), now=0.0)
        request = make_request("r1", service="chat", ttft_slo_s=60.0, tpot_slo_s=9.0)
        scheduler.handle(RequestArrived(request), now=0.0)
        assert scheduler._tracked[request.id].service.objective == self.STRICT


@pytest.mark.parametrize("sub_flows", [None, SubFlows()])
def test_every_head_has_its_turn(sub_flows: SubFlows | None) -> None:
    order = RailedOrder(order=FirstComeFirstServed(), shares=TokenShares(), sub_flows=sub_flows)
    heads = [make_tracked(f"r{n}", service=FREE, sequence=n) for n in range(3)]
    assert list(order.ordered(heads, now=0.0)) == heads
