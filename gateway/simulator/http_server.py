"""A vLLM server in software: the simulated engine behind vLLM's HTTP API, in real time.

What it answers with is shaped like recordings of vLLM 0.32: key order, error texts, one event per
chunk. An answer's text depends only on the model and on all token ids before it. It ends after
`max_tokens`; without that (or where `max_tokens` is all the room left) it ends by itself, after 211
tokens on average, unless `ignore_eos`. A client that leaves aborts its request at once.
Switches for tests are under /sim/, see `fault_api`.
"""

from random import Random

from aiohttp import web

from gateway.simulator.fault_api import FaultApi
from gateway.simulator.generation_api import GenerationApi
from gateway.simulator.http_replies import errors_as_replies
from gateway.simulator.model_api import ModelApi
from gateway.simulator.simulated_vllm import (
    ServerClocks,
    SimulatedServerOptions,
    SimulatedVllm,
)

__all__ = ["ServerClocks", "SimulatedServer", "SimulatedServerOptions", "SimulatedVllm"]

_MAX_BODY_BYTES = 64 << 20
_BACKLOG = 2048
_KEEP_ALIVE_S = 5.0
"""uvicorn's default, as vLLM runs it."""


class SimulatedServer:
    """One simulated server on a port. Start and stop it inside a running event loop.

    Attributes:
        vllm: what is behind the HTTP: engine, switches, metrics.
        faults: the switches of /sim/ for callers in the same process.
    """

    def __init__(
        self, *, options: SimulatedServerOptions, clocks: ServerClocks, rng: Random
    ) -> None:
        """Make a stopped server; all random draws come from `rng`.

        Raises:
            ValueError: options that do not fit together.
        """
        self.vllm = SimulatedVllm(options=options, clocks=clocks, rng=rng)
        self.faults = FaultApi(self.vllm)
        self._runner: web.AppRunner | None = None

    def make_app(self) -> web.Application:
        """Return the server as an aiohttp application (one per server)."""
        app = web.Application(middlewares=[errors_as_replies], client_max_size=_MAX_BODY_BYTES)
        app.add_routes(GenerationApi(self.vllm).routes())
        app.add_routes(ModelApi(self.vllm).routes())
        app.add_routes(self.faults.routes())
        return app

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, on a free port if `port` is 0; return the base URL.

        Raises:
            OSError: the port is taken.
        """
        runner = web.AppRunner(
            self.make_app(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEP_ALIVE_S,
            shutdown_timeout=self.vllm.options.shutdown_s,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return f"http://{host}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Cut all requests with an error event, as vLLM does at SIGTERM, and stop listening."""
        if self._runner is None:
            return
        self.faults.fail_all()
        await self._runner.cleanup()
        self._runner = None
        self.vllm.live.close()
