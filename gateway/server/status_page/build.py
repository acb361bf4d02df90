"""Makes the live page out of its parts."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.runtime.clock import Clock
from gateway.server.routes import PoolDirectory
from gateway.server.status_page.feed import StatusFeed
from gateway.server.status_page.pages import StatusPages
from gateway.server.status_page.sampler import StatusSampler
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recent_requests import RecentRequests


class LivePage(NamedTuple):
    """`recent` holds the requests it shows, `feed` runs beside, `pages` answers administrators."""

    recent: RecentRequests
    feed: StatusFeed
    pages: StatusPages


def build_live_page(
    *,
    pools: PoolDirectory,
    metrics: RequestMetrics,
    ended: EndedRequests,
    clock: Clock,
    wall_clock: Callable[[], float],
    version: str,
) -> LivePage:
    """Make the page of `pools` and of what ends from now on; it tells `version` of the gateway."""
    sampler = StatusSampler(pools=pools, metrics=metrics, wall_clock=wall_clock, version=version)
    recent = RecentRequests(ended=ended)
    feed = StatusFeed(sampler=sampler, clock=clock)
    pages = StatusPages(pools=pools, sampler=sampler, feed=feed, recent=recent)
    return LivePage(recent, feed, pages)
