"""The engine's rules, one by one, at noise zero so that times are sums of the formula."""

from dataclasses import replace

import pytest

from gateway.simulator.engine import (
    Engine,
    EngineEvent,
    EngineOptions,
    Finished,
    FirstToken,
    Preempted,
    SchedulingOrder,
)
from tests.simulator.engine_builders import (
    PLAIN,
    QUIET,
    ends,
    first_tokens,
    make_engine,
    make_request,
    replay,
    run_until_idle,
)


def decode_s(sequences: int, context: int) -> float:
    return PLAIN.c0_s + PLAIN.c1_s * sequences + PLAIN.c2_s * context


def prefill_s(tokens: int, computed: int = 0) -> float:
    return PLAIN.c3_s * tokens + PLAIN.c4_s * tokens * (computed + tokens / 2)


def test_the_first_token_comes_at_the_end_of_the_prefill_and_then_one_with_each_step() -> None:
    engine = make_engine()
    engine.submit(make_request("r", prompt=100, output=3), now=5.0)
    events = run_until_idle(engine)
    first = 5.0 + decode_s(1, 0) + prefill_s(100)
    last = first + decode_s(1, 101) + decode_s(1, 102)
    assert events == [FirstToken("r", events[0].at), Finished("r", events[1].at, 3)]
    assert [e.at for e in events] == pytest.approx([first, last])


def test_output_tokens_grow_with_each_ended_step() -> None:
    engine = make_engine()
    engine.submit(make_request("r", output=4), now=0.0)
    seen = [engine.output_tokens("r")]
    while (at := engine.next_event_at()) is not None:
        engine.advance(at)
        seen.append(engine.output_tokens("r"))
    # The prefill step begins when the engine first advances to the arrival; an ended request is
    # forgotten.
    assert seen == [0, 0, 1, 2, 3, 0]


def test_a_request_becomes_schedulable_after_the_api_overhead() -> None:
    engine = make_engine(profile=replace(PLAIN, api_overhead_s=0.5))
    engine.submit(make_request("r"), now=1.0)
    assert engine.next_event_at() == 1.5
    assert engine.advance(1.49) == []
    assert engine.load().running == 0


def test_a_long_prompt_is_prefilled_in_chunks_of_the_step_budget() -> None:
    engine = make_engine()
    engine.submit(make_request("long", prompt=5000, output=1), now=0.0)
    at = first_tokens(run_until_idle(engine))["long"]
    chunks = prefill_s(2048) + prefill_s(2048, 2048) + prefill_s(904, 4096)
    assert at == pytest.approx(3 * decode_s(1, 0) + chunks)


def test_decoding_sequences_are_served_before_prefill_in_every_step() -> None:
    engine = make_engine()
    engine.submit(make_request("decoding", prompt=16, output=6), now=0.0)
    engine.submit(make_request("long", prompt=9000, output=1), now=0.02)
    events = replay(engine, [])
    assert ends(events)["decoding"] < first_tokens(events)["long"]


def test_a_prefill_gets_what_the_decoding_sequences_leave_of_the_budget() -> None:
    engine = make_engine()
    engine.submit(make_request("decoding", prompt=16, output=50), now=0.0)
    engine.advance(0.0)
    engine.submit(make_request("long", prompt=2048, output=1), now=0.001)
    first = first_tokens(run_until_idle(engine))
    # 2,047 tokens fit beside one decoding sequence, so that the last one takes a second step.
    steps = decode_s(2, 17) + prefill_s(2047) + decode_s(2, 18) + prefill_s(1, 2047)
    assert first["long"] - first["decoding"] == pytest.approx(steps)


def test_a_request_without_output_ends_with_its_prefill_and_has_no_first_token() -> None:
    engine = make_engine()
    engine.submit(make_request("embedding", output=0), now=0.0)
    (event,) = run_until_idle(engine)
    assert event == Finished("embedding", event.at, 0)


def test_all_choices_of_a_request_run_and_it_ends_once() -> None:
    engine = make_engine()
    engine.submit(make_request("n", output=5, choices=3), now=0.0)
    engine.advance(0.0)
    assert engine.load().running == 3
    events = run_until_idle(engine)
    assert [type(e) for e in events] == [FirstToken, Finished]
    assert events[-1] == Finished("n", events[-1].at, 15)


