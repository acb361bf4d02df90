"""The official client through the gateway to simulated servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from openai import (
    AsyncOpenAI,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from benchmarks.live.site import Site
from tests.live.in_process_site import site_in_process

SPLIT = [{"name": "assistant", "targets": [{"name": "a"}], "priority": "Critical"}]


@asynccontextmanager
async def client_of(site: Site) -> AsyncIterator[AsyncOpenAI]:
    url = f"http://127.0.0.1:{site.port}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


async def test_a_stream_says_the_same_as_a_whole_answer_for_base_and_adapters() -> None:
    async with site_in_process(adapters=("a", "b")) as site, client_of(site) as client:
        texts = set()
        for model in ("base", "a", "b"):
            whole = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8
            )
            assert whole.model == model
            assert whole.usage is not None
            assert whole.usage.completion_tokens == 8
            stream = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=8,
                stream=True,
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert text == whole.choices[0].message.content
            assert {chunk.model for chunk in chunks} == {model}
            assert chunks[-1].choices[0].finish_reason == "length"
            texts.add(text)
        assert len(texts) == 3


async def test_completions_embeddings_and_models_are_there_too() -> None:
    async with site_in_process(servers=1, adapters=("a",)) as site, client_of(site) as client:
        completion = await client.completions.create(model="a", prompt="Once", max_tokens=4)
        assert completion.choices[0].text
        embedding = await client.embeddings.create(model="base", input="Once")
        assert embedding.data[0].embedding
        assert {model.id async for model in client.models.list()} == {"base", "a"}


async def test_a_service_answers_under_its_own_name_and_counts_tokens_unasked() -> None:
    services = [SPLIT[0] | {"inject_usage": True}]
    pools = [{"name": "pool", "services": services}]
    async with (
        site_in_process(servers=1, adapters=("a",), settings={"pools": pools}) as site,
        client_of(site) as client,
    ):
        stream = await client.chat.completions.create(
            model="assistant",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=5,
            stream=True,
        )
        chunks = [chunk async for chunk in stream]
        assert {chunk.model for chunk in chunks} == {"assistant"}
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        with pytest.raises(NotFoundError):
            await client.completions.create(model="a", prompt="not a service")


async def test_refusals_come_as_the_clients_own_errors() -> None:
    async with site_in_process(servers=1) as site, client_of(site) as client:
        with pytest.raises(NotFoundError) as unknown:
            await client.completions.create(model="nope", prompt="x")
        assert unknown.value.body is not None
        with pytest.raises(BadRequestError, match="max_model_len"):
            await client.completions.create(model="base", prompt="x", max_tokens=10**9)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_requests_per_backend": 1, "queue_max_requests": 0}, RateLimitError),
        ({"max_requests_per_backend": 1, "queue_timeout": 0.05}, InternalServerError),
    ],
    ids=["the queue is full", "the wait is over"],
)
async def test_what_finds_no_place_is_told_when_to_come_again(
    settings: dict[str, object], error: type[RateLimitError | InternalServerError]
) -> None:
    async with (
        site_in_process(servers=1, time_scale=0.1, settings=settings) as site,
        client_of(site) as client,
    ):
        stream = await client.completions.create(
            model="base", prompt="x", max_tokens=1000, stream=True
        )
        await anext(aiter(stream))
        with pytest.raises(error) as refused:
            await client.completions.create(model="base", prompt="y", max_tokens=5)
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert refused.value.body is not None
        await stream.close()
