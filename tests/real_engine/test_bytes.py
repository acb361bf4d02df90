"""The gateway changes no byte of an answer."""

import re

import aiohttp
import orjson
import pytest

from tests.real_engine.engines import ADAPTERS, BASE, Engines
from tests.real_engine.questions import PROMPT, QUESTION

pytestmark = pytest.mark.real_engine

# What differs between two answers to one question: (pattern, replacement).
OWN_TO_AN_ANSWER = re.compile(rb'"id":"[^"]*"|"created":\d+')

CHAT = {"messages": [{"role": "user", "content": QUESTION}]}
COMPLETION = {"prompt": PROMPT}


async def answer(http: aiohttp.ClientSession, url: str, question: dict[str, object]) -> bytes:
    body = orjson.dumps(question)
    headers = {"Content-Type": "application/json"}
    async with http.post(url, data=body, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        return OWN_TO_AN_ANSWER.sub(b"", await response.read())


@pytest.mark.parametrize("model", [BASE, *ADAPTERS])
@pytest.mark.parametrize(
    ("path", "question"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]
)
async def test_a_greedy_answer_is_the_one_that_a_server_gives_directly(
    http: aiohttp.ClientSession,
    gateway_url: str,
    engines: Engines,
    model: str,
    path: str,
    question: dict[str, object],
) -> None:
    question = {**question, "model": model, "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    through = await answer(http, gateway_url + path, question)
    assert [await answer(http, url + path, question) for url in engines.urls] == [
        through,
        through,
    ]
