"""The made-up language: round trips, determinism, lengths."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator.synthetic_language import (
    END_OF_TEXT,
    MEAN_ANSWER_TOKENS,
    VOCABULARY_SIZE,
    ChatMessage,
    SyntheticLanguage,
    prefix_hashes,
)

LANGUAGE = SyntheticLanguage()


def _say(model: str, prompt: list[int], count: int, choice: int = 0) -> list[int]:
    speaker = LANGUAGE.speaker(model, prompt, choice)
    return [speaker.next_token(may_end=False) for _ in range(count)]


@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=40), st.integers(0, 60))
def test_speech_goes_on_alike_from_every_point_of_it(prompt: list[int], cut: int) -> None:
    whole = _say("m", prompt, 60)
    assert _say("m", prompt + whole[:cut], 60 - cut) == whole[cut:]


@given(st.text(max_size=60), st.integers(1, 30))
def test_spoken_text_turns_into_the_same_tokens_again(prompt: str, count: int) -> None:
    tokens = _say("m", LANGUAGE.encode(prompt), count)
    assert LANGUAGE.encode(LANGUAGE.decode(tokens)) == tokens


def test_models_prompts_and_choices_speak_differently() -> None:
    variants = [_say("m", [5], 8), _say("n", [5], 8), _say("m", [6], 8), _say("m", [5], 8, 1)]
    assert len({tuple(v) for v in variants}) == 4


@given(st.text(max_size=200))
def test_every_text_has_tokens_of_the_vocabulary(text: str) -> None:
    assert all(0 < token < VOCABULARY_SIZE for token in LANGUAGE.encode(text))


def test_english_has_about_four_characters_per_token() -> None:
    text = "The quick brown fox jumps over the lazy dog, and the request travels on. " * 20
    assert 3.5 < len(text) / len(LANGUAGE.encode(text)) < 5.5


def test_answers_that_may_end_have_the_promised_mean_length() -> None:
    """N = 2,000 answers; the standard error of a geometric mean is 2.2 %."""
    total = 0
    for prompt in range(2000):
        speaker = LANGUAGE.speaker("m", [prompt])
        total += 1
        while speaker.next_token(may_end=True) != END_OF_TEXT:
            total += 1
    assert abs(total / 2000 / MEAN_ANSWER_TOKENS - 1) < 0.08


def test_a_conversation_left_open_is_a_prefix_of_its_continuation() -> None:
    asked = [ChatMessage("user", "hello")]
    prompt = LANGUAGE.render_chat(asked, prompt_answer=True, leave_open=False)
    said = _say("m", prompt, 5)
    messages = [*asked, ChatMessage("assistant", LANGUAGE.decode(said))]
    rendered = LANGUAGE.render_chat(messages, prompt_answer=False, leave_open=True)
    assert rendered == prompt + said


def test_prefix_hashes_are_chained_whole_blocks_and_differ_by_salt() -> None:
    tokens = list(range(70))
    hashes = prefix_hashes(tokens, 16, "")
    assert len(hashes) == 4
    assert prefix_hashes(tokens[:40], 16, "") == hashes[:2]
    changed = [99, *tokens[1:]]
    assert not set(prefix_hashes(changed, 16, "")) & set(hashes)
    assert not set(prefix_hashes(tokens, 16, "salt")) & set(hashes)
