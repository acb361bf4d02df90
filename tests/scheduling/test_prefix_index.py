from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.prefix_index import PrefixIndex

Prompt = tuple[str, ...]
prompts = st.lists(st.sampled_from("abc"), min_size=1, max_size=8).map(tuple)
adapters = st.sampled_from((None, "lora-a"))


def chained(prompt: Prompt) -> tuple[int, ...]:
    """A hash per block that covers everything before it, as requests bring them."""
    return tuple(hash(prompt[: end + 1]) for end in range(len(prompt)))


def index_of(*prompts: str, capacity: int = 100) -> PrefixIndex:
    index = PrefixIndex(capacity_blocks=capacity)
    for prompt in prompts:
        index.add(None, chained(tuple(prompt)))
    return index


def held(index: PrefixIndex, prompt: str, adapter: str | None = None) -> int:
    return index.match(adapter, chained(tuple(prompt)))


def test_nothing_is_held_at_first() -> None:
    index = PrefixIndex(capacity_blocks=10)
    assert held(index, "abc") == 0
    assert index.match(None, ()) == 0
    assert len(index) == 0


def test_what_prompts_have_in_common_is_held() -> None:
    index = index_of("abcd")
    assert [held(index, prompt) for prompt in ("abcd", "abcdef", "abxd", "ab", "xbcd")] == [
        4, 4, 2, 2, 0,
    ]  # fmt: skip


def test_what_prompts_share_is_kept_once() -> None:
    assert len(index_of("abcd", "abxy", "abcd")) == 6


def test_an_adapter_shares_nothing_with_another_or_the_base_model() -> None:
    index = index_of("abcd")
    index.add("lora-a", chained(("a", "b")))
    assert [held(index, "abcd", adapter) for adapter in (None, "lora-a", "lora-b")] == [4, 2, 0]


def test_the_least_recent_prompt_is_dropped_first() -> None:
    index = index_of("aaa", "bbb", "aaa", "ccc", capacity=6)
    assert [held(index, prompt) for prompt in ("aaa", "bbb", "ccc")] == [3, 0, 3]


def test_a_prompt_loses_its_end_before_its_beginning() -> None:
    index = index_of("aaaa", "bb", capacity=4)
    assert [held(index, prompt) for prompt in ("aaaa", "bb")] == [2, 2]


def test_of_a_prompt_longer_than_the_cache_the_beginning_is_held() -> None:
    assert held(index_of("abcdefgh", capacity=3), "abcdefgh") == 3


def test_a_smaller_cache_forgets_at_the_next_prompt() -> None:
    index = index_of("aaaa", "bbbb")
    index.capacity_blocks = 3
    index.add(None, chained(("c",)))
    assert len(index) == 3
    assert held(index, "c") == 1


def test_a_restart_empties_it() -> None:
    index = index_of("abcd")
    index.clear()
    assert (len(index), held(index, "abcd")) == (0, 0)


@given(
    capacity=st.integers(1, 12),
    sent=st.lists(st.tuples(adapters, prompts), max_size=20),
    asked=st.tuples(adapters, prompts),
)
def test_what_is_held_is_bounded_and_a_prefix_of_every_prompt(
    capacity: int, sent: list[tuple[str | None, Prompt]], asked: tuple[str | None, Prompt]
) -> None:
    index = PrefixIndex(capacity_blocks=capacity)
    for adapter, prompt in sent:
        index.add(adapter, chained(prompt))
        assert len(index) <= capacity
        assert index.match(adapter, chained(prompt)) == min(capacity, len(prompt))
    for adapter, prompt in (*sent, asked):
        blocks = chained(prompt)
        one_by_one = [(adapter, block) in index._blocks for block in blocks]
        assert one_by_one == sorted(one_by_one, reverse=True), "a prefix has a hole"
        assert index.match(adapter, blocks) == sum(one_by_one)
