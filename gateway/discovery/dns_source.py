"""Servers behind a DNS name: A and AAAA records, or SRV records.

dnspython asks, since the system's resolver knows no SRV and would need threads.
"""

import asyncio
from collections.abc import Iterable
from random import Random

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from gateway.discovery.report import SourceReport
from gateway.settings.discovery import DnsDiscovery, split_nameserver

_LONGEST_LOOK_S = 5.0


class DnsSource:
    """Resolves a name again and again.

    A name that vanishes, or cannot be asked for, keeps its last servers: whether they work is for
    health checks to say.
    """

    def __init__(self, wanted: DnsDiscovery, report: SourceReport, *, rng: Random) -> None:
        self._wanted = wanted
        self._report = report
        self._rng = rng
        self._resolver = _resolver(wanted)

    async def run(self) -> None:
        """Look until cancelled, at about the wanted interval."""
        task = asyncio.current_task()
        assert task is not None
        while True:
            await self.look()
            # asyncio.wait_for of Python 3.11, which the resolver waits with, loses a cancellation
            # that comes together with the answer.
            if task.cancelling():
                raise asyncio.CancelledError
            await asyncio.sleep(self._wanted.interval * self._rng.uniform(0.9, 1.1))

    async def look(self) -> None:
        """Resolve once and report."""
        try:
            urls = await (self._targets() if self._wanted.type == "SRV" else self._addresses())
        except dns.resolver.NXDOMAIN:
            self._report.failed(f"{self._wanted.name} does not exist")
        except dns.exception.DNSException as error:
            self._report.failed(f"{self._wanted.name} cannot be resolved: {error}")
        except OSError as error:
            self._report.failed(f"no name server can be asked: {error.strerror or error}")
        else:
            if urls:
                self._report.in_touch()
                self._report.found(dict.fromkeys(urls, False))
            else:
                self._report.failed(f"{self._wanted.name} has no {self._wanted.type} records")

    async def _addresses(self) -> list[str]:
        # Both or none: half an answer would take servers out.
        both = [await self._ask(kind) for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)]
        addresses = sorted(record.to_text() for records in both for record in records)
        return [self._url(address, self._wanted.port) for address in addresses]

    async def _targets(self) -> list[str]:
        records = [each for each in await self._ask(dns.rdatatype.SRV) if isinstance(each, SRV)]
        first = min((record.priority for record in records), default=0)
        chosen = [record for record in records if record.priority == first]
        targets = {(record.target.to_text(omit_final_dot=True), record.port) for record in chosen}
        # A target "." says that there is no such service.
        return [self._url(host, port) for host, port in sorted(targets) if host not in {"", "."}]

    async def _ask(self, kind: dns.rdatatype.RdataType) -> Iterable[dns.rdata.Rdata]:
        answer = await self._resolver.resolve(
            self._wanted.name, kind, search=True, raise_on_no_answer=False
        )
        return answer.rrset or ()

    def _url(self, host: str, port: int | None) -> str:
        return f"{self._wanted.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _resolver(wanted: DnsDiscovery) -> dns.asyncresolver.Resolver:
    """The system's name servers, or the one that is wanted."""
    own = wanted.nameserver
    resolver = dns.asyncresolver.Resolver(configure=False)
    if own is None:
        try:
            resolver.read_resolv_conf("/etc/resolv.conf")
        except dns.resolver.NoResolverConfiguration:
            resolver.nameservers = ["127.0.0.1"]  # what the system's resolver does without a file
    else:
        address, resolver.port = split_nameserver(own)
        resolver.nameservers = [address]
    resolver.lifetime = min(_LONGEST_LOOK_S, wanted.interval)
    return resolver