def test_no_more_than_max_num_seqs_run() -> None:
    engine = make_engine(profile=replace(PLAIN, max_num_seqs=2))
    for i in range(5):
        engine.submit(make_request(str(i), output=4), now=0.0)
    engine.advance(0.0)
    load = engine.load()
    assert (load.running, load.waiting) == (2, 3)
    assert len(ends(run_until_idle(engine))) == 5


def test_a_full_queue_refuses_and_counts_the_refusal() -> None:
    engine = make_engine(replace(QUIET, max_queued=2), replace(PLAIN, max_num_seqs=1))
    accepted = [engine.submit(make_request(str(i)), now=0.0) for i in range(4)]
    assert accepted == [True, True, False, False]
    assert engine.stats.refused == 2


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (make_request("r", prompt=0), "at least 1"),
        (make_request("r", prompt=400_000), "exceed the KV cache"),
        (make_request("r", adapter="a"), "LoRA is not enabled"),
        (replace(make_request("r"), prefix_block_tokens=20), "multiple of 16"),
    ],
)
def test_a_request_that_can_never_run_is_an_error(request_: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make_engine().submit(request_, now=0.0)  # type: ignore[arg-type]


def test_a_token_budget_below_the_batch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        make_engine(profile=replace(PLAIN, max_num_batched_tokens=64))


def _tight(blocks: int, order: SchedulingOrder = SchedulingOrder.FCFS) -> Engine:
    return make_engine(replace(QUIET, kv_tokens=16 * blocks, order=order))


def _preempted(events: list[EngineEvent]) -> list[str]:
    return [e.request_id for e in events if isinstance(e, Preempted)]


def test_out_of_blocks_the_last_admitted_is_preempted_and_computed_again() -> None:
    engine = _tight(5)
    for name in ("old", "young"):
        engine.submit(make_request(name, prompt=32, output=30), now=0.0)
    events = run_until_idle(engine)
    assert _preempted(events)[0] == "young"
    assert "old" not in _preempted(events)
    assert ends(events).keys() == {"old", "young"}
    assert len(first_tokens(events)) == 2
    assert engine.load().preemptions_total == engine.stats.preemptions > 0
    assert engine.stats.generated_tokens == 60


def test_with_priorities_the_least_urgent_is_preempted_though_admitted_first() -> None:
    engine = _tight(5, SchedulingOrder.PRIORITY)
    engine.submit(make_request("batch", prompt=32, output=30, priority=5), now=0.0)
    engine.submit(make_request("chat", prompt=32, output=30, priority=0), now=0.001)
    events = run_until_idle(engine)
    assert set(_preempted(events)) == {"batch"}


def test_a_preempted_sequence_goes_back_to_the_front_of_the_queue() -> None:
    engine = _tight(5)
    for name in ("old", "young", "later"):
        engine.submit(make_request(name, prompt=32, output=30), now=0.0)
    order = list(ends(run_until_idle(engine)))
    assert order == ["old", "young", "later"]


def test_a_preempted_sequence_goes_before_one_that_waited_for_an_adapter_slot() -> None:
    engine = make_engine(replace(QUIET, max_loras=1, kv_tokens=16 * 5))
    for name, adapter in (("old", "a"), ("other", "b"), ("young", "a")):
        engine.submit(make_request(name, prompt=32, output=30, adapter=adapter), now=0.0)
    events = run_until_idle(engine)
    assert set(_preempted(events)) == {"young"}
    assert list(ends(events)) == ["old", "young", "other"]


def test_a_prompt_that_lacks_blocks_holds_up_all_behind_it() -> None:
    engine = _tight(10)
    engine.submit(make_request("running", prompt=80, output=20), now=0.0)
    engine.submit(make_request("big", prompt=112, output=1), now=0.0)
    engine.submit(make_request("small", prompt=16, output=1), now=0.0)
    first = first_tokens(run_until_idle(engine))
    assert first["small"] >= first["big"]


def test_with_priorities_smaller_values_are_sooner() -> None:
    engine = make_engine(
        replace(QUIET, order=SchedulingOrder.PRIORITY), replace(PLAIN, max_num_seqs=1)
    )
    for name, priority in (("late", 3), ("normal", 0), ("first", -2)):
        engine.submit(make_request(name, priority=priority), now=0.0)
    assert list(ends(run_until_idle(engine))) == ["first", "normal", "late"]


def test_without_priorities_the_field_is_ignored() -> None:
    engine = make_engine(profile=replace(PLAIN, max_num_seqs=1))
    for name, priority in (("a", 3), ("b", -2)):
        engine.submit(make_request(name, priority=priority), now=0.0)
    assert list(ends(run_until_idle(engine))) == ["a", "b"]


def test_an_abort_frees_a_running_a_waiting_and_an_arriving_request_at_once() -> None:
    engine = make_engine(
        profile=replace(PLAIN, max_num_seqs=2, api_overhead_s=0.001),
    )
    for name in ("decoding", "prefilling", "waiting"):
        engine.submit(make_request(name, prompt=5000, output=50), now=0.0)
    engine.advance(0.2)
    engine.submit(make_request("arriving"), now=0.2)
    for name in ("decoding", "prefilling", "waiting", "arriving", "unknown"):
        engine.abort(name, now=0.2)
    load = engine.load()
    assert (load.running, load.waiting, load.kv_usage) == (0, 0, 0.0)
    assert run_until_idle(engine) == []
    assert engine.stats.aborted == 4


def test_an_abort_in_the_middle_of_a_step_gives_back_the_block_the_step_took() -> None:
    engine = make_engine()
    engine.submit(make_request("r", prompt=32, output=50), now=0.0)
    engine.advance(0.015)  # the first decode step is under way: 33 tokens, 3 blocks
    engine.abort("r", now=0.015)
    assert engine.load().kv_usage == 0.0


def test_a_frozen_engine_makes_no_progress_and_goes_on_after_the_thaw() -> None:
    engine = make_engine()
    engine.submit(make_request("r", prompt=100, output=1), now=0.0)
    engine.advance(0.0)
    planned = engine.next_event_at()
    assert planned is not None
    engine.freeze(now=0.001)
    assert engine.next_event_at() is None
    assert engine.advance(10.0) == []
    engine.submit(make_request("s", output=1), now=10.0)
    engine.thaw(now=10.001)
    assert engine.next_event_at() == pytest.approx(planned + 10.0)
    assert len(run_until_idle(engine)) == 4


def test_a_speed_factor_of_two_halves_the_next_steps() -> None:
    engine = make_engine()
    engine.submit(make_request("r", prompt=16, output=3), now=0.0)
    engine.set_speed(2.0)
    assert ends(run_until_idle(engine))["r"] == pytest.approx(
        (decode_s(1, 0) + prefill_s(16) + decode_s(1, 17) + decode_s(1, 18)) / 2
    )


def test_a_fork_goes_on_alike_and_leaves_the_original_alone() -> None:
    engine = make_engine(
        EngineOptions(max_loras=2, kv_tokens=1600), profile=replace(PLAIN, max_num_seqs=6)
    )
    for i in range(12):
        adapter = (None, "a", "b", "c")[i % 4]
        request = make_request(
            str(i), prompt=100 + 20 * i, output=20 + i, adapter=adapter, prefix=(1, 2, i)
        )
        engine.submit(request, now=0.01 * i)
        engine.advance(0.01 * i)
    engine.abort("3", now=0.11)
    twin = engine.fork()
    before = engine.load()
    ahead = run_until_idle(twin)
    assert engine.load() == before
    assert run_until_idle(engine) == ahead
    assert twin.stats == engine.stats


def test_the_load_report_counts_what_vllm_counts() -> None:
    engine = make_engine(replace(QUIET, max_loras=1))
    assert engine.load().active_adapters is None
    engine.submit(make_request("a", prompt=64, output=3, adapter="a"), now=0.0)
    engine.submit(make_request("b", prompt=64, output=3, adapter="b"), now=0.0)
    engine.advance(0.0)
    load = engine.load()
    assert (load.running, load.waiting, load.waiting_deferred) == (1, 1, 1)
    assert (load.active_adapters, load.max_loras) == (("a",), 1)
    assert load.kv_blocks is not None
    assert load.kv_usage == pytest.approx(4 / load.kv_blocks)
    run_until_idle(engine)
    load = engine.load()
    assert load.active_adapters == ()
    assert (load.prompt_tokens_total, load.generation_tokens_total) == (128.0, 6.0)
    assert load.steps_total == 6.0
    assert load.prefix_queries_total == 128.0
