"""What metrics, live page and request log cost: `python -m benchmarks.overhead.observing`.

One gateway under load, which is watched by turns of a fiftieth of a second: by all, by all but the
request log, by nothing. Told is the CPU time of a request, how much of it is spent in watching
(less what reading the clock takes, which the turns of nothing show), and the share. What else the
machine does disturbs all turns alike, so that this needs no quiet machine.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import orjson

from benchmarks.overhead.programs import request_body
from benchmarks.overhead.rig import Rig, passing_rig
from benchmarks.overhead.set_up import DEFAULT_FOLDER
from benchmarks.overhead.systems import OURS, make_system

_BODIES = {
    "not streamed": request_body(size=1_000, streamed=False),
    "streamed, 10 chunks": request_body(size=1_000, streamed=True, chunks=10),
}


def _measure(rig: Rig, kind: str, body: bytes) -> None:
    site = rig.site(kind.replace(" ", "-"))
    result = site.folder / "totals.json"
    system = make_system(OURS, site, peers=DEFAULT_FOLDER, checkouts={})
    python, _, _, *arguments = system.command
    program = (python, "-m", "benchmarks.overhead.alternating", str(result), *arguments)
    with rig.running(replace(system, command=program), site) as running:
        rig.load(running, body=body, connections=64)
    turns = orjson.loads(result.read_bytes())
    _, _, clock_us = _per_request(turns["nothing"])
    for name, of_all in turns.items():
        requests, cpu_us, watching_us = _per_request(of_all)
        net_us = watching_us - clock_us
        told = f"{requests:8} {cpu_us:8.1f} us {net_us:8.1f} us {net_us / cpu_us:7.1%}"
        print(f"{kind:20} {name:16} {told}", flush=True)


def _per_request(turns: Sequence[tuple[int, float, float]]) -> tuple[int, float, float]:
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
    args = parser.parse_args()
    print("answers              watched by       requests  CPU/request    watching   share")
    with passing_rig(servers=8, cores=tuple(args.cores), seconds=args.seconds) as rig:
        for kind, body in _BODIES.items():
            _measure(rig, kind, body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
