"""A real DNS server on loopback, over UDP, that answers from what a test put in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class DnsServer(asyncio.DatagramProtocol):
    """Answers questions for one name.

    Attributes:
        records: texts by type.
        rcode: what every question is answered with; None does not answer.
        asked: questions so far.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: dict[str, list[str]] = {}
        self.rcode: dns.rcode.Rcode | None = dns.rcode.NOERROR
        self.asked = 0
        self.port = 0
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the port."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        self.asked += 1
        if self.rcode is None:
            return
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        question = query.question[0]
        known = question.name.to_text(omit_final_dot=True) == self.name
        answer.set_rcode(self.rcode if known else dns.rcode.NXDOMAIN)
        kind = dns.rdatatype.to_text(question.rdtype)
        found = self.records.get(kind, []) if known and not self.rcode else []
        if found:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *found))
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def dns_server(name: str) -> AsyncIterator[DnsServer]:
    """Run a server for a name on a free port."""
    server = DnsServer(name)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
