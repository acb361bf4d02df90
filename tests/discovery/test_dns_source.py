import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import dns.rcode
import pytest

from benchmarks.live.dns_server import DnsServer, dns_server
from gateway.discovery.dns_source import DnsSource
from gateway.settings.discovery import DnsDiscovery
from tests.discovery.reports import Seen
from tests.server.raw_server import eventually

NAME = "vllm.test"


class Asked:
    """A source in front of a DNS server."""

    def __init__(self, server: DnsServer, **wanted: object) -> None:
        values = {"name": NAME, "nameserver": f"127.0.0.1:{server.port}", **wanted}
        self.seen = Seen("dns")
        self.server = server
        self.source = DnsSource(
            DnsDiscovery.model_validate(values), self.seen.report, rng=Random(1)
        )


@asynccontextmanager
async def asking(**wanted: object) -> AsyncIterator[Asked]:
    async with dns_server(NAME) as server:
        yield Asked(server, **wanted)


async def test_each_address_is_a_server_of_both_families() -> None:
    async with asking(port=8000) as asked:
        asked.server.records = {"A": ["10.0.0.2", "10.0.0.1"], "AAAA": ["fd00::1"]}
        await asked.source.look()
        assert asked.seen.servers == {
            "http://10.0.0.1:8000": False,
            "http://10.0.0.2:8000": False,
            "http://[fd00::1]:8000": False,
        }


async def test_an_address_that_is_gone_is_told() -> None:
    async with asking(port=80, scheme="https") as asked:
        asked.server.records = {"A": ["10.0.0.1", "10.0.0.2"]}
        await asked.source.look()
        asked.server.records = {"A": ["10.0.0.2"]}
        await asked.source.look()
        assert asked.seen.servers == {"https://10.0.0.2:80": False}


async def test_service_records_name_host_and_port_and_the_lowest_priority_counts() -> None:
    async with asking(type="SRV") as asked:
        asked.server.records = {"SRV": ["5 1 8001 a.test.", "5 1 8002 b.test.", "9 1 8003 c.test."]}
        await asked.source.look()
        assert asked.seen.servers == {"http://a.test:8001": False, "http://b.test:8002": False}


@pytest.mark.parametrize(
    ("rcode", "text"),
    [
        (dns.rcode.NXDOMAIN, "vllm.test does not exist"),
        (dns.rcode.SERVFAIL, "vllm.test cannot be resolved"),
        (dns.rcode.NOERROR, "vllm.test has no A records"),
    ],
)
async def test_a_name_that_vanishes_keeps_its_last_servers(
    rcode: dns.rcode.Rcode, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(port=8000) as asked:
        asked.server.records = {"A": ["10.0.0.1"]}
        await asked.source.look()
        asked.server.records = {}
        asked.server.rcode = rcode
        for _ in range(3):
            await asked.source.look()
        assert asked.seen.servers == {"http://10.0.0.1:8000": False}
        assert asked.seen.report.errors == 3
        assert caplog.text.count(text) == 1
        asked.server.records, asked.server.rcode = {"A": ["10.0.0.2"]}, dns.rcode.NOERROR
        await asked.source.look()
        assert asked.seen.servers == {"http://10.0.0.2:8000": False}


async def test_a_name_server_that_does_not_answer_keeps_the_last_servers() -> None:
    async with asking(port=8000) as asked:
        asked.server.records = {"A": ["10.0.0.1"]}
        await asked.source.look()
        asked.server.rcode = None
        asked.source._resolver.lifetime = 0.05
        await asked.source.look()
        assert asked.seen.servers == {"http://10.0.0.1:8000": False}
        assert asked.seen.report.errors == 1


async def test_half_an_answer_takes_no_server_out() -> None:
    async with asking(port=8000) as asked:
        asked.server.records = {"A": ["10.0.0.1"], "AAAA": ["fd00::1"]}
        await asked.source.look()
        answers = asked.server.datagram_received

        def only_once(data: bytes, addr: tuple[str, int]) -> None:
            asked.server.datagram_received = lambda *_: None  # type: ignore[method-assign] # silent
            answers(data, addr)

        asked.server.datagram_received = only_once  # type: ignore[method-assign] # A, not AAAA
        asked.source._resolver.lifetime = 0.05
        await asked.source.look()
        assert len(asked.seen.told) == 1


async def test_a_target_that_says_there_is_no_service_keeps_the_last_servers() -> None:
    async with asking(type="SRV") as asked:
        asked.server.records = {"SRV": ["0 0 0 ."]}
        await asked.source.look()
        assert not asked.seen.told
        assert asked.seen.report.errors == 1


async def test_the_name_is_resolved_again_and_again() -> None:
    async with asking(port=8000, interval="3ms") as asked:
        asked.server.records = {"A": ["10.0.0.1"]}
        task = asyncio.create_task(asked.source.run())
        await eventually(lambda: asked.server.asked >= 6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cancellation_that_the_resolver_loses_ends_it_all_the_same() -> None:
    class Losing(DnsSource):
        async def look(self) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)

    wanted = DnsDiscovery.model_validate({"name": NAME, "port": 8000, "interval": "1ms"})
    source = Losing(wanted, Seen("dns").report, rng=Random(1))
    task = asyncio.create_task(source.run())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
