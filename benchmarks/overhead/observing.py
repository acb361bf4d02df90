"""What metrics, live page and request log cost: `python -m benchmarks.overhead.observing`.

One gateway under load, which is watched by turns of a fiftieth of a second: by all, by all but the
request log, by nothing. Told is its CPU time per request. What else the machine does disturbs all
turns alike, so that this needs no quiet machine, only time.
"""

import argparse
import sys
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
    totals = orjson.loads(result.read_bytes())
    cost_us = {name: cpu_s / requests * 1e6 for name, (cpu_s, requests) in totals.items()}
    for name, (_, requests) in totals.items():
        share = 1.0 - cost_us["nothing"] / cost_us[name]
        print(f"{kind:20} {name:16} {requests:8} {cost_us[name]:8.1f} us {share:7.1%}", flush=True)


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead.observing", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of each kind of load (60)")
    parser.add_argument("--cores", type=int, nargs=2, default=(1, 0), help="gateway's, rig's (1 0)")
    args = parser.parse_args()
    print(f"{'answers':20} {'watched by':16} {'requests':>8} {'CPU/request':>11} {'share':>7}")
    with passing_rig(servers=8, cores=tuple(args.cores), seconds=args.seconds) as rig:
        for kind, body in _BODIES.items():
            _measure(rig, kind, body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
