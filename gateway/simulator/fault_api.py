"""Switches for tests, under /sim/: what a real server has no endpoint for.

POST /sim/speed {"factor": .5}     later steps take 1/factor as long
POST /sim/freeze, /sim/thaw        no progress until thawed; connections stay open
POST /sim/reset                    reset the connections of all streams now
POST /sim/error                    the engine dies for all requests in flight: an error event in
                                   streams, 500 elsewhere; the server itself goes on
POST /sim/cut {"how": "reset" | "error", "after_tokens": 5, "times": 1}
                                   cut the next streams once they sent so many tokens
POST /sim/switches {"refuse", "garbage_metrics", "unhealthy": bool,
                    "queue_full": "status" | "event" | null}    set those that are named
GET  /sim/state                    switches, engine statistics, requests in flight
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

import msgspec
import orjson
from aiohttp import web

from gateway.simulator.api_errors import invalid_body
from gateway.simulator.fault_switches import Cut, QueueFull
from gateway.simulator.generation_api import read_body
from gateway.simulator.http_replies import json_reply
from gateway.simulator.live_answers import StreamedAnswer
from gateway.simulator.simulated_vllm import SimulatedVllm

_T = TypeVar("_T")


class _Speed(msgspec.Struct, forbid_unknown_fields=True):
    factor: float


class _Switches(msgspec.Struct, forbid_unknown_fields=True):
    refuse: bool | msgspec.UnsetType = msgspec.UNSET
    garbage_metrics: bool | msgspec.UnsetType = msgspec.UNSET
    unhealthy: bool | msgspec.UnsetType = msgspec.UNSET
    queue_full: QueueFull | msgspec.UnsetType | None = msgspec.UNSET


class FaultApi:
    """Handlers of the switches."""

    def __init__(self, vllm: SimulatedVllm) -> None:
        """Switch this server."""
        self._vllm = vllm

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/sim/speed", self.speed),
            web.post("/sim/freeze", self._action(self._vllm.live.freeze)),
            web.post("/sim/thaw", self._action(self._vllm.live.thaw)),
            web.post("/sim/reset", self._action(self.reset_streams)),
            web.post("/sim/error", self._action(self.fail_all)),
            web.post("/sim/cut", self.cut),
            web.post("/sim/switches", self.switches),
            web.get("/sim/state", self.state),
        ]

    def reset_streams(self) -> None:
        """Reset the connections of all streams."""
        for answer in list(self._vllm.answers.values()):
            if isinstance(answer, StreamedAnswer):
                answer.reset()

    def fail_all(self) -> None:
        """Let all requests in flight fail as if the engine had died."""
        for answer in list(self._vllm.answers.values()):
            answer.fail()

    async def speed(self, request: web.Request) -> web.Response:
        """Change the engine's speed."""
        body = _convert(await read_body(request), _Speed)
        if body.factor <= 0:
            raise invalid_body("factor must be above 0", "body.factor")
        self._vllm.live.set_speed(body.factor)
        return self._state()

    async def cut(self, request: web.Request) -> web.Response:
        """Cut the next streams."""
        self._vllm.switches.cut = _convert(await read_body(request), Cut)
        return self._state()

    async def switches(self, request: web.Request) -> web.Response:
        """Set the named switches."""
        body = msgspec.structs.asdict(_convert(await read_body(request), _Switches))
        for name, value in body.items():
            if value is not msgspec.UNSET:
                setattr(self._vllm.switches, name, value)
        return self._state()

    async def state(self, _: web.Request) -> web.Response:
        """Show switches, statistics and what is in flight."""
        return self._state()

    def _action(
        self, action: Callable[[], None]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_: web.Request) -> web.Response:
            action()
            return self._state()

        return handler

    def _state(self) -> web.Response:
        vllm = self._vllm
        engine = vllm.live.engine
        load = engine.load()
        state = {
            "switches": asdict(vllm.switches),
            "engine": asdict(engine.stats),
            "running": load.running,
            "waiting": load.waiting,
            "kv_usage": load.kv_usage,
            "running_adapters": engine.running_adapters(),
            "resident_adapters": engine.resident_adapters(),
            "answers": len(vllm.answers),
        }
        return json_reply(orjson.dumps(state))


def _convert(body: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise invalid_body(str(error)) from None
