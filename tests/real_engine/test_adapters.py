"""LoRA adapters are models of their own name; two at a time fit into a server."""

import asyncio
from collections import Counter

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from tests.real_engine.engines import ADAPTERS, BASE, Engines
from tests.real_engine.questions import beyond_openai, chat, stream_chat

pytestmark = pytest.mark.real_engine


async def test_the_models_are_the_base_and_its_adapters(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert sorted(model.id for model in models) == sorted((BASE, *ADAPTERS))


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_an_adapter_answers_under_its_own_name(client: AsyncOpenAI, adapter: str) -> None:
    answer = await chat(client, model=adapter)
    assert answer.model == adapter
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_an_adapter_streams_under_its_own_name(client: AsyncOpenAI, adapter: str) -> None:
    chunks = [chunk async for chunk in await stream_chat(client, model=adapter)]
    assert {chunk.model for chunk in chunks} == {adapter}
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_each_adapter_says_something_else(client: AsyncOpenAI) -> None:
    models = (BASE, *ADAPTERS)
    answers = [await chat(client, model=model, return_token_ids=True) for model in models]
    said = {tuple(beyond_openai(answer.choices[0])["token_ids"]) for answer in answers}
    assert len(said) == len(models)


async def test_streams_of_more_adapters_than_fit_all_complete(
    client: AsyncOpenAI, engines: Engines
) -> None:
    models = ADAPTERS * 4

    async def last_chunk(model: str) -> ChatCompletionChunk:
        stream = await stream_chat(
            client, model=model, max_tokens=32, stream_options={"include_usage": True}
        )
        return [chunk async for chunk in stream][-1]

    ends = await asyncio.gather(*map(last_chunk, models))
    assert Counter(end.model for end in ends) == Counter(models)
    assert [end.usage and end.usage.completion_tokens for end in ends] == [32] * len(models)
    await engines.become_idle(within_s=2.0)
