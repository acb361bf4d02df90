"""What cannot be answered gets a status that the official client understands."""

from typing import Any

import aiohttp
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError

from tests.real_engine.engines import BASE, CONTEXT_TOKENS
from tests.real_engine.questions import chat, stream_chat

pytestmark = pytest.mark.real_engine

TOO_LONG = "hello world " * CONTEXT_TOKENS


def error_of(refusal: APIStatusError) -> dict[str, Any]:
    """The body that the client saw, checked to be shaped as OpenAI's are."""
    error: dict[str, Any] = refusal.response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as refusal:
        await chat(client, model="nobody")
    assert "nobody" in error_of(refusal.value)["message"]


async def test_an_unknown_model_is_not_found_before_a_stream_begins(client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError) as refusal:
        await stream_chat(client, model="nobody")
    assert "nobody" in error_of(refusal.value)["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_chat_is_refused_in_the_words_of_the_server(
    client: AsyncOpenAI, *, stream: bool
) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await client.chat.completions.create(
            model=BASE, messages=[{"role": "user", "content": TOO_LONG}], stream=stream
        )
    assert (
        f"maximum context length is {CONTEXT_TOKENS} tokens" in error_of(refusal.value)["message"]
    )


async def test_too_long_a_prompt_is_refused_in_the_words_of_the_server(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await client.completions.create(model=BASE, prompt=[5] * (CONTEXT_TOKENS + 1))
    assert (
        f"maximum context length is {CONTEXT_TOKENS} tokens" in error_of(refusal.value)["message"]
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_malformed_json_is_a_bad_request(
    http: aiohttp.ClientSession, gateway_url: str, path: str
) -> None:
    async with http.post(
        gateway_url + path,
        data=b'{"model": "base", "messages": [',
        headers={"Content-Type": "application/json"},
    ) as response:
        assert response.status == 400
        body = await response.json()
    assert body["error"].keys() == {"message", "type", "param", "code"}
