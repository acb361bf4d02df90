"""What servers report, and what they are taken to hold of prompts."""

import pytest

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.model import BackendId, BackendLoad
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import make_ledger, make_tracked, serving

A = BackendId("a")


@pytest.fixture
def ledger() -> BackendLedger:
    return make_ledger(max_loras=2)


@pytest.fixture
def backend(ledger: BackendLedger) -> BackendState:
    return ledger.join(A, serving("lora-a", "lora-b"))


def reserved(
    ledger: BackendLedger, backend: BackendState, tracked: TrackedRequest, now: float = 0.0
) -> TrackedRequest:
    ledger.reserve(backend, tracked, now=now)
    return tracked


class TestReports:
    def test_what_runs_beyond_ours_is_external_and_settles_slowly(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked())
        estimates = []
        for taken_at in range(20):
            ledger.report(backend, BackendLoad(running=9, waiting=2), taken_at=float(taken_at))
            estimates.append(backend.external_running)
        assert estimates == sorted(estimates)
        assert estimates[0] < 5.0
        assert estimates[-1] == pytest.approx(10.0, rel=0.01)

    def test_fewer_than_ours_are_no_negative_traffic(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked(choices=5))
        ledger.report(backend, BackendLoad(running=0), taken_at=1.0)
        assert backend.external_running == 0.0

    def test_an_older_report_is_ignored(self, ledger: BackendLedger, backend: BackendState) -> None:
        ledger.report(backend, BackendLoad(waiting=1), taken_at=2.0)
        ledger.report(backend, BackendLoad(waiting=9), taken_at=1.0)
        assert backend.load.waiting == 1
        assert backend.load_taken_at == 2.0

    def test_a_page_without_numbers_changes_no_estimate(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(running=9), taken_at=1.0)
        before = backend.external_running
        ledger.report(backend, BackendLoad(), taken_at=2.0)
        assert backend.external_running == before
        assert backend.adapters.max_loras == 2

    def test_adapters_and_slots_reach_the_residency(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(active_adapters=("lora-b",)), taken_at=1.0)
        assert backend.adapters.is_resident("lora-b")
        ledger.report(backend, BackendLoad(max_loras=8), taken_at=2.0)
        assert backend.adapters.max_loras == 8

    def test_the_cache_size_needs_blocks_and_their_size(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(kv_blocks=100), taken_at=1.0)
        assert backend.kv_capacity_tokens is None
        ledger.report(backend, BackendLoad(kv_blocks=100, block_tokens=16), taken_at=2.0)
        assert backend.kv_capacity_tokens == 1_600

    def test_a_report_is_compared_with_what_ran_when_it_was_taken(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        gone = reserved(ledger, backend, make_tracked("gone", choices=3), now=1.0)
        reserved(ledger, backend, make_tracked("stays"), now=2.0)
        ledger.release(backend, gone, now=3.0)
        reserved(ledger, backend, make_tracked("new"), now=4.0)
        assert [backend.sequences_at(at) for at in (0.5, 1.0, 2.5, 3.0, 9.0)] == [0, 3, 4, 1, 2]
        ledger.report(backend, BackendLoad(running=4), taken_at=2.5)
        assert backend.external_running == 0.0

    def test_larger_steps_than_configured_show_a_larger_budget(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(largest_step_tokens=8_192), taken_at=1.0)
        assert backend.chunk_budget_tokens == 8_192

    def test_smaller_steps_show_a_smaller_budget_only_once_a_longer_prompt_was_split(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(largest_step_tokens=512), taken_at=1.0)
        assert backend.chunk_budget_tokens == 2_048
        ledger.end_prefill(backend, reserved(ledger, backend, make_tracked(prompt_tokens=1_500)))
        ledger.report(backend, BackendLoad(largest_step_tokens=512), taken_at=2.0)
        assert backend.chunk_budget_tokens == 512

    def test_a_prompt_as_long_as_the_largest_step_was_not_split(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.end_prefill(backend, reserved(ledger, backend, make_tracked(prompt_tokens=512)))
        ledger.report(backend, BackendLoad(largest_step_tokens=512), taken_at=1.0)
        assert backend.chunk_budget_tokens == 2_048


class TestPrefixes:
    def test_what_was_sent_before_needs_no_prefill(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        first = make_tracked("r1", prompt_tokens=300, prefix_blocks=(1, 2, 3))
        assert backend.uncached_tokens(first) == 300
        reserved(ledger, backend, first)
        again = make_tracked("r2", prompt_tokens=300, prefix_blocks=(1, 2, 4))
        assert backend.uncached_tokens(again) == 100
        assert backend.uncached_tokens(first) == 1, "the last token is always computed"

    def test_another_adapter_shares_no_prefix(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked(prompt_tokens=300, prefix_blocks=(1, 2, 3)))
        other = make_tracked("r2", target="lora-a", prompt_tokens=300, prefix_blocks=(1, 2, 3))
        assert backend.uncached_tokens(other) == 300

    def test_no_more_is_kept_than_the_servers_cache_can_hold(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(kv_blocks=20, block_tokens=16), taken_at=1.0)
        long = make_tracked(prompt_tokens=500, prefix_blocks=(1, 2, 3, 4, 5))  # of 100 tokens
        reserved(ledger, backend, long)
        assert backend.uncached_tokens(long) == 500 - 300

    def test_a_server_that_comes_back_has_an_empty_cache(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked(prompt_tokens=300, prefix_blocks=(1, 2, 3)))
        ledger.leave(A, now=0.0)
        ledger.join(A, serving())
        later = make_tracked("r2", prompt_tokens=300, prefix_blocks=(1, 2, 3))
        assert backend.uncached_tokens(later) == 300
