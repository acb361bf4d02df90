"""The command `simulate-server`: one simulated vLLM server on a port, until interrupted."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from math import inf
from random import Random

import uvloop

from gateway.runtime.clock import monotonic_clock, wall_clock
from gateway.simulator.engine import EngineOptions, SchedulingOrder
from gateway.simulator.http_server import (
    ServerClocks,
    SimulatedServer,
    SimulatedServerOptions,
)
from gateway.simulator.profiles import PROFILES

_EXIT_USAGE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one")
    parser.add_argument(
        "--profile", default="llama3.1-8b-h100-80", choices=list(PROFILES), help="model and GPU"
    )
    parser.add_argument("--model", default="base", help="name of the base model")
    parser.add_argument(
        "--adapters", default="", help="LoRA adapters loaded from the start, comma-separated"
    )
    parser.add_argument(
        "--max-loras", type=_whole(0), default=4, help="adapters in one batch; 0: no LoRA"
    )
    parser.add_argument("--lora-rank", type=_whole(1), default=16, help="rank of the adapters")
    parser.add_argument(
        "--max-model-len", type=_whole(2), default=None, help="longest prompt plus answer"
    )
    parser.add_argument("--max-queued", type=_whole(1), default=None, help="requests that may wait")
    parser.add_argument(
        "--scheduling-policy",
        default=SchedulingOrder.FCFS.value,
        choices=[order.value for order in SchedulingOrder],
        help="order of the waiting queue",
    )
    parser.add_argument("--time-scale", type=_factor, default=1.0, help="10: ten times as fast")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random draws")


def server_options(args: argparse.Namespace) -> SimulatedServerOptions:
    """Turn parsed flags into options."""
    adapters = tuple(name.strip() for name in args.adapters.split(",") if name.strip())
    return SimulatedServerOptions(
        model=args.model,
        adapters=adapters,
        profile=PROFILES[args.profile],
        engine=EngineOptions(
            max_loras=args.max_loras,
            lora_rank=args.lora_rank,
            order=SchedulingOrder(args.scheduling_policy),
            max_queued=args.max_queued,
        ),
        max_model_len=args.max_model_len,
        time_scale=args.time_scale,
    )


async def serve(options: SimulatedServerOptions, *, host: str, port: int, seed: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        OSError: the port is taken.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    server = SimulatedServer(
        options=options, clocks=ServerClocks(monotonic_clock, wall_clock), rng=Random(seed)
    )
    url = await server.start(host, port)
    models = ", ".join((options.model, *options.adapters))
    print(f"simulated vLLM ({options.profile.name}) at {url} serves {models}", flush=True)
    try:
        await stopped.wait()
    finally:
        await server.stop()


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status: 0, or 2 for flags that do not fit together.

    Raises:
        OSError: the port is taken.
    """
    options = server_options(args)
    if options.adapters and not options.engine.max_loras:
        print("--adapters need --max-loras of at least 1", file=sys.stderr)
        return _EXIT_USAGE
    uvloop.run(serve(options, host=args.host, port=args.port, seed=args.seed))
    return 0


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{number} is below {least}")
        return number

    return parse


def _factor(text: str) -> float:
    if not 0 < (number := float(text)) < inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number
