"""Streams whose server is killed are finished by another one, token for token.

Only with `scripts/test-engine --kills`: each kill costs the start of a server.
"""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from gateway.settings.schema import Settings
from tests.live.in_process_site import running_gateway
from tests.real_engine.engines import ADAPTERS, BASE, Engines

_PIDS = [int(pid) for pid in os.environ.get("GATEWAY_REAL_ENGINE_PIDS", "").split(",") if pid]

pytestmark = pytest.mark.real_engine

KILLS = 4
STREAMS = 24
TOKENS = 200
KILLED_AFTER = 10
"""Events of every stream, at least."""
MODELS = ((BASE,), ADAPTERS)
"""By turns: in a batch with adapters vLLM's kernels for the CPU give the base model's requests the
adapter of the last slot (`lora_ops.py` takes their index, -1, for one), so that what the base model
says depends on what runs beside it."""
EQUAL = 0.95
"""Greedy decoding is not bit for bit the same in batches of another size."""
STARTS_WITHIN_S = 300.0


class EngineProcess:
    """A vLLM server that is killed and started again as it was."""

    def __init__(self, url: str, pid: int, log: Path) -> None:
        self.url = url
        self._pid = pid
        self._log = log
        self._argv = _fields(pid, "cmdline")
        self._environ = dict(each.split("=", 1) for each in _fields(pid, "environ"))
        self._own: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End it and its children, as the lack of memory or of power would."""
        os.killpg(self._pid, signal.SIGKILL)
        if self._own is not None:
            self._own.wait()

    def start(self) -> None:
        with self._log.open("wb") as log:
            self._own = subprocess.Popen(
                ["nice", "-n", "10", *self._argv],
                env=self._environ,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        self._pid = self._own.pid

    def stop(self) -> None:
        """End it if it is of our own starting."""
        if self._own is not None and self._own.poll() is None:
            self.kill()


class Answer(NamedTuple):
    """What a client got: from which server first, and whether the end was a proper one."""

    server: str
    text: str
    ids: tuple[int, ...]
    tokens: int
    whole: bool


def _fields(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_bytes().decode().rstrip("\0").split("\0")


@asynccontextmanager
async def _gateway(engines: Engines) -> AsyncIterator[tuple[str, str]]:
    services = [{"name": model, "continue_broken_streams": True} for model in (BASE, *ADAPTERS)]
    settings = Settings.model_validate(
        {
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "request_log": None,
            "debug_headers": True,
            "probe_timeout": "30s",
            "queue_timeout": "5min",
            "pools": [{"name": "pool", "servers": engines.urls, "services": services}],
        }
    )
    async with running_gateway(settings) as (port, admin_port):
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"


async def _all_used(http: aiohttp.ClientSession, admin: str, servers: int) -> None:
    async with asyncio.timeout(STARTS_WITHIN_S):
        while True:
            async with http.get(f"{admin}/debug/state") as response:
                (pool,) = (await response.json())["pools"].values()
            used = [each for each in pool["backends"] if each["usable"] and not each["ejected"]]
            if len(used) == servers:
                return
            await asyncio.sleep(0.2)


class Streams:
    """Some streams at once, chats and completions in turn."""

    def __init__(self, http: aiohttp.ClientSession, url: str, seed: int) -> None:
        self._http = http
        self._url = url
        self._seed = seed
        self._models = MODELS[seed // 2 % 2]
        self.events = [0] * STREAMS

    async def run(self) -> list[Answer]:
        return await asyncio.gather(*(self._one(number) for number in range(STREAMS)))

    async def all_flow(self, tasks: "asyncio.Task[list[Answer]]") -> None:
        while min(self.events) < KILLED_AFTER:
            assert not tasks.done()
            await asyncio.sleep(0.005)

    async def _one(self, number: int) -> Answer:
        prompt = f"Round {self._seed}, the quick brown fox number {number}"
        chat = number % 2
        body = {
            "model": self._models[number // 2 % len(self._models)],
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
        }
        body |= {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        path = "/v1/chat/completions" if chat else "/v1/completions"
        pieces: list[str] = []
        ids: list[int] = []
        tokens, done = 0, False
        async with self._http.post(self._url + path, json=body) as response:
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                if line.strip() == b"data: [DONE]":
                    done = True
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                self.events[number] += 1
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                pieces += [
                    (each["delta"].get("content") if chat else each["text"]) or ""
                    for each in event["choices"]
                ]
                for each in event["choices"]:
                    ids += each.get("token_ids") or ()
            server = response.headers["x-gateway-server"]
        return Answer(server, "".join(pieces), tuple(ids), tokens, done)


async def test_streams_of_a_server_that_is_killed_have_the_tokens_of_those_that_are_not(
    engines: Engines, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    processes = [
        EngineProcess(url, pid, tmp_path / f"{pid}.log")
        for url, pid in zip(engines.urls, _PIDS, strict=True)
    ]
    broken = equal = equal_texts = steady = 0
    try:
        async with _gateway(engines) as (url, admin):
            for kill in range(KILLS):
                await _all_used(http, admin, len(processes))
                whole = await Streams(http, url, kill).run()
                again = await Streams(http, url, kill).run()
                steady += sum(a.ids == b.ids for a, b in zip(whole, again, strict=True))
                streams = Streams(http, url, kill)
                running = asyncio.create_task(streams.run())
                await streams.all_flow(running)
                victim = processes[kill % len(processes)]
                victim.kill()
                answers = await running
                victim.start()
                assert all(answer.whole and answer.tokens == TOKENS for answer in answers)
                assert all(len(answer.ids) == TOKENS for answer in answers)
                hit = [n for n, answer in enumerate(answers) if answer.server == victim.url]
                same = [n for n in hit if answers[n].ids == whole[n].ids]
                texts = [n for n in hit if answers[n].text == whole[n].text]
                print(  # noqa: T201 - the figures
                    f"kill {kill + 1}: {len(hit)} streams broken;"
                    f" equal in ids {len(same)}, in text {len(texts)}"
                )
                broken += len(hit)
                equal += len(same)
                equal_texts += len(texts)
    finally:
        for process in processes:
            process.stop()
    print(f"{equal} of {broken} broken streams have the token ids of uninterrupted ones,")  # noqa: T201
    print(f"{equal_texts} their text;")  # noqa: T201
    print(f"{steady} of {KILLS * STREAMS} have the same ids twice although nothing breaks")  # noqa: T201
    assert broken >= 20
    assert equal / broken >= EQUAL
    assert equal_texts / broken >= EQUAL
