import pytest

from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.model import BackendId, BackendLoad
from gateway.scheduling.tracked_request import TrackedRequest
from tests.builders import BASE, make_ledger, make_prediction, make_tracked, serving

A, B = BackendId("a"), BackendId("b")
SLOW = make_prediction(ttft_s=1.0, tpot_s=0.1)


@pytest.fixture
def ledger() -> BackendLedger:
    return make_ledger(max_loras=2)


@pytest.fixture
def backend(ledger: BackendLedger) -> BackendState:
    return ledger.join(A, serving("lora-a", "lora-b"))


def counts(backend: BackendState) -> tuple[int, int, int, int, int]:
    """Sequences, decoding, context, pending prefill, KV reserved."""
    return (
        backend.sequences,
        backend.decoding,
        backend.context_tokens,
        backend.pending_prefill_tokens,
        backend.kv_reserved_tokens,
    )


def reserved(
    ledger: BackendLedger, backend: BackendState, tracked: TrackedRequest, now: float = 0.0
) -> TrackedRequest:
    tracked.prediction = SLOW
    ledger.reserve(backend, tracked, now=now)
    return tracked


class TestServers:
    def test_a_server_serves_what_it_joined_with(self, ledger: BackendLedger) -> None:
        backend = ledger.join(A, serving("lora-a"))
        assert ledger.serving("lora-a") == (backend,)
        assert ledger.serving("lora-b") == ()
        assert ledger.knows("lora-a")
        assert not ledger.knows("lora-b")
        assert ledger.get(A) is backend
        assert ledger.get(B) is None
        assert list(ledger.backends) == [backend]

    def test_joining_again_updates_the_models(self, ledger: BackendLedger) -> None:
        backend = ledger.join(A, serving("lora-a"))
        assert ledger.join(A, serving("lora-b")) is backend
        assert ledger.serving("lora-a") == ()
        assert ledger.serving("lora-b") == (backend,)

    def test_a_draining_server_takes_nothing_but_is_known(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.drain(A)
        assert ledger.serving(BASE) == ()
        assert not backend.takes(BASE)
        assert ledger.knows(BASE)
        assert ledger.is_empty

    def test_a_server_that_left_takes_nothing_but_is_known(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.leave(A, now=0.0)
        assert ledger.serving(BASE) == ()
        assert not backend.takes(BASE)
        assert ledger.knows(BASE)
        assert ledger.is_empty

    def test_joining_ends_a_drain(self, ledger: BackendLedger, backend: BackendState) -> None:
        ledger.drain(A)
        ledger.join(A, serving())
        assert ledger.serving(BASE) == (backend,)
        assert backend.takes(BASE)
        assert not backend.takes("lora-a")
        assert not ledger.is_empty

    def test_unknown_servers_may_drain_and_leave(self, ledger: BackendLedger) -> None:
        ledger.drain(B)
        ledger.leave(B, now=0.0)
        assert list(ledger.backends) == []

    def test_a_server_that_comes_back_keeps_its_requests_and_forgets_its_reports(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked(target="lora-a"))
        ledger.report(backend, BackendLoad(running=9, waiting=5), taken_at=1.0)
        ledger.leave(A, now=0.0)
        ledger.join(A, serving("lora-a"))
        assert backend.sequences == 1
        assert backend.adapters.active == {"lora-a": 1}
        assert backend.load == BackendLoad()
        assert backend.load_taken_at is None
        assert backend.external_running == 0.0

    def test_a_model_update_keeps_the_reports(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.report(backend, BackendLoad(waiting=5), taken_at=1.0)
        ledger.join(A, serving())
        assert backend.load.waiting == 5

    def test_only_models_with_a_parent_are_adapters(self, backend: BackendState) -> None:
        assert backend.adapter_of("lora-a") == "lora-a"
        assert backend.adapter_of(BASE) is None
        assert backend.adapter_of("unheard-of") is None

    def test_the_text_form_shows_id_and_load(self, backend: BackendState) -> None:
        assert repr(backend) == "<BackendState a usable=True in_flight=0 adapters={}>"


class TestCounts:
    def test_a_request_is_pending_prefill_then_decodes_then_is_gone(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked(prompt_tokens=100, output_tokens=50))
        assert counts(backend) == (1, 0, 0, 100, 150)
        ledger.end_prefill(backend, tracked)
        assert counts(backend) == (1, 1, 100, 0, 150)
        ledger.progress(backend, tracked, 7)
        assert counts(backend) == (1, 1, 107, 0, 150)
        ledger.release(backend, tracked, now=1.0)
        assert counts(backend) == (0, 0, 0, 0, 0)

    def test_a_request_released_before_its_first_token_leaves_nothing(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked(target="lora-a", streamed=False))
        ledger.release(backend, tracked, now=1.0)
        assert counts(backend) == (0, 0, 0, 0, 0)
        assert backend.adapters.active == {}
        assert (backend.in_flight, backend.unseen) == ({}, {})

    def test_each_choice_is_a_sequence_over_one_prompt(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = make_tracked(prompt_tokens=100, output_tokens=60, choices=3)
        reserved(ledger, backend, tracked)
        ledger.end_prefill(backend, tracked)
        assert counts(backend) == (3, 3, 300, 0, 160)
        ledger.release(backend, tracked, now=1.0)
        assert counts(backend) == (0, 0, 0, 0, 0)

    def test_the_first_token_counts_once(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked())
        ledger.end_prefill(backend, tracked)
        ledger.end_prefill(backend, tracked)
        assert backend.decoding == 1

    def test_progress_ends_the_prefill_and_never_goes_back(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked(prompt_tokens=100))
        ledger.progress(backend, tracked, 20)
        ledger.progress(backend, tracked, 10)
        assert backend.context_tokens == 120
        assert backend.pending_prefill_tokens == 0

    def test_no_tokens_yet_leave_the_prefill_pending(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked(prompt_tokens=100))
        ledger.progress(backend, tracked, 0)
        assert backend.pending_prefill_tokens == 100

    def test_a_second_attempt_starts_from_nothing(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        other = ledger.join(B, serving())
        tracked = reserved(ledger, backend, make_tracked(prompt_tokens=100, output_tokens=50))
        ledger.progress(backend, tracked, 20)
        ledger.release(backend, tracked, now=1.0)
        reserved(ledger, other, tracked, now=1.0)
        assert counts(other) == (1, 0, 0, 100, 150)
        ledger.progress(other, tracked, 5)
        assert other.context_tokens == 105

    def test_the_adapter_is_that_of_the_time_of_dispatch(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = reserved(ledger, backend, make_tracked(target="lora-a"))
        ledger.join(A, serving())  # the adapter is unloaded meanwhile
        ledger.release(backend, tracked, now=1.0)
        assert backend.adapters.active == {}


class TestAnswersNotStreamed:
    def test_they_progress_as_forecast_up_to_the_expected_answer(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        tracked = make_tracked(prompt_tokens=100, output_tokens=50, streamed=False)
        reserved(ledger, backend, tracked)
        ledger.progress_unseen(backend, now=0.9)
        assert counts(backend) == (1, 0, 0, 100, 150)
        ledger.progress_unseen(backend, now=1.0)
        assert counts(backend) == (1, 1, 100, 0, 150)
        ledger.progress_unseen(backend, now=2.05)
        assert backend.context_tokens == 110
        ledger.progress_unseen(backend, now=1_000.0)
        assert backend.context_tokens == 150

    def test_each_choice_progresses(self, ledger: BackendLedger, backend: BackendState) -> None:
        tracked = make_tracked(prompt_tokens=100, output_tokens=80, choices=2, streamed=False)
        reserved(ledger, backend, tracked)
        ledger.progress_unseen(backend, now=2.05)
        assert backend.context_tokens == 220

    def test_streams_are_left_to_their_own_events(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        reserved(ledger, backend, make_tracked(prompt_tokens=100))
        ledger.progress_unseen(backend, now=1_000.0)
        assert backend.pending_prefill_tokens == 100

    def test_without_a_forecast_nothing_is_assumed(
        self, ledger: BackendLedger, backend: BackendState
    ) -> None:
        ledger.reserve(backend, make_tracked(prompt_tokens=100, streamed=False), now=0.0)
        ledger.progress_unseen(backend, now=1_000.0)
        assert backend.pending_prefill_tokens == 100
