"""Builds the one scheduler object that the live gateway and the simulator both run."""

from random import Random

from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.scheduler import Scheduler


def build_scheduler(policy: SchedulingPolicy, rng: Random) -> Scheduler:
    """Wire a scheduler for one pool. `rng` is the only source of its random draws."""
    return Scheduler(policy=policy, rng=rng)
