"""Proofs on a running gateway: `python -m benchmarks.live CHECK`, see `--help` for the checks.

Each starts simulated servers and the gateway as processes of their own on loopback, prints a table
and stops everything it started. Exit status: 0 all is as wanted, 1 something is not.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.live.adapters import (
    AdaptersPlan,
    adapter_names,
    check_adapters,
    check_split,
    split_settings,
)
from benchmarks.live.cancellations import CancellationsPlan, check_cancellations
from benchmarks.live.chaos import ChaosPlan, check_chaos
from benchmarks.live.dns_server import dns_server
from benchmarks.live.drain import DrainPlan, check_drain
from benchmarks.live.findings import Finding, as_json, table
from benchmarks.live.forecasts import ForecastsPlan, check_forecasts
from benchmarks.live.membership import (
    NAME,
    WAYS,
    MembershipPlan,
    Sources,
    check_membership,
)
from benchmarks.live.processes import SiteOptions, replayed, site_of_processes
from benchmarks.live.reloads import Generations, ReloadsPlan, check_reloads
from benchmarks.live.scarcity import (
    ScarcityPlan,
    check_refusals,
    check_server_loss,
    scarce_pool,
)
from benchmarks.live.site import BASE_MODEL
from benchmarks.live.soak import SoakPlan, check_soak
from benchmarks.live.streams import StreamsPlan, check_streams
from tests.discovery.kubernetes_stub import KubernetesStub

_SERVERS = 3
_ADAPTERS = 20
_SLOTS = 4
_LONGEST_S = 1_800.0


async def _streams(args: argparse.Namespace, folder: Path) -> list[Finding]:
    options = SiteOptions(
        servers=_SERVERS,
        time_scale=args.time_scale or 0.1,
        settings={"max_requests_per_backend": args.requests, "queue_timeout": "5min"},
        folder=folder,
    )
    async with site_of_processes(options) as site:
        plan = StreamsPlan(streams=args.requests, tokens=args.tokens)
        findings = await check_streams(site, plan)
    return [*findings, await replayed(options.journal)]


async def _adapters(args: argparse.Namespace, folder: Path) -> list[Finding]:
    names = adapter_names(_ADAPTERS)
    options = SiteOptions(
        servers=_SERVERS,
        adapters=names,
        slots=_SLOTS,
        time_scale=args.time_scale or 2.0,
        settings=split_settings(),
        folder=folder,
    )
    plan = AdaptersPlan(
        requests=args.requests,
        adapters=_ADAPTERS,
        slots=_SLOTS,
        tokens=args.tokens,
        split_requests=args.split_requests,
    )
    async with site_of_processes(options) as site:
        findings = await check_adapters(site, plan)
        findings += await check_split(site, plan)
    return [*findings, await replayed(options.journal)]


async def _cancellations(args: argparse.Namespace, folder: Path) -> list[Finding]:
    options = SiteOptions(
        servers=_SERVERS,
        time_scale=args.time_scale or 0.2,
        settings={
            "max_requests_per_backend": 32,
            "queue_timeout": "1h",
            # Critical, so that they wait and are not refused where that takes long.
            "pools": [
                {
                    "name": "pool",
                    "services": [{"name": BASE_MODEL, "priority": "Critical"}],
                }
            ],
        },
        folder=folder,
    )
    async with site_of_processes(options) as site:
        plan = CancellationsPlan(requests=args.requests, at_once=args.requests * 3 // 10)
        findings = await check_cancellations(site, plan)
    return [*findings, await replayed(options.journal)]


async def _forecasts(args: argparse.Namespace, folder: Path) -> list[Finding]:
    request_log = folder / "requests.jsonl"
    names = adapter_names(_SLOTS)
    options = SiteOptions(
        servers=4,
        adapters=names,
        slots=_SLOTS,
        time_scale=args.time_scale or 0.3,
        settings={"request_log": str(request_log)},
        folder=folder,
    )
    plan = ForecastsPlan(
        requests=args.requests,
        rate_rps=args.rate,
        models=names,
        slow=2,
        request_log=request_log,
    )
    async with site_of_processes(options) as site:
        findings = await check_forecasts(site, plan)
    return [*findings, await replayed(options.journal)]


async def _membership(args: argparse.Namespace, folder: Path) -> list[Finding]:
    async with dns_server(NAME) as dns, KubernetesStub() as cluster:
        sources = Sources(folder, dns, cluster)
        options = SiteOptions(
            servers=2 * len(WAYS),
            time_scale=args.time_scale or 5.0,
            settings={"queue_timeout": "5min", "max_requests_per_backend": 64},
            folder=folder,
            arrange=sources.assign,
        )
        async with site_of_processes(options) as site:
            plan = MembershipPlan(changes=args.requests, clients=args.clients, tokens=args.tokens)
            findings = await check_membership(site, sources, plan)
    return [*findings, await replayed(options.journal)]


async def _reloads(args: argparse.Namespace, folder: Path) -> list[Finding]:
    generations = Generations(folder / "gateway.yaml")
    options = SiteOptions(
        servers=_SERVERS,
        time_scale=args.time_scale or 5.0,
        settings={},
        folder=folder,
        arrange=generations.first,
    )
    plan = ReloadsPlan(
        requests=args.requests, clients=args.clients, tokens=args.tokens, draining_streams=200
    )
    async with site_of_processes(options) as site:
        findings = await check_reloads(site, generations, plan)
    return [*findings, await replayed(options.journal)]


async def _chaos(args: argparse.Namespace, folder: Path) -> list[Finding]:
    plan = ChaosPlan(
        lasts_s=args.seconds,
        fault_s=args.fault_seconds,
        rate=args.rate,
        servers=args.servers,
        continues=args.continued,
        seed=args.seed,
    )
    return await check_chaos(plan, folder)


async def _server_loss(args: argparse.Namespace, folder: Path) -> list[Finding]:
    plan = ScarcityPlan(load=0.8, lasts_s=args.seconds, killed=args.killed)
    async with site_of_processes(_scarce(args, folder)) as site:
        return await check_server_loss(site, plan, args.plot)


async def _refusals(args: argparse.Namespace, folder: Path) -> list[Finding]:
    plan = ScarcityPlan(load=args.load, lasts_s=args.seconds)
    async with site_of_processes(_scarce(args, folder)) as site:
        return await check_refusals(site, plan)


def _scarce(args: argparse.Namespace, folder: Path) -> SiteOptions:
    return SiteOptions(
        servers=args.servers,
        time_scale=args.time_scale or 0.1,
        settings={"queue_timeout": "30s"},
        folder=folder,
        arrange=lambda backends: scarce_pool(backends, ttft="2s"),
    )


async def _drain(args: argparse.Namespace, folder: Path) -> list[Finding]:
    return await check_drain(DrainPlan(requests=args.requests), folder)


async def _soak(args: argparse.Namespace, folder: Path) -> list[Finding]:
    return await check_soak(
        SoakPlan(minutes=args.minutes, share=args.share, seed=args.seed), folder
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="CHECK")
    _add(commands.add_parser("streams", help="concurrent streams"), _streams, 1000, 100)
    adapters = commands.add_parser("adapters", help="20 adapters in 4 slots, and a split 90/10")
    _add(adapters, _adapters, 200, 60)
    adapters.add_argument(
        "--split-requests", type=int, default=1000, help="through the split (1000)"
    )
    _add(commands.add_parser("cancellations", help="clients that leave"), _cancellations, 1000, 0)
    forecasts = commands.add_parser("forecasts", help="forecast and outcome, two slow servers")
    _add(forecasts, _forecasts, 400, 0)
    forecasts.add_argument("--rate", type=float, default=2.2, help="requests per second (2.2)")
    membership = commands.add_parser("membership", help="servers that are removed and added")
    _add(membership, _membership, 1000, 10)
    reloads = commands.add_parser("reloads", help="reloads, and an end under load")
    _add(reloads, _reloads, 10_000, 10)
    for command in (membership, reloads):
        command.add_argument("--clients", type=int, default=40, help="at once (40)")
    chaos = commands.add_parser("chaos", help="a pool under load while its servers suffer faults")
    _common(chaos, _chaos)
    chaos.add_argument("--seconds", type=float, default=600.0, help="how long (600; quick: 60)")
    chaos.add_argument("--fault-seconds", type=float, default=8.0, help="of each fault (8)")
    chaos.add_argument("--rate", type=float, default=20.0, help="requests a second (20)")
    chaos.add_argument("--servers", type=int, default=4, help="simulated servers (4)")
    chaos.add_argument(
        "--continued", action="store_true", help="continue broken streams; then none may fail"
    )
    chaos.add_argument("--seed", type=int, default=1, help="of load and faults (1)")
    loss = commands.add_parser("server-loss", help="servers die under load: who is refused")
    refusals = commands.add_parser("refusals", help="overload: how soon refusals come")
    for command, check, servers in ((loss, _server_loss, 10), (refusals, _refusals, 4)):
        _common(command, check)
        command.add_argument("--seconds", type=float, default=45.0, help="of load (45)")
        command.add_argument("--servers", type=int, default=servers, help=f"({servers})")
        command.add_argument("--time-scale", type=float, help="engine seconds per second (0.1)")
    loss.add_argument("--killed", type=int, default=3, help="of them (3)")
    loss.add_argument("--plot", type=Path, metavar="FILE", help="draw it; needs matplotlib")
    refusals.add_argument("--load", type=float, default=2.0, help="of what fits (2)")
    drain = commands.add_parser("drain", help="reload and SIGTERM with requests in flight")
    _common(drain, _drain)
    drain.add_argument("--requests", type=int, default=10_000, help="how many (10000)")
    soak = commands.add_parser("soak", help="steady load: nothing grows, nothing is left over")
    _common(soak, _soak)
    soak.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    soak.add_argument("--share", type=float, default=0.8, help="of all places in use (.8)")
    soak.add_argument("--seed", type=int, default=1, help="of the load (1)")
    return parser


def _add(
    parser: argparse.ArgumentParser,
    check: Callable[[argparse.Namespace, Path], Coroutine[None, None, list[Finding]]],
    requests: int,
    tokens: int,
) -> None:
    _common(parser, check)
    parser.add_argument("--requests", type=int, default=requests, help=f"how many ({requests})")
    if tokens:
        parser.add_argument("--tokens", type=int, default=tokens, help=f"of each answer ({tokens})")
    parser.add_argument("--time-scale", type=float, help="engine seconds per second")


def _common(
    parser: argparse.ArgumentParser,
    check: Callable[[argparse.Namespace, Path], Coroutine[None, None, list[Finding]]],
) -> None:
    parser.set_defaults(check=check)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for journal and log; kept")


def main() -> int:
    """Run one check; return the exit status."""
    args = _parser().parse_args()
    planned_s = getattr(args, "seconds", 0.0) + 60.0 * getattr(args, "minutes", 0.0)
    longest_s = _LONGEST_S + planned_s
    with TemporaryDirectory() as passing:
        folder = args.keep or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            findings = uvloop.run(asyncio.wait_for(args.check(args, folder), longest_s))
        except TimeoutError:
            print(f"not done after {longest_s:g} s", file=sys.stderr)
            return 1
    print(as_json(findings) if args.json else table(findings))
    return 0 if all(finding.ok for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
