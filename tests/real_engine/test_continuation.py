"""Streams whose connection breaks are continued by another server, token for token."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI

from gateway.settings.schema import Settings
from tests.live.in_process_site import running_gateway
from tests.real_engine.engines import ADAPTERS, BASE, Engines

pytestmark = pytest.mark.real_engine

TOKENS = 60
STREAMS = 20
EQUAL = 19
"""Greedy decoding is not bit for bit the same in batches of another size: one may differ."""


class CuttingProxy:
    """Passes bytes between a gateway and one server until it is told to cut."""

    def __init__(self, url: str) -> None:
        self._host = str(urlsplit(url).hostname)
        self._port = urlsplit(url).port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, as the death of the server would."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._writers -= both
            for each in both:
                each.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def gateway_with_cuts(
    engines: Engines,
) -> AsyncIterator[tuple[AsyncOpenAI, list[CuttingProxy]]]:
    async with AsyncExitStack() as stack:
        proxies = [CuttingProxy(url) for url in engines.urls]
        urls = [await proxy.start() for proxy in proxies]
        for proxy in proxies:
            stack.push_async_callback(proxy.stop)
        services = [{"name": model, "continue_broken_streams": True} for model in (BASE, *ADAPTERS)]
        settings = Settings.model_validate(
            {
                "host": "127.0.0.1",
                "port": 0,
                "admin_port": 0,
                "request_log": None,
                "pools": [{"name": "pool", "servers": urls, "services": services}],
            }
        )
        port, _ = await stack.enter_async_context(running_gateway(settings))
        client = await stack.enter_async_context(
            AsyncOpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=120
            )
        )
        async with asyncio.timeout(60):
            while not (await client.models.list()).data:
                await asyncio.sleep(0.05)
        yield client, proxies


async def streamed(
    client: AsyncOpenAI, number: int, proxies: list[CuttingProxy], cuts: frozenset[int]
) -> str:
    """The text of a stream whose connections are cut after some of its pieces.

    Chats and completions, of the base model and of adapters, in turn.
    """
    model = (BASE, *ADAPTERS)[number % 5]
    prompt = f"The quick brown fox number {number}"
    extra = {"ignore_eos": True}
    stream: Any
    if number % 2:
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            extra_body=extra,
        )
    else:
        stream = await client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            extra_body=extra,
        )
    pieces: list[str] = []
    async for chunk in stream:
        pieces += [
            (choice.delta.content if number % 2 else choice.text) or "" for choice in chunk.choices
        ]
        if len(pieces) in cuts:
            for proxy in proxies:
                proxy.cut()
    return "".join(pieces)


async def test_streams_that_break_have_the_tokens_of_those_that_do_not(engines: Engines) -> None:
    rng = Random(1)
    equal = 0
    async with gateway_with_cuts(engines) as (client, proxies):
        for number in range(STREAMS):
            cuts = frozenset(rng.sample(range(2, TOKENS - 5), rng.choice((1, 1, 2))))
            whole = await streamed(client, number, proxies, frozenset())
            continued = await streamed(client, number, proxies, cuts)
            equal += continued == whole
    assert equal >= EQUAL
