"""A client that leaves takes its work with it: nothing goes on running or waiting in a server."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from openai import AsyncOpenAI

from tests.real_engine.engines import ADAPTERS, Engines
from tests.real_engine.questions import chat, stream_chat

pytestmark = pytest.mark.real_engine

# As long as the context allows, so that no answer ends by itself in the time that a test takes.
LONG = 1900
RELEASED_WITHIN_S = 10.0
ATTEMPTS = 3
"""On a busy machine vLLM's engine runs ahead of its own HTTP server, and may have ended an answer
before that hears of anything. Where nobody tells it, all answers run to their ends."""


async def assert_cut_short(
    engines: Engines, ask_and_leave: Callable[[], Awaitable[None]], *, of_tokens: int
) -> None:
    """Fail unless what was asked for and left is given up by the servers."""
    for _ in range(ATTEMPTS):
        generated = await engines.generated_tokens()
        await ask_and_leave()
        await engines.become_idle(within_s=RELEASED_WITHIN_S)
        if await engines.generated_tokens() - generated < of_tokens:
            return
    pytest.fail(f"{ATTEMPTS} times all tokens were generated, though nobody was there")


async def test_a_client_that_leaves_mid_stream_frees_the_server(
    client: AsyncOpenAI, engines: Engines
) -> None:
    async def ask_and_leave() -> None:
        stream = await stream_chat(client, max_tokens=LONG)
        for _ in range(5):
            await anext(stream)
        await stream.close()

    await assert_cut_short(engines, ask_and_leave, of_tokens=LONG)


async def test_a_client_that_leaves_before_a_whole_answer_frees_the_server(
    client: AsyncOpenAI, engines: Engines
) -> None:
    async def ask_and_leave() -> None:
        asking = asyncio.create_task(chat(client, max_tokens=LONG))
        await engines.become_busy(1, within_s=10.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    await assert_cut_short(engines, ask_and_leave, of_tokens=LONG)


async def test_clients_that_leave_together_free_what_runs_and_what_waits(
    client: AsyncOpenAI, engines: Engines
) -> None:
    models = ADAPTERS * 3

    async def ask_and_leave() -> None:
        asking = [
            asyncio.create_task(chat(client, model=model, max_tokens=LONG)) for model in models
        ]
        await engines.become_busy(len(models) // 2, within_s=10.0)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    await assert_cut_short(engines, ask_and_leave, of_tokens=LONG * len(models))


async def test_a_server_answers_others_after_a_client_left(
    client: AsyncOpenAI, engines: Engines
) -> None:
    stream = await stream_chat(client, max_tokens=LONG)
    await anext(stream)
    await stream.close()
    await engines.become_idle(within_s=RELEASED_WITHIN_S)
    assert (await chat(client)).choices[0].finish_reason == "length"
