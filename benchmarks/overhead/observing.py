"""What metrics, live page and request log cost: `python -m benchmarks.overhead.observing`.

One gateway under load, which is watched by turns of a tenth of a second: by all, by all but the
request log, by nothing. Told is the CPU time of a request, and what watching takes of it, two ways:

- `inside`: the time spent in the observers, less what reading the clock takes (which the turns of
  nothing show), and its share of the CPU time;
- `on and off`: by how much a request costs more than one that nothing watches, compared between the
  turns of the same round: the median over the rounds, with its 95 % interval (order statistics, so
  that a few turns in which the machine did something else do not matter).

What else the machine does disturbs all turns alike; on a busy one the interval is wider. Measured
are the gateway of this checkout, and the wheel with compiled modules where `set-up` installed it.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import orjson

from benchmarks.overhead.programs import request_body
from benchmarks.overhead.rig import Rig, passing_rig
from benchmarks.overhead.set_up import DEFAULT_FOLDER
from benchmarks.overhead.systems import INTERPRETED, OURS, NotThere, make_system

_ENOUGH = 20
"""Requests in a turn; with fewer, what does not depend on them (polls, the page) tells."""
_PROJECT = Path(__file__).parents[2]
_Turn = tuple[int, float, float]
_BODIES = {
    "not streamed": request_body(size=1_000, streamed=False),
    "streamed, 10 chunks": request_body(size=1_000, streamed=True, chunks=10),
}


def _measure(rig: Rig, name: str, kind: str, body: bytes, peers: Path) -> None:
    """Raises NotThere."""
    site = rig.site(f"{name}-{kind}".replace(" ", "-"))
    result = site.folder / "totals.json"
    system = make_system(name, site, peers=peers, checkouts={})
    python, _, _, *arguments = system.command
    program = (python, "-m", "benchmarks.overhead.alternating", str(result), *arguments)
    # The gateway is found first where the system has it, this program in the checkout.
    path = f"{system.environment['PYTHONPATH']}:{_PROJECT}"
    observed = replace(system, command=program, environment={"PYTHONPATH": path})
    with rig.running(observed, site) as running:
        rig.load(running, body=body, connections=64)
    turns = orjson.loads(result.read_bytes())
    off = turns["nothing"]
    _, _, clock_us = _per_request(off)
    for watched_by, of_all in turns.items():
        requests, cpu_us, watching_us = _per_request(of_all)
        net_us = watching_us - clock_us
        told = f"{requests:8} {cpu_us:8.1f} us {net_us:8.1f} us {net_us / cpu_us:7.1%}"
        compared = "" if of_all is off else _compared(of_all, off)
        print(f"{kind:20} {watched_by:16} {told}   {compared}", flush=True)


def _compared(on: Sequence[_Turn], off: Sequence[_Turn]) -> str:
    """By how much more a request costs: the median over rounds, and its 95 % interval."""
    more = sorted(
        _per_request([one])[1] / _per_request([other])[1] - 1.0
        for one, other in zip(on, off, strict=False)  # the last round may not have ended
        if min(one[0], other[0]) >= _ENOUGH
    )
    if not more:
        return "too few requests"
    middle, spread = len(more) / 2, 0.98 * math.sqrt(len(more))
    low = more[max(0, math.floor(middle - spread))]
    high = more[min(len(more) - 1, math.ceil(middle + spread))]
    return f"{median(more):+.1%} ({low:+.1%} to {high:+.1%}, {len(more)} rounds)"


def _per_request(turns: Sequence[_Turn]) -> tuple[int, float, float]:
    """Requests, and microseconds of each: in all, and in watching. Idle turns do not count."""
    busy = [turn for turn in turns if turn[0]]
    requests, cpu_s, watching_s = map(sum, zip(*busy, strict=True))
    return int(requests), cpu_s / requests * 1e6, watching_s / requests * 1e6


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead.observing", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind of load (60)")
    parser.add_argument("--cores", type=int, nargs=2, default=(1, 0), help="gateway's, rig's (1 0)")
    parser.add_argument(
        "--peers", type=Path, default=DEFAULT_FOLDER, help=f"their folder ({DEFAULT_FOLDER})"
    )
    args = parser.parse_args()
    told = "requests  CPU/request      inside   share   on and off"
    with passing_rig(servers=8, cores=tuple(args.cores), seconds=args.seconds) as rig:
        for name in (INTERPRETED, OURS):
            print(f"\n{name}\nanswers              watched by       {told}")
            try:
                for kind, body in _BODIES.items():
                    _measure(rig, name, kind, body, args.peers)
            except NotThere as error:
                print(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
