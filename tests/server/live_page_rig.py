"""The live page of a running gateway, on a listener of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.runtime.clock import monotonic_clock
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.server.admin import AdminPages
from gateway.server.app import Listener, ListenOptions
from gateway.server.status_page.build import LivePage, build_live_page
from gateway.telemetry.ended_requests import EndedRequests
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.request_record import RequestRecord
from tests.server.gateway_rig import Rig

NOON = 1_800_000_000.0


def live_page(rig: Rig) -> LivePage:
    """The page's parts, at a fixed date; the feed does not run."""
    ended = EndedRequests(wall_clock=lambda: NOON)
    return build_live_page(
        pools=rig.pools,
        metrics=RequestMetrics(services=[DEFAULT_SERVICE], ended=ended),
        ended=ended,
        clock=monotonic_clock,
        wall_clock=lambda: NOON,
        version="1.2.3",
    )


def keep(page: LivePage, record: RequestRecord) -> None:
    """Have a request that ended at the fixed date."""
    page.recent.requests_ended([record], [NOON])


@asynccontextmanager
async def page_listener(rig: Rig, page: LivePage) -> AsyncIterator[int]:
    """Serve the page; the port."""
    admin = AdminPages(pools=rig.pools, render_metrics=lambda: b"", sections=[page.pages])
    listener = Listener(admin.handle, ListenOptions())
    await listener.open()
    try:
        yield listener.port
    finally:
        await listener.close()
