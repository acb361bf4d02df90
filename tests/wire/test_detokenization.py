"""What is asked of /detokenize, and what is taken for an answer."""

import json

import pytest

from gateway.wire.detokenization import detokenize_request, detokenized


def test_a_model_and_ids_are_asked_for() -> None:
    assert json.loads(detokenize_request("m", [1, 2])) == {"model": "m", "tokens": [1, 2]}


def test_the_text_is_taken_as_it_is() -> None:
    assert detokenized(b'{"prompt":"a\\ufffd"}') == "a\ufffd"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"prompt":1}', b'{"prompt":"\xff"}', b"[]"])
def test_anything_else_is_no_answer(body: bytes) -> None:
    assert detokenized(body) is None
