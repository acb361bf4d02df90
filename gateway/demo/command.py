"""The command: starts the simulated servers and the gateway, and prints lines to paste."""

import asyncio
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from math import inf
from pathlib import Path
from random import Random
from shlex import quote

import uvloop

from gateway.demo.traffic import Traffic
from gateway.demo.workloads import Workload, demo_workloads
from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.serving import serve
from gateway.settings.problems import ConfigurationError, Problem
from gateway.settings.schema import PoolSettings, Settings
from gateway.simulator.engine import EngineOptions
from gateway.simulator.http_server import ServerClocks, SimulatedServer, SimulatedServerOptions
from gateway.simulator.profiles import PROFILES

BASE_MODEL = "llama-3.1-8b"
_LOOPBACK = "127.0.0.1"
_DRAIN_S = 1.0
_SPEED_WITH_TRAFFIC = 0.3
"""So slow that clients in the same process can ask for more than the servers can do."""
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound


def add_arguments(parser: ArgumentParser) -> None:
    """Add the demo's own flags; those of `serve` go beside them."""
    parser.add_argument("--servers", type=_count, default=3, help="simulated servers (3)")
    parser.add_argument("--adapters", type=_count, default=8, help="LoRA adapters of each (8)")
    parser.add_argument("--slots", type=_count, default=4, help="adapter slots of each (4)")
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="llama3.1-8b-h100-80", help="model and GPU"
    )
    parser.add_argument(
        "--speed",
        type=_positive,
        metavar="FACTOR",
        help=f"of each server, 1 is the profile's (1; {_SPEED_WITH_TRAFFIC:g} with --traffic)",
    )
    parser.add_argument(
        "--traffic",
        type=_positive,
        metavar="RATE",
        help="clients too: so many requests per second to five services, such as 5",
    )


def run(arguments: Namespace, settings: Settings) -> int:
    """Serve until interrupted; return the exit status.

    Raises:
        ConfigurationError: the settings name servers; the demo brings its own.
        OSError: a port is taken.
    """
    for key in ("backends", "pools"):
        if key in settings.origins:
            text = "the demo brings its own servers; expected none here"
            raise ConfigurationError([Problem(settings.origins[key], key, text)])
    uvloop.run(_serve(arguments, settings))
    return 0


async def _serve(arguments: Namespace, settings: Settings) -> None:
    adapters = tuple(f"adapter-{number}" for number in range(1, arguments.adapters + 1))
    options = SimulatedServerOptions(
        model=BASE_MODEL,
        adapters=adapters,
        profile=PROFILES[arguments.profile],
        engine=EngineOptions(max_loras=arguments.slots, speed=_speed(arguments)),
    )
    workloads = demo_workloads(BASE_MODEL, adapters) if arguments.traffic else ()
    what = (
        f"{arguments.servers} simulated servers of {BASE_MODEL}, each with {len(adapters)} adapters"
        f" ({adapters[0]} to {adapters[-1]}) in {arguments.slots} slots"
    )
    async with AsyncExitStack() as servers:
        urls = []
        for number in range(arguments.servers):
            server = SimulatedServer(
                options=options,
                clocks=ServerClocks(monotonic_clock, wall_clock),
                rng=Random(number),
            )
            servers.push_async_callback(server.stop)
            urls.append(await server.start())
        own = _own_settings(settings, urls, workloads)
        async with asyncio.TaskGroup() as group:
            clients: list[asyncio.Task[None]] = []

            def started(port: int, admin_port: int) -> None:
                url = _url(own.host, port, tls=own.tls_certificate is not None)
                admin_url = _url(own.admin_host, admin_port, tls=own.admin_tls)
                print(welcome(url, admin_url, what, adapters[0]), flush=True)
                if workloads:
                    print(_traffic_note(arguments.traffic, workloads), flush=True)
                    traffic = Traffic(workloads, rate=arguments.traffic, rng=Random(0))
                    clients.append(group.create_task(traffic.run(url), name="traffic"))

            await serve(own, started=started)
            for task in clients:
                task.cancel()


def _speed(arguments: Namespace) -> float:
    return float(arguments.speed or (_SPEED_WITH_TRAFFIC if arguments.traffic else 1.0))


def _own_settings(
    settings: Settings, urls: Sequence[str], workloads: Sequence[Workload]
) -> Settings:
    """Quiet, local and quickly ended, unless it was asked for otherwise."""
    own = {
        "host": _LOOPBACK,
        "request_log": None,
        "log_level": "warning",
        "drain_timeout": _DRAIN_S,
    }
    update: dict[str, object] = {k: v for k, v in own.items() if k not in settings.origins}
    if workloads:
        pool = PoolSettings(
            name="demo",
            servers=tuple(urls),
            services=tuple(workload.service for workload in workloads),
            accept_unregistered_models=True,
        )
        update["pools"] = (pool,)
    else:
        update["backends"] = tuple(urls)
    return settings.model_copy(update=update)


def _traffic_note(rate: float, workloads: Sequence[Workload]) -> str:
    names = ", ".join(workload.service.name for workload in workloads)
    return f"Clients send {rate:g} requests per second to the services {names}.\n"


def welcome(url: str, admin_url: str, what: str, model: str) -> str:
    """What to do with the demo: lines that work as pasted into a shell."""
    return f"""
The gateway serves {url}/v1 from {what}.
Watch it: {admin_url}/  Metrics: {admin_url}/metrics  End: Ctrl-C

Paste into another terminal:

# with curl
curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}], \
"max_tokens": 50, "stream": true}}'

# with the openai package
{_python()} - <<'SNIPPET'
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="none")
stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello"}}],
    max_tokens=50,
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
SNIPPET
"""


def _python() -> str:
    """This interpreter, shortly where it lies below the working directory."""
    path = Path(sys.executable)
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _url(host: str, port: int, *, tls: bool) -> str:
    shown = _LOOPBACK if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text}: expected a whole number of 1 or more")
    return int(text)


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < inf:
            return float(text)
    raise ArgumentTypeError(f"{text}: expected a number above 0")
