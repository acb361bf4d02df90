"""Chat and completions, whole and streamed, through the official client."""

import pytest
from openai import AsyncOpenAI

from tests.real_engine.questions import (
    beyond_openai,
    chat,
    complete,
    stream_chat,
    stream_completion,
    text_of,
    text_of_chunks,
)

pytestmark = pytest.mark.real_engine

INCLUDE_USAGE = {"include_usage": True}


async def test_a_chat_is_answered_whole(client: AsyncOpenAI) -> None:
    answer = await chat(client)
    assert answer.model == "base"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert text_of(answer)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


async def test_a_completion_is_answered_whole(client: AsyncOpenAI) -> None:
    answer = await complete(client)
    assert answer.model == "base"
    assert answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


async def test_a_streamed_chat_says_the_same_as_a_whole_one(client: AsyncOpenAI) -> None:
    whole = await chat(client)
    chunks = [chunk async for chunk in await stream_chat(client)]
    assert text_of_chunks(chunks) == text_of(whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.model for chunk in chunks} == {"base"}


async def test_a_streamed_completion_says_the_same_as_a_whole_one(client: AsyncOpenAI) -> None:
    whole = await complete(client)
    chunks = [chunk async for chunk in await stream_completion(client)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.model for chunk in chunks} == {"base"}


async def test_a_streamed_chat_ends_with_its_usage_when_asked(client: AsyncOpenAI) -> None:
    stream = await stream_chat(client, stream_options=INCLUDE_USAGE)
    *chunks, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 12
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_a_streamed_completion_ends_with_its_usage_when_asked(client: AsyncOpenAI) -> None:
    stream = await stream_completion(client, stream_options=INCLUDE_USAGE)
    *chunks, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 12
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_a_stream_has_no_usage_unless_asked(client: AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await stream_chat(client)]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_token_ids_are_returned_when_asked(client: AsyncOpenAI) -> None:
    answer = await chat(client, return_token_ids=True)
    assert len(beyond_openai(answer.choices[0])["token_ids"]) == 12
    assert answer.usage is not None
    assert len(beyond_openai(answer)["prompt_token_ids"]) == answer.usage.prompt_tokens


async def test_a_stream_brings_the_token_ids_of_the_whole_answer(client: AsyncOpenAI) -> None:
    whole = await complete(client, return_token_ids=True)
    stream = await stream_completion(client, return_token_ids=True)
    pieces = [beyond_openai(chunk.choices[0]) async for chunk in stream]
    whole_ids = beyond_openai(whole.choices[0])
    assert pieces[0]["prompt_token_ids"] == whole_ids["prompt_token_ids"]
    assert [token for piece in pieces for token in piece["token_ids"]] == whole_ids["token_ids"]


async def test_an_answer_continues_from_its_token_ids(client: AsyncOpenAI) -> None:
    whole = beyond_openai((await complete(client, return_token_ids=True)).choices[0])
    so_far = whole["prompt_token_ids"] + whole["token_ids"][:5]
    rest = await complete(client, prompt=so_far, max_tokens=7, return_token_ids=True)
    assert beyond_openai(rest.choices[0])["token_ids"] == whole["token_ids"][5:]


@pytest.mark.parametrize("priority", [-3, 0, 7])
async def test_a_request_with_a_priority_is_answered(client: AsyncOpenAI, priority: int) -> None:
    answer = await chat(client, priority=priority)
    assert text_of(answer) == text_of(await chat(client))


async def test_the_request_id_of_the_client_names_the_answer(client: AsyncOpenAI) -> None:
    named = client.with_options(default_headers={"X-Request-Id": "a-name-of-mine"})
    assert (await chat(named)).id == "chatcmpl-a-name-of-mine"
