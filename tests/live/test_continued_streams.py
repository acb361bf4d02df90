"""Streams whose servers fail in the middle, the gateway as shipped in front of simulated ones."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.live.site import BASE_MODEL, Site
from tests.live.in_process_site import site_in_process

SETTINGS = {
    "pools": [
        {
            "name": "pool",
            "services": [
                {"name": "kept", "model": BASE_MODEL, "continue_broken_streams": True},
            ],
            "accept_unregistered_models": True,
        }
    ]
}
CHAT = {
    "model": BASE_MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 60,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}
COMPLETION = {
    "model": BASE_MODEL,
    "prompt": "Once upon a time",
    "max_tokens": 60,
    "ignore_eos": True,
    "stream": True,
}
PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


async def events_of(site: Site, url: str, path: str, body: object) -> AsyncIterator[Any]:
    """The events of a stream, decoded; [DONE] as a string."""
    async with site.http.post(url + path, json=body) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: "):
                data = line[6:].strip()
                yield "[DONE]" if data == b"[DONE]" else json.loads(data)


def text_of(events: list[Any]) -> str:
    choices = [c for e in events if isinstance(e, dict) for c in e.get("choices", ())]
    return "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in choices)


def ids_of(events: list[Any]) -> list[int]:
    choices = [c for e in events if isinstance(e, dict) for c in e.get("choices", ())]
    return [token for choice in choices for token in choice.get("token_ids") or ()]


async def broken(
    site: Site, path: str, body: object, *, breaks: tuple[int, ...], fault: str
) -> list[Any]:
    """The events of a stream through the gateway, while its servers fail at some of them."""
    events = []
    async for event in events_of(site, f"http://127.0.0.1:{site.port}", path, body):
        events.append(event)
        if len(events) in breaks:
            for url in site.server_urls:
                await site.http.post(f"{url}/sim/{fault}")
    return events


@pytest.mark.parametrize("fault", ["reset", "error"])
@pytest.mark.parametrize(("kind", "body"), [("chat", CHAT), ("completion", COMPLETION)])
async def test_a_stream_that_breaks_twice_is_the_uninterrupted_one(
    kind: str, body: dict[str, object], fault: str
) -> None:
    async with site_in_process(servers=2, time_scale=0.3, settings=SETTINGS) as site:
        path = PATHS[kind]
        alone = [e async for e in events_of(site, site.server_urls[0], path, body)]
        events = await broken(site, path, body, breaks=(10, 30), fault=fault)
    assert text_of(events) == text_of(alone)
    assert events[-1] == "[DONE]"
    whole = [event for event in events if event != "[DONE]"]
    assert len({event["id"] for event in whole}) == 1
    assert not any(c.get("token_ids") for e in whole for c in e["choices"])
    if kind == "chat":
        assert whole[-1]["usage"]["completion_tokens"] == 60
        assert whole[-1]["usage"]["prompt_tokens"] == alone[-2]["usage"]["prompt_tokens"]


@pytest.mark.parametrize(("kind", "body"), [("chat", CHAT), ("completion", COMPLETION)])
async def test_a_client_that_asks_for_token_ids_gets_those_of_the_uninterrupted_stream(
    kind: str, body: dict[str, object]
) -> None:
    asked = body | {"return_token_ids": True}
    async with site_in_process(servers=2, time_scale=0.3, settings=SETTINGS) as site:
        path = PATHS[kind]
        alone = [e async for e in events_of(site, site.server_urls[0], path, asked)]
        events = await broken(site, path, asked, breaks=(10, 30), fault="reset")
    assert len(ids_of(alone)) == 60
    assert ids_of(events) == ids_of(alone)
    assert text_of(events) == text_of(alone)
    assert events[-1] == "[DONE]"


async def test_a_stream_that_cannot_be_continued_ends_with_an_error_event() -> None:
    body = CHAT | {"stop": ["never said"]}
    async with site_in_process(servers=2, time_scale=0.3, settings=SETTINGS) as site:
        events = await broken(site, PATHS["chat"], body, breaks=(20,), fault="reset")
    assert events[-2]["error"]["message"]
    assert events[-1] == "[DONE]"


async def test_the_record_tells_of_continuations(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    settings = SETTINGS | {"request_log": log}
    async with site_in_process(servers=2, time_scale=0.3, settings=settings) as site:
        await broken(site, PATHS["chat"], CHAT, breaks=(20,), fault="reset")
    (record,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (record["outcome"], record["continuations"]) == ("ok", 1)
    assert record["attempts"] >= 2
    assert record["completion_tokens"] == 60
    assert record["ttft_s"] < record["e2e_s"]
