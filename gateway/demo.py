"""The demo: a pool of simulated vLLM servers with LoRA adapters behind the gateway, in one process.

It prints where to find it, and lines to paste.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from shlex import quote

import uvloop

from gateway.assembly import serve
from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.settings.problems import ConfigurationError, Problem
from gateway.settings.schema import Settings
from gateway.simulator.engine import EngineOptions
from gateway.simulator.http_server import ServerClocks, SimulatedServer, SimulatedServerOptions
from gateway.simulator.profiles import PROFILES

BASE_MODEL = "llama-3.1-8b"
_LOOPBACK = "127.0.0.1"
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound


def add_arguments(parser: ArgumentParser) -> None:
    """Add the demo's own flags; those of `serve` go beside them."""
    parser.add_argument("--servers", type=_count, default=3, help="simulated servers (3)")
    parser.add_argument("--adapters", type=_count, default=8, help="LoRA adapters of each (8)")
    parser.add_argument("--slots", type=_count, default=4, help="adapter slots of each (4)")
    parser.add_argument(
        "--profile", choices=sorted(PROFILES), default="llama3.1-8b-h100-80", help="model and GPU"
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
        engine=EngineOptions(max_loras=arguments.slots),
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
        host = settings.host if "host" in settings.origins else _LOOPBACK
        log = settings.request_log if "request_log" in settings.origins else None
        own = settings.model_copy(
            update={"host": host, "backends": tuple(urls), "request_log": log}
        )
        what = (
            f"{len(urls)} simulated servers of {BASE_MODEL}, each with {len(adapters)} adapters"
            f" ({adapters[0]} to {adapters[-1]}) in {arguments.slots} slots"
        )
        await serve(
            own,
            started=lambda port, admin_port: print(
                welcome(_url(own.host, port), _url(own.admin_host, admin_port), what, adapters[0]),
                flush=True,
            ),
        )


def welcome(url: str, admin_url: str, what: str, model: str) -> str:
    """What to do with the demo: lines that work as pasted into a shell."""
    return f"""
The gateway serves {url}/v1 from {what}.
Watch it: {admin_url}/  Metrics: {admin_url}/metrics  End: Ctrl-C

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


def _url(host: str, port: int) -> str:
    shown = _LOOPBACK if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is below 1")
    return number
