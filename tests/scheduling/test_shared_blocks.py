from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.shared_blocks import SharedBlocks

SYSTEM = tuple(range(24))
"""A prefix of three strides of blocks."""


def test_one_prompt_shares_nothing() -> None:
    shared = SharedBlocks()
    shared.take(None, SYSTEM, 10.0)
    assert shared.saved_tokens == 0


def test_a_prefix_that_several_run_with_is_there_once() -> None:
    shared = SharedBlocks()
    for question in range(3):
        shared.take(None, (*SYSTEM, *range(100 * question + 100, 100 * question + 116)), 10.0)
    assert shared.saved_tokens == 2 * 24 * 10


def test_it_stays_until_the_last_of_them_has_ended() -> None:
    shared = SharedBlocks()
    for _ in range(2):
        shared.take(None, SYSTEM, 10.0)
    shared.give_back(None, SYSTEM)
    assert (shared.saved_tokens, shared.in_common(None, SYSTEM, 10.0)) == (0, 240)
    shared.give_back(None, SYSTEM)
    assert shared.in_common(None, SYSTEM, 10.0) == 0


def test_what_a_prompt_has_in_common_ends_where_it_differs() -> None:
    shared = SharedBlocks()
    shared.take(None, SYSTEM, 10.0)
    assert shared.in_common(None, (*SYSTEM[:16], *range(50, 58)), 10.0) == 160


def test_a_prompt_shorter_than_a_stride_is_not_looked_at() -> None:
    shared = SharedBlocks()
    for _ in range(2):
        shared.take(None, (1, 2, 3), 10.0)
    assert shared.saved_tokens == 0


def test_an_adapter_shares_nothing_with_the_base_model() -> None:
    shared = SharedBlocks()
    shared.take(None, SYSTEM, 10.0)
    shared.take("lora-a", SYSTEM, 10.0)
    assert (shared.saved_tokens, shared.in_common("lora-b", SYSTEM, 10.0)) == (0, 0)


def test_of_blocks_of_several_sizes_the_smallest_counts() -> None:
    shared = SharedBlocks()
    for block_tokens in (12.0, 10.0, 11.0):
        shared.take(None, SYSTEM, block_tokens)
    assert shared.saved_tokens == 2 * 24 * 10
    assert shared.in_common(None, SYSTEM, 8.0) == 24 * 8


@given(st.lists(st.tuples(st.sampled_from((None, "lora-a")), st.integers(0, 40)), max_size=12))
def test_nothing_is_left_of_those_that_ended(prompts: list[tuple[str | None, int]]) -> None:
    shared = SharedBlocks()
    for adapter, length in prompts:
        shared.take(adapter, tuple(range(length)), 16.0)
    lengths = {
        name: [length // 8 for adapter, length in prompts if adapter == name]
        for name in (None, "lora-a")
    }
    strides = sum(sum(each) - max(each, default=0) for each in lengths.values())
    assert shared.saved_tokens == strides * 8 * 16
    for adapter, length in prompts:
        shared.give_back(adapter, tuple(range(length)))
    assert shared.saved_tokens == 0
    assert shared.in_common(None, tuple(range(40)), 16.0) == 0


def test_it_tells_how_many_begin_with_half_of_what_is_held() -> None:
    shared = SharedBlocks()
    for question in range(3):
        shared.take(None, (*SYSTEM, *range(100 * question + 100, 100 * question + 124)), 10.0)
    held = (*SYSTEM, *range(100, 124))
    assert shared.users_of(None, held, 48) == 3
    assert shared.users_of("lora-a", held, 48) == 0


def test_of_less_than_a_stride_nobody_is_known_to_share() -> None:
    shared = SharedBlocks()
    shared.take(None, SYSTEM, 10.0)
    assert shared.users_of(None, SYSTEM, 7) == 0
