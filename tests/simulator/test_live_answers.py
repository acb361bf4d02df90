"""A stream before its connection is known, and bundled tokens."""

import asyncio
from dataclasses import replace

from gateway.simulator.answer_format import StreamFormat
from gateway.simulator.api_requests import RequestReader
from gateway.simulator.engine import EngineOptions, EngineVariant
from gateway.simulator.fault_switches import FaultSwitches
from gateway.simulator.live_answers import (
    AnswerTokens,
    StreamedAnswer,
    StreamedChoice,
    StreamEnds,
)
from gateway.simulator.synthetic_language import SyntheticLanguage
from tests.simulator.conftest import RECORDED, StartServer

LANGUAGE = SyntheticLanguage()


class Sink:
    """A connection that remembers."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def reset(self) -> None:
        self.data = b""


async def test_what_comes_before_the_connection_is_known_is_kept_and_sent_in_order() -> None:
    body = {"prompt": "x", "max_tokens": 6, "stream": True}
    request = RequestReader(LANGUAGE, "base", {}, 100).completion(body)
    reasons: list[str] = []
    answer = StreamedAnswer(
        request=request,
        form=StreamFormat(LANGUAGE, request, "cmpl-1", 0),
        ends=StreamEnds(asyncio.get_running_loop().create_future(), reasons.append),
        switches=FaultSwitches(),
        bundled=False,
    )
    choice = StreamedChoice(answer, 0, AnswerTokens(LANGUAGE, request, 0))
    sink = Sink()
    choice.on_tokens(2)
    choice.on_tokens(3)
    answer.attach(sink)
    assert sink.data.count(b"data: ") == 3
    choice.on_finished()
    assert sink.data.count(b"data: ") == 7
    assert answer.ended
    assert reasons == ["length"]


async def test_speculative_decoding_puts_several_tokens_into_one_event(
    start_server: StartServer,
) -> None:
    engine = EngineOptions(variant=EngineVariant(speculative_tokens=3))
    server = await start_server(replace(RECORDED, adapters=(), engine=engine))
    events = (await server.chat(max_tokens=90, ignore_eos=True, stream=True)).events()
    text = "".join(e["choices"][0]["delta"]["content"] for e in events[:-1])
    whole = (await server.chat(max_tokens=90, ignore_eos=True)).json()
    assert text == whole["choices"][0]["message"]["content"]
    assert len(events) < 80
