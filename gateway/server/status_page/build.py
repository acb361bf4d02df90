"""Makes the live page out of its parts."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.runtime.clock import Clock
from gateway.server.routes import PoolDirectory
from gateway.server.status_page.feed import StatusFeed
from gateway.server.status_page.pages import StatusPages
from gateway.server.status_page.sampler import StatusSampler
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recent_requests import RecentRequests


class LivePage(NamedTuple):
    """`recent` observes requests, `feed` runs beside them, `pages` answers administrators."""

    recent: RecentRequests
    feed: StatusFeed
    pages: StatusPages


def build_live_page(
    *,
    pools: PoolDirectory,
    metrics: RequestMetrics,
    clock: Clock,
    wall_clock: Callable[[], float],
    version: str,
) -> LivePage:
    """Make the page of `pools`; `version` of the gateway is told on it."""
    sampler = StatusSampler(pools=pools, metrics=metrics, wall_clock=wall_clock, version=version)
    recent = RecentRequests(wall_clock=wall_clock)
    feed = StatusFeed(sampler=sampler, clock=clock)
    pages = StatusPages(pools=pools, sampler=sampler, feed=feed, recent=recent)
    return LivePage(recent, feed, pages)
