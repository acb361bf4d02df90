"""What metrics, live page and request log cost: `python -m benchmarks.overhead.observing`.

One gateway under load, which is watched by turns of a fiftieth of a second: by all, by all but the
request log, by nothing. Told is its CPU time per request. What else the machine does disturbs all
turns alike, so that this needs no quiet machine, only time; the error told is the standard error of
the share over twenty parts of the run.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from statistics import stdev

import orjson

from benchmarks.overhead.programs import request_body
from benchmarks.overhead.rig import Rig, passing_rig
from benchmarks.overhead.set_up import DEFAULT_FOLDER
from benchmarks.overhead.systems import OURS, make_system

_PARTS = 20
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
    turns = _loaded(orjson.loads(result.read_bytes()))
    rounds = len(turns["nothing"])
    parts = [slice(n * rounds // _PARTS, (n + 1) * rounds // _PARTS) for n in range(_PARTS)]
    for name, of_all in turns.items():
        cost_us = _cost_us(of_all)
        share = 1.0 - _cost_us(turns["nothing"]) / cost_us
        shares = [1.0 - _cost_us(turns["nothing"][p]) / _cost_us(of_all[p]) for p in parts]
        error = stdev(shares) / _PARTS**0.5
        requests = sum(count for _, count in of_all)
        told = f"{requests:8} {cost_us:8.1f} us {share:7.1%} +- {error:.1%}"
        print(f"{kind:20} {name:16} {told}", flush=True)


def _loaded(turns: dict[str, list[tuple[float, int]]]) -> dict[str, list[tuple[float, int]]]:
    """Leave out the rounds before and after the load."""
    rounds = min(map(len, turns.values()))
    busy = [n for n in range(rounds) if any(of_all[n][1] for of_all in turns.values())]
    return {name: of_all[busy[0] : busy[-1] + 1] for name, of_all in turns.items()}


def _cost_us(turns: Sequence[tuple[float, int]]) -> float:
    """CPU time per request."""
    return sum(cpu_s for cpu_s, _ in turns) / sum(count for _, count in turns) * 1e6


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
