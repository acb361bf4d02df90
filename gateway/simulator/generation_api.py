"""The simulated server's endpoints that run the engine: chat, completions, embeddings."""

import asyncio
from collections.abc import Callable
from random import Random

import orjson
from aiohttp import web

from gateway.simulator.answer_format import DONE, StreamFormat, http_chunk, whole_answer
from gateway.simulator.api_errors import ApiError, invalid_body, queue_full
from gateway.simulator.api_requests import AnswerKind, Body, GenerationRequest, parse_json
from gateway.simulator.client_connection import ClientConnection
from gateway.simulator.engine import EngineRequest
from gateway.simulator.fault_switches import QueueFull
from gateway.simulator.http_replies import STREAM_HEADERS, json_reply
from gateway.simulator.live_answers import (
    AnswerTokens,
    StreamedAnswer,
    StreamedChoice,
    StreamEnds,
    WholeAnswer,
    finished_choices,
)
from gateway.simulator.simulated_vllm import SimulatedVllm, engine_id

_EMBEDDING_SIZE = 16


async def read_body(request: web.Request) -> Body:
    """Read a JSON body.

    Raises:
        ApiError: 400, wrong content type or not JSON.
    """
    if request.content_type != "application/json":
        raise invalid_body("Unsupported Media Type: Only 'application/json' is allowed")
    return parse_json(await request.read())


class GenerationApi:
    """Handlers of the generating endpoints."""

    def __init__(self, vllm: SimulatedVllm) -> None:
        """Answer from this server's engine."""
        self._vllm = vllm

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.completion),
            web.post("/v1/embeddings", self.embeddings),
        ]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        return await self._generate(request, self._vllm.reader.chat)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """Continue a text."""
        return await self._generate(request, self._vllm.reader.completion)

    async def embeddings(self, request: web.Request) -> web.Response:
        """Answer with vectors that depend on model and input only."""
        vllm = self._vllm
        body = await read_body(request)
        adapter = vllm.reader.adapter(body)
        prompts = vllm.reader.embedding(body)
        self._check_open()
        number = vllm.next_number()
        answer = WholeAnswer(len(prompts), asyncio.get_running_loop().create_future())
        await self._run_whole(
            number,
            answer,
            [
                EngineRequest(
                    id=engine_id(number, index),
                    adapter=adapter,
                    prompt_tokens=len(prompt),
                    output_tokens=0,
                )
                for index, prompt in enumerate(prompts)
            ],
        )
        return json_reply(self._embeddings_body(adapter, prompts))

    def _embeddings_body(self, adapter: str | None, prompts: list[list[int]]) -> bytes:
        vllm = self._vllm
        model = adapter or vllm.options.model
        tokens = sum(map(len, prompts))
        return orjson.dumps(
            {
                "id": vllm.new_id("embd", None),
                "object": "list",
                "created": vllm.wall_time(),
                "model": model,
                "data": [
                    {"index": i, "object": "embedding", "embedding": _embedding(model, prompt)}
                    for i, prompt in enumerate(prompts)
                ],
                "usage": {
                    "prompt_tokens": tokens,
                    "total_tokens": tokens,
                    "completion_tokens": 0,
                    "prompt_tokens_details": None,
                },
            }
        )

    async def _generate(
        self, request: web.Request, read: Callable[[Body], GenerationRequest]
    ) -> web.StreamResponse:
        generation = read(await read_body(request))
        prefix = "chatcmpl" if generation.kind is AnswerKind.CHAT else "cmpl"
        requested = request.headers.get("x-request-id") or generation.request_id
        answer_id = self._vllm.new_id(prefix, requested)
        if generation.stream:
            return await self._stream(request, generation, answer_id)
        self._check_open()
        return await self._whole(generation, answer_id)

    async def _whole(self, generation: GenerationRequest, answer_id: str) -> web.Response:
        vllm = self._vllm
        tokens = self._tokens(generation)
        number = vllm.next_number()
        answer = WholeAnswer(len(tokens), asyncio.get_running_loop().create_future())
        requests = vllm.engine_requests(number, generation, [t.length for t in tokens])
        created = vllm.wall_time()
        await self._run_whole(number, answer, requests)
        for choice in tokens:
            vllm.metrics.on_finish_reason(choice.finish_reason)
        choices = finished_choices(tokens)
        return json_reply(whole_answer(vllm.language, generation, choices, answer_id, created))

    async def _run_whole(
        self, number: int, answer: WholeAnswer, requests: list[EngineRequest]
    ) -> None:
        """Run engine requests to their ends; a client that leaves cancels this, and drops them.

        Raises:
            ApiError: 503 queue full, 500 engine died.
        """
        vllm = self._vllm
        if not vllm.submit(number, [(r, answer) for r in requests], watched=False):
            raise queue_full()
        vllm.answers[number] = answer
        try:
            await answer.done
        finally:
            del vllm.answers[number]
            vllm.abort(number, len(requests))

    async def _stream(
        self, request: web.Request, generation: GenerationRequest, answer_id: str
    ) -> web.StreamResponse:
        vllm = self._vllm
        if vllm.switches.queue_full is QueueFull.EVENT and not vllm.switches.refuse:
            return await self._refused_stream(request)
        self._check_open()
        tokens = self._tokens(generation)
        number = vllm.next_number()
        answer = StreamedAnswer(
            request=generation,
            form=StreamFormat(vllm.language, generation, answer_id, vllm.wall_time()),
            ends=StreamEnds(
                asyncio.get_running_loop().create_future(), vllm.metrics.on_finish_reason
            ),
            switches=vllm.switches,
            bundled=vllm.options.engine.variant.speculative_tokens > 1,
        )
        requests = vllm.engine_requests(number, generation, [t.length for t in tokens])
        choices = [StreamedChoice(answer, index, t) for index, t in enumerate(tokens)]
        if not vllm.submit(number, list(zip(requests, choices, strict=True)), watched=True):
            raise queue_full()
        vllm.answers[number] = answer
        try:
            response = await _open_stream(request)
            if request.transport is not None:
                # The head is out: events go straight to the connection, without a task each.
                answer.attach(ClientConnection(request.transport))
            await answer.done
        finally:
            del vllm.answers[number]
            vllm.abort(number, len(requests))
        if request.transport is not None and not request.transport.is_closing():
            await response.write_eof()
        return response

    async def _refused_stream(self, request: web.Request) -> web.StreamResponse:
        response = await _open_stream(request)
        if request.transport is not None:
            request.transport.write(http_chunk(queue_full().event()) + http_chunk(DONE))
        await response.write_eof()
        return response

    def _check_open(self) -> None:
        switches = self._vllm.switches
        if switches.refuse:
            raise ApiError(503, "Service Unavailable", "The server refuses requests.")
        if switches.queue_full is not None:
            raise queue_full()

    def _tokens(self, generation: GenerationRequest) -> list[AnswerTokens]:
        answers = len(generation.prompts) * generation.choices
        return [AnswerTokens(self._vllm.language, generation, i) for i in range(answers)]


async def _open_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers=STREAM_HEADERS)
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _embedding(model: str, prompt: list[int]) -> list[float]:
    rng = Random(f"{model} {prompt}")
    return [round(rng.uniform(-1.0, 1.0), 6) for _ in range(_EMBEDDING_SIZE)]
