"""Continued streams whose servers break at any byte: the client cannot tell from the answer."""

import json
from typing import Any

import pytest

from tests.server.gateway_rig import gateway, make_policy
from tests.server.raw_server import Peer, RawServer
from tests.server.test_continued_stream import HEAD, MODELS, OPTIONS, SERVICE

PROMPT = [98, 99]
TOKENS = {1: "a", 2: "", 3: "\u00e9", 4: "b", 5: "", 6: "", 7: "\u5b57", 8: "c"}


def completion_after(said: int) -> bytes:
    """The stream of a server that goes on behind the first `said` tokens."""
    events: list[dict[str, Any]] = []
    for token, text in list(TOKENS.items())[said:]:
        choice = {"index": 0, "text": text, "token_ids": [token], "finish_reason": None}
        choice["prompt_token_ids"] = None if events else [*PROMPT, *range(1, said + 1)]
        events.append({"id": f"from-{said}", "model": "base", "choices": [choice]})
    events[-1]["choices"][0]["finish_reason"] = "stop"
    usage = {"prompt_tokens": len(PROMPT) + said, "completion_tokens": len(TOKENS) - said}
    events.append({"id": f"from-{said}", "model": "base", "choices": [], "usage": usage})
    return b"".join(b"data: %b\n\n" % json.dumps(e).encode() for e in events) + b"data: [DONE]\n\n"


def servers_that_break(*shares: float) -> list[RawServer]:
    """Servers that together break after these shares of their streams, one after the other."""
    left = list(shares)

    async def script(peer: Peer) -> None:
        prompt = json.loads((await peer.request()).body)["prompt"]
        said = 0 if prompt == "x" else len(prompt) - len(PROMPT)
        assert said == 0 or prompt == [*PROMPT, *range(1, said + 1)]
        answer = completion_after(said)
        last = b""
        if left:
            answer = answer[: int(left.pop(0) * len(answer))]
        else:
            last = b"0\r\n\r\n"
        pieces = [answer[start : start + 97] for start in range(0, len(answer), 97)]
        framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        await peer.send(HEAD + b"".join(framed) + last)

    return [RawServer(script) for _ in range(3)]


@pytest.mark.parametrize("wants_ids", [True, False])
async def test_wherever_servers_break_every_token_comes_once(wants_ids: bool) -> None:  # noqa: FBT001
    asked = {"model": "kept", "prompt": "x", "stream": True, "max_tokens": 20}
    asked |= {"return_token_ids": wants_ids, "stream_options": {"include_usage": True}}
    for step in range(20):
        servers = servers_that_break(step / 20, step * 7 % 20 / 20)
        policy = make_policy(SERVICE)
        async with gateway(*servers, policy=policy, pool_options=OPTIONS) as rig:
            rig.join(MODELS)
            async with rig.client() as client:
                client.post("/v1/completions", json.dumps(asked).encode())
                body = (await client.response()).body
        *data, done = [event for event in body.split(b"\n\n") if event]
        events = [json.loads(event.strip().removeprefix(b"data: ")) for event in data]
        choices = [choice for event in events for choice in event["choices"]]
        assert done == b"data: [DONE]"
        assert "".join(choice["text"] for choice in choices) == "".join(TOKENS.values())
        ids = [token for choice in choices for token in choice["token_ids"] or ()]
        assert ids == (list(TOKENS) if wants_ids else [])
        prompts = [choice["prompt_token_ids"] for choice in choices if choice["prompt_token_ids"]]
        assert prompts == [PROMPT] * wants_ids
        assert len({event["id"] for event in events}) == 1
        assert {event["model"] for event in events} == {"kept"}
        assert [e["usage"]["completion_tokens"] for e in events if e.get("usage")] == [len(TOKENS)]
