"""The simulated server's bytes beside a real vLLM's, and a whole client."""

import asyncio
import json
from dataclasses import replace

import pytest
from openai import AsyncOpenAI, NotFoundError

from gateway.simulator.engine import EngineOptions
from tests.simulator.conftest import RECORDED, StartServer
from tests.simulator.http_client import LiveServer, chat_body, post_bytes, recording, shape

STREAMS = [
    "chat_stream_usage",
    "chat_stream_usage_continuous",
    "chat_return_token_ids_stream",
    "comp_stream_usage",
    "comp_return_token_ids_stream",
]
WHOLE = ["chat_nonstream", "chat_return_token_ids", "comp_nonstream", "comp_prompt_batch_strings"]
IDENTICAL = [
    "err_malformed_json",
    "err_missing_messages",
    "err_unknown_model_chat",
    "err_unknown_model_stream",
    "err_prompt_plus_max_tokens",
    "comp_too_long_ids",
    "comp_empty_prompt",
    "comp_token_id_out_of_vocab",
    "err_bad_temperature",
    "chat_priority_string",
    "cont_chat_continue_and_genprompt",
    "err_no_content_type",
    "err_not_found",
    "err_method",
]


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_has_the_events_of_the_recorded_one(server: LiveServer, name: str) -> None:
    real, ours = recording(name), await server.replay(name)
    assert ours.status == real.status
    assert ours.headers["content-type"] == real.headers["content-type"]
    assert [shape(e) for e in ours.events()] == [shape(e) for e in real.events()]
    assert _without_values(ours.chunks[1]) == _without_values(real.chunks[1])


@pytest.mark.parametrize("name", STREAMS)
async def test_each_event_is_one_chunk(server: LiveServer, name: str) -> None:
    ours = await server.replay(name)
    assert len(ours.chunks) == len(ours.events())


async def test_a_stream_of_two_choices_has_the_recorded_events_for_each(server: LiveServer) -> None:
    def by_choice(events: list[dict[str, object]]) -> list[object]:
        chunks = [e for e in events if isinstance(e, dict)]
        return [
            [shape(e) for e in chunks if e["choices"][0]["index"] == index]  # type: ignore[index]
            for index in (0, 1)
        ]

    ours = (await server.replay("comp_n2_stream")).events()
    assert by_choice(ours) == by_choice(recording("comp_n2_stream").events())
    texts = [
        "".join(e["choices"][0]["text"] for e in ours[:-1] if e["choices"][0]["index"] == index)
        for index in (0, 1)
    ]
    assert texts[0] != texts[1]


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_has_the_shape_of_the_recorded_one(
    server: LiveServer, name: str
) -> None:
    real, ours = recording(name), await server.replay(name)
    assert ours.status == real.status
    assert ours.headers["content-type"] == real.headers["content-type"]
    assert shape(ours.json()) == shape(real.json())
    assert ours.body.count(b" :") == ours.body.count(b": ") == 0


@pytest.mark.parametrize("name", IDENTICAL)
async def test_an_error_is_the_recorded_one_byte_for_byte(server: LiveServer, name: str) -> None:
    real, ours = recording(name), await server.replay(name)
    assert (ours.status, ours.body) == (real.status, real.body)
    assert ours.headers["content-type"] == real.headers["content-type"]


async def test_too_long_a_conversation_is_refused_as_recorded(server: LiveServer) -> None:
    """The recorded request's body is cut short: 36,050 characters were sent."""
    ours = await server.chat(messages=[{"role": "user", "content": "x" * 36_050}])
    real = recording("err_too_long_chat")
    assert (ours.status, ours.body) == (real.status, real.body)


async def test_adapters_are_loaded_and_unloaded_with_the_recorded_answers(
    server: LiveServer,
) -> None:
    body = {"lora_name": "e", "lora_path": "adapters/e"}
    for name, path in (
        ("lora_load_dyn", "/v1/load_lora_adapter"),
        ("lora_load_dyn_again", "/v1/load_lora_adapter"),
        ("lora_unload", "/v1/unload_lora_adapter"),
    ):
        real, ours = recording(name), await server.post(path, body)
        assert (ours.status, ours.body) == (real.status, real.body)


@pytest.mark.parametrize("path", ["health", "ping", "version"])
async def test_health_ping_and_version_answer_as_recorded(server: LiveServer, path: str) -> None:
    real, ours = recording(path), await server.get(f"/{path}")
    assert (ours.status, ours.body) == (real.status, real.body)


async def test_the_list_of_models_names_the_adapters_parent(server: LiveServer) -> None:
    real, ours = recording("models"), await server.get("/v1/models")
    assert shape(ours.json()) == shape(real.json())
    names = [(model["id"], model["parent"]) for model in ours.json()["data"]]
    assert names == [(model["id"], model["parent"]) for model in real.json()["data"]]


async def test_tokenize_counts_what_usage_counts(server: LiveServer) -> None:
    ours = (await server.replay("tokenize")).json()
    assert shape(ours) == shape(recording("tokenize").json())
    answer = (await server.replay("chat_nonstream")).json()
    assert answer["usage"]["prompt_tokens"] == ours["count"] == len(ours["tokens"])


