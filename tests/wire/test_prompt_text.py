"""Sizes, token ids and prefix hashes of raw prompts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.prompt_text import (
    BLOCK_BYTES,
    FILE_BYTES,
    MAX_BLOCKS,
    count_token_ids,
    hash_prefix,
    seed_of,
    text_bytes,
)

IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 10_000


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


def message(*parts: object) -> bytes:
    return raw([{"role": "user", "content": list(parts)}])


def test_text_counts_by_its_bytes() -> None:
    prompt = raw([{"role": "user", "content": "x" * 10_000}])

    assert text_bytes(prompt) == len(prompt)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": IMAGE}},
        {"type": "image_url", "image_url": IMAGE},
        {"type": "file", "file": {"file_data": IMAGE}},
        {"type": "input_audio", "input_audio": {"data": "UklGR" * 20_000, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"format": "wav", "data": "UklGR" * 20_000}},
    ],
)
def test_a_file_counts_the_same_whatever_its_size(part: dict[str, Any]) -> None:
    assert FILE_BYTES <= text_bytes(message(part)) <= FILE_BYTES + 300
    assert text_bytes(message(part, part)) <= 2 * FILE_BYTES + 600
    assert text_bytes(message(part, {"type": "text", "text": "x" * 9_000})) > FILE_BYTES + 9_000


def test_a_small_file_counts_by_its_bytes() -> None:
    small = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo"}}
    prompt = message(small, {"type": "text", "text": "x" * 9_000})

    assert text_bytes(prompt) == len(prompt)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": IMAGE},
        {"type": "text", "text": "see ;base64," + "words " * 5_000},
        {"type": "text", "text": '"url":"data:;base64,' + "words " * 5_000},
        {"type": "text", "input_audio": "words " * 5_000},
        {"type": "input_audio", "text": "words " * 5_000},
    ],
)
def test_text_cannot_pass_for_a_file(part: dict[str, Any]) -> None:
    assert text_bytes(message(part)) == len(message(part))


def test_a_file_that_does_not_end_is_no_file() -> None:
    prompt = b'[{"url":"data:;base64,' + b"A" * 9_000

    assert text_bytes(prompt) == len(prompt)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("text", (1, None)),
        (None, (1, None)),
        (["a"], (1, None)),
        (["a", "b, [c], d"], (2, None)),
        ([], (1, None)),
        ([7], (1, 1)),
        ([7, 8, 9], (1, 3)),
        ([[7, 8], [9]], (2, 3)),
        ([{"a": 1}, 2], (2, None)),
    ],
)
def test_prompts_and_token_ids_are_counted(
    prompt: object, expected: tuple[int, int | None]
) -> None:
    assert count_token_ids(raw(prompt)) == expected
    assert count_token_ids(json.dumps(prompt, indent=99).encode()) == expected


@given(st.binary(max_size=3_000), st.integers(0, 3_000), st.binary(max_size=3_000))
def test_prefix_hashes_agree_exactly_on_the_common_whole_blocks(
    data: bytes, length: int, rest: bytes
) -> None:
    other = data[:length] + rest
    same = 0
    while data[same : same + 1] and data[same : same + 1] == other[same : same + 1]:
        same += 1

    first, second = hash_prefix(data, seed=0), hash_prefix(other, seed=0)

    blocks = same // BLOCK_BYTES
    assert first[:blocks] == second[:blocks]
    assert not set(first[blocks:]) & set(second[blocks:])
    assert len(first) == len(data) // BLOCK_BYTES


def test_the_number_of_blocks_is_bounded() -> None:
    assert len(hash_prefix(b"x" * BLOCK_BYTES * (MAX_BLOCKS + 5), seed=0)) == MAX_BLOCKS


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash_prefix(b"a" * 1_024, seed=seed_of(b"chat", b"")) == (2129949462, 4017641517)


def test_seeds_are_kept_apart() -> None:
    data = b"x" * BLOCK_BYTES

    assert hash_prefix(data, seed=seed_of(b"ab", b"c")) != hash_prefix(
        data, seed=seed_of(b"a", b"bc")
    )
