"""The assembled gateway as a process: signals, garbage collection, the limit on open files."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

from gateway.assembly import build_gateway
from gateway.runtime.open_files import raise_open_file_limit, streams_allowed
from gateway.settings.rendering import effective_configuration
from gateway.settings.schema import Settings
from gateway.telemetry.log_output import configure_logging

_LOG = logging.getLogger("gateway")
_COLLECT_EVERY = (10_000, 20, 20)
"""Thresholds of the garbage collector. A request leaves no cycles behind, only some 30 objects in
bounded records; the default (700, 10, 10) looks through those so often that it costs a fifth of the
time. docs/decisions/0003-collector-and-event-loop.md"""


async def serve(
    settings: Settings,
    *,
    load: Callable[[], Settings] | None = None,
    started: Callable[[int, int], None] | None = None,
) -> None:
    """Run the gateway until SIGTERM or SIGINT; a second signal ends it at once.

    Args:
        settings: the configuration.
        load: reads the configuration again, on SIGHUP; without it there is nothing new to read.
        started: called with the ports of clients and administrators once both listen.

    Raises:
        OSError: an address or the journal cannot be opened.
    """
    configure_logging(level=settings.log_level, as_json=settings.log_format == "json")
    raise_open_file_limit()
    stop = asyncio.Event()
    with ExitStack() as files:
        gateway, configuration, reloader = build_gateway(settings, files, load=load)
        _stop_on_signals(stop)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.request)
        _LOG.info("configuration in force:\n%s", effective_configuration(settings))

        def announce(client_port: int, admin_port: int) -> None:
            _LOG.info(
                "clients: %s://%s:%d/v1  administration: %s://%s:%d  (up to %d streams)",
                "https" if settings.tls_certificate else "http",
                settings.host,
                client_port,
                "https" if settings.admin_tls else "http",
                settings.admin_host,
                admin_port,
                streams_allowed(),
            )
            if started is not None:
                started(client_port, admin_port)

        # What exists now lives as long as the process: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_EVERY)
        await gateway.run(
            stop=stop, drain_s=lambda: configuration.settings.drain_timeout, started=announce
        )


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            _LOG.warning("%s again: ending at once", number.name)
            os._exit(1)
        _LOG.info("%s: finishing what is in flight", number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