async def test_tokens_turn_back_into_the_text_of_an_answer(server: LiveServer) -> None:
    choice = (await server.chat(max_tokens=9, return_token_ids=True)).json()["choices"][0]
    text = (await server.post("/detokenize", {"tokens": choice["token_ids"]})).json()["prompt"]
    assert text == choice["message"]["content"]


async def test_the_x_request_id_becomes_the_answers_id(server: LiveServer) -> None:
    assert (await server.replay("chat_x_request_id")).json()["id"] == "chatcmpl-gw-abc-123"
    answer = await server.completion(max_tokens=1, request_id="mine")
    assert answer.json()["id"] == "cmpl-mine"


async def test_streamed_and_whole_answers_have_the_same_text(server: LiveServer) -> None:
    whole = (await server.chat(max_tokens=30)).json()["choices"][0]["message"]["content"]
    events = (await server.chat(max_tokens=30, stream=True)).events()
    streamed = "".join(e["choices"][0]["delta"]["content"] for e in events[:-1])
    assert streamed == whole
    assert len(events) == 32


@pytest.mark.parametrize("model", ["base", "a"])
async def test_an_answer_continued_from_its_token_ids_is_the_uninterrupted_ones_rest(
    server: LiveServer, model: str
) -> None:
    whole = (await server.chat(model=model, max_tokens=40, return_token_ids=True)).json()
    ids = whole["choices"][0]["token_ids"]
    for cut in (1, 17, 39):
        prompt = whole["prompt_token_ids"] + ids[:cut]
        rest = await server.completion(
            model=model, prompt=prompt, max_tokens=40 - cut, return_token_ids=True
        )
        assert rest.json()["choices"][0]["token_ids"] == ids[cut:]


async def test_an_answer_continued_from_its_text_is_the_uninterrupted_ones_rest(
    server: LiveServer,
) -> None:
    text = (await server.chat(max_tokens=40)).json()["choices"][0]["message"]["content"]
    said = text[:50]  # ten words of five characters
    messages = [{"role": "user", "content": "hello world"}, {"role": "assistant", "content": said}]
    rest = await server.chat(
        messages=messages, max_tokens=30, continue_final_message=True, add_generation_prompt=False
    )
    assert said + rest.json()["choices"][0]["message"]["content"] == text


async def test_models_and_prompts_have_their_own_answers(server: LiveServer) -> None:
    texts = [
        (await server.chat(model=model, max_tokens=8)).json()["choices"][0]["message"]["content"]
        for model in ("base", "a")
    ]
    other = await server.chat(messages=[{"role": "user", "content": "else"}], max_tokens=8)
    texts.append(other.json()["choices"][0]["message"]["content"])
    assert len(set(texts)) == 3


