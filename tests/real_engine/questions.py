"""Requests of the official client: greedy, and of a length that the model does not choose."""

from typing import Any

from openai import AsyncOpenAI, AsyncStream
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.real_engine.engines import BASE

QUESTION = "hello world, how are you today?"
PROMPT = "The quick brown fox"


async def chat(
    client: AsyncOpenAI, *, model: str = BASE, max_tokens: int = 12, **extra: object
) -> ChatCompletion:
    return await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"ignore_eos": True, **extra},
    )


async def stream_chat(
    client: AsyncOpenAI, *, model: str = BASE, max_tokens: int = 12, **extra: object
) -> AsyncStream[ChatCompletionChunk]:
    return await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, **extra},
    )


async def complete(
    client: AsyncOpenAI,
    *,
    prompt: str | list[int] = PROMPT,
    max_tokens: int = 12,
    **extra: object,
) -> Completion:
    return await client.completions.create(
        model=BASE,
        prompt=prompt,
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"ignore_eos": True, **extra},
    )


async def stream_completion(
    client: AsyncOpenAI, *, max_tokens: int = 12, **extra: object
) -> AsyncStream[Completion]:
    return await client.completions.create(
        model=BASE,
        prompt=PROMPT,
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True, **extra},
    )


def text_of(answer: ChatCompletion) -> str:
    text = answer.choices[0].message.content
    assert text is not None
    return text


def text_of_chunks(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def beyond_openai(part: BaseModel) -> dict[str, Any]:
    """Fields that vLLM adds to OpenAI's."""
    assert part.model_extra is not None
    return part.model_extra