async def test_without_max_tokens_a_chat_answer_ends_by_itself_and_continues_alike(
    server: LiveServer,
) -> None:
    whole = (await server.chat(return_token_ids=True)).json()
    choice = whole["choices"][0]
    ids = choice["token_ids"]
    assert choice["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == len(ids)
    prompt = whole["prompt_token_ids"] + ids[:-3]
    for limit in (None, 2048 - len(prompt)):
        rest = await server.completion(prompt=prompt, max_tokens=limit, return_token_ids=True)
        assert rest.json()["choices"][0]["token_ids"] == ids[-3:]


async def test_ignore_eos_without_max_tokens_fills_the_context(start_server: StartServer) -> None:
    server = await start_server(replace(RECORDED, max_model_len=400, time_scale=1000.0))
    usage = (await server.chat(ignore_eos=True)).json()["usage"]
    assert usage["total_tokens"] == 400


async def test_a_completion_without_max_tokens_has_sixteen(server: LiveServer) -> None:
    assert (await server.completion()).json()["usage"]["completion_tokens"] == 16


async def test_a_batch_of_prompts_with_choices_numbers_them_in_order(server: LiveServer) -> None:
    answer = (await server.completion(prompt=[[5, 6], [7]], n=2, max_tokens=2)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 11,
        "completion_tokens": 8,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


async def test_embeddings_depend_on_model_and_input(server: LiveServer) -> None:
    async def vectors(model: str) -> list[list[float]]:
        body = {"model": model, "input": ["one", "two"]}
        answer = (await server.post("/v1/embeddings", body)).json()
        assert answer["usage"]["completion_tokens"] == 0
        return [item["embedding"] for item in answer["data"]]

    first = await vectors("base")
    assert first == await vectors("base")
    assert first[0] != first[1]
    assert first != await vectors("a")


async def test_a_full_queue_is_refused_as_recorded(start_server: StartServer) -> None:
    engine = EngineOptions(max_queued=1)
    server = await start_server(replace(RECORDED, adapters=(), engine=engine))
    server.server.vllm.live.freeze()
    async with server.connection(post_bytes("/v1/chat/completions", chat_body(max_tokens=5))):
        await server.until(lambda: len(server.server.vllm.answers) == 1)
        ours = await server.replay("err_queue_full")
    real = recording("err_queue_full")
    assert (ours.status, ours.body) == (real.status, real.body)
    page = (await server.get("/metrics")).body.decode()
    assert 'rejections_total{model_name="base",reason="max_num_queued_reqs"} 1.0' in page


async def test_an_answer_whose_choices_do_not_all_fit_leaves_none_in_the_queue(
    start_server: StartServer,
) -> None:
    engine = EngineOptions(max_queued=2)
    server = await start_server(replace(RECORDED, adapters=(), engine=engine))
    server.server.vllm.live.freeze()
    assert (await server.completion(n=3)).status == 503
    assert server.server.vllm.live.engine.stats.aborted == 2


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_aborted_at_once(server: LiveServer, stream: bool) -> None:  # noqa: FBT001
    raw = post_bytes("/v1/chat/completions", chat_body(max_tokens=2000, stream=stream))
    async with server.connection(raw):
        await server.until(lambda: server.in_engine() == 1)
    await server.until(lambda: server.in_engine() == 0)
    assert not server.server.vllm.answers
    page = (await server.get("/metrics")).body.decode()
    assert 'finished_reason="abort",model_name="base"} 0.0' in page


async def test_a_client_that_leaves_while_its_adapter_waits_for_a_slot_is_aborted(
    server: LiveServer,
) -> None:
    def body(model: str) -> bytes:
        return post_bytes("/v1/chat/completions", chat_body(model=model, max_tokens=2000))

    engine = server.server.vllm.live.engine
    async with server.connection(body("a")), server.connection(body("b")):
        await server.until(lambda: engine.load().running == 2)
        async with server.connection(body("c")):
            await server.until(lambda: engine.load().waiting_deferred == 1)
        await server.until(lambda: engine.load().waiting == 0)
        assert engine.load().running == 2


async def test_a_half_closed_connection_counts_as_left(server: LiveServer) -> None:
    raw = post_bytes("/v1/chat/completions", chat_body(max_tokens=2000, stream=True))
    async with server.connection(raw) as (_, writer):
        await server.until(lambda: server.in_engine() == 1)
        writer.write_eof()
        await server.until(lambda: server.in_engine() == 0)


async def test_the_official_client_streams_counts_and_reads_errors(server: LiveServer) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="a",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 7
        assert chunks[-2].choices[0].finish_reason == "length"
        with pytest.raises(NotFoundError) as caught:
            await client.completions.create(model="nope", prompt="x")
        assert caught.value.body == recording("err_unknown_model_chat").json()["error"]
        assert [m.id async for m in client.models.list()] == ["base", "a", "b", "c", "d"]


async def test_many_concurrent_streams_all_complete_with_their_own_text(
    start_server: StartServer,
) -> None:
    """200 streams over 20 adapters with 4 slots; never more than 4 adapters at once."""
    adapters = tuple(f"adapter-{i}" for i in range(20))
    options = replace(RECORDED, adapters=adapters, engine=EngineOptions(max_loras=4))
    server = await start_server(options)
    answers = await asyncio.gather(
        *(server.chat(model=adapters[i % 20], max_tokens=12, stream=True) for i in range(200))
    )
    texts = {
        (events[0]["model"], json.dumps([e["choices"][0]["delta"] for e in events[:-1]]))
        for events in (answer.events() for answer in answers)
    }
    assert len(texts) == 20
    stats = server.server.vllm.live.engine.stats
    assert stats.max_distinct_adapters == 4
    assert stats.finished == 200


async def test_the_same_seed_gives_the_same_answer_ids(start_server: StartServer) -> None:
    servers = [await start_server(seed=seed) for seed in (7, 7, 8)]
    ids = [(await server.chat(max_tokens=1)).json()["id"] for server in servers]
    assert ids[0] == ids[1] != ids[2]


async def test_a_taken_port_is_an_os_error_and_leaves_nothing_behind(
    server: LiveServer, start_server: StartServer
) -> None:
    other = await start_server()
    await other.server.stop()
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match="address already in use"):
        await other.server.start(port=port)


def _without_values(chunk: bytes) -> bytes:
    """A chunk with its id, time, text and token ids blanked: what is left must be identical."""
    data = json.loads(chunk.removeprefix(b"data: "))
    for value in (data["id"], str(data["created"])):
        chunk = chunk.replace(value.encode(), b"*")
    choice = data["choices"][0]
    text = choice["delta"]["content"] if "delta" in choice else choice["text"]
    encoded = json.dumps(text, ensure_ascii=False)[1:-1].encode()
    chunk = chunk.replace(b'":"' + encoded + b'"', b'":"*"', 1)
    usage = json.dumps(data.get("usage"), separators=(",", ":")).encode()
    ids = json.dumps(choice["token_ids"], separators=(",", ":")).encode()
    return chunk.replace(usage, b"*").replace(b'"token_ids":' + ids, b'"token_ids":*')
