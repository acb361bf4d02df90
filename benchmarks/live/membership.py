"""Servers that come and go all the time, by every way there is: no request fails."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import orjson

from benchmarks.live.dns_server import DnsServer
from benchmarks.live.findings import Finding, equal
from benchmarks.live.load import SteadyLoad
from benchmarks.live.site import BASE_MODEL, Site
from tests.discovery.kubernetes_stub import SLICES, Break, KubernetesStub, Step, slice_of

NAME = "servers.test"
WAYS = ("admin", "file", "dns", "kubernetes")
_BREAKS = (Break.RESET, Break.TORN, Break.END, None)
"""What befalls the watch at every change there, in turn; None: its version has expired."""
_EXPIRED: Step = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
_POLL_S = 0.005
_OVERLAP = 0.25
"""Share of removals that are taken back before the server is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipPlan:
    """How many removals, each followed by an add, over all ways; and the load meanwhile."""

    changes: int
    clients: int
    tokens: int
    seed: int = 1


class Sources:
    """What names the servers: the admin API for some, a file, DNS and Kubernetes for the others."""

    def __init__(self, folder: Path, dns: DnsServer, cluster: KubernetesStub) -> None:
        """`assign` says which server is whose."""
        self.file = folder / "servers.json"
        self.broken_watches = 0
        self._dns = dns
        self._cluster = cluster
        self._named: dict[str, dict[str, None]] = {way: {} for way in WAYS}

    def assign(self, urls: Sequence[str]) -> dict[str, object]:
        """Take servers in turn; return the configuration of the one pool that has them all."""
        for number, url in enumerate(urls):
            self._named[WAYS[number % len(WAYS)]][url] = None
        for way in ("file", "dns"):
            self._tell(way)
        for url in self._named["kubernetes"]:
            self._cluster.put(SLICES, _slice_of(url))
        dns = {
            "name": NAME,
            "type": "SRV",
            "nameserver": f"127.0.0.1:{self._dns.port}",
            "interval": "20ms",
        }
        discovery = {
            "dns": dns,
            "file": {"path": str(self.file), "interval": "20ms"},
            "kubernetes": {
                "service": "vllm",
                "namespace": "default",
                "api_server": self._cluster.url,
                "token_file": str(self.file.with_name("no-token")),
            },
        }
        pool = {"name": "pool", "servers": list(self._named["admin"]), "discovery": discovery}
        return {"backends": [], "pools": [pool]}

    def of(self, way: str) -> tuple[str, ...]:
        """The servers of one way, all of them there."""
        return tuple(self._named[way])

    async def change(self, site: Site, way: str, url: str, *, present: bool) -> None:
        """Name a server, or name it no longer."""
        if way == "admin":
            await _by_admin(site, url, present=present)
            return
        if way == "kubernetes":
            self._change_slice(url, present=present)
            return
        if present:
            self._named[way][url] = None
        else:
            del self._named[way][url]
        self._tell(way)

    def _change_slice(self, url: str, *, present: bool) -> None:
        """Change the endpoints, and break the watch that would tell it before or after that."""
        how = _BREAKS[self.broken_watches % len(_BREAKS)]
        step = _EXPIRED if how is None else how
        first = self.broken_watches // len(_BREAKS) % 2 == 0
        self.broken_watches += 1
        if first:
            self._cluster.tell(SLICES, step)
        if present:
            self._cluster.put(SLICES, _slice_of(url))
        else:
            self._cluster.delete(SLICES, _slice_name(url))
        if not first:
            self._cluster.tell(SLICES, step)

    def _tell(self, way: str) -> None:
        urls = list(self._named[way])
        if way == "file":
            passing = self.file.with_suffix(".new")
            passing.write_bytes(orjson.dumps({"servers": urls}))
            passing.replace(self.file)
        elif way == "dns":
            ports = [urlsplit(url).port for url in urls]
            self._dns.records = {"SRV": [f"0 0 {port} 127.0.0.1." for port in ports]}


def _slice_name(url: str) -> str:
    return f"vllm-{urlsplit(url).port}"


def _slice_of(url: str) -> dict[str, object]:
    """An EndpointSlice of one server: all share an address, and have ports of their own."""
    ports = [{"name": "http", "port": urlsplit(url).port, "protocol": "TCP"}]
    return slice_of(_slice_name(url), ("127.0.0.1", True), ports=ports)


async def check_membership(site: Site, sources: Sources, plan: MembershipPlan) -> list[Finding]:
    """Remove and add servers under load."""
    load = SteadyLoad(site, model=BASE_MODEL, clients=plan.clients, tokens=plan.tokens)
    done: Counter[object] = Counter()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(load.run())
        each = -(-plan.changes // len(WAYS))
        async with asyncio.TaskGroup() as churns:
            for number, way in enumerate(WAYS):
                rng = Random(f"{plan.seed} {way}")
                count = min(each, plan.changes - number * each)
                churns.create_task(_churn(site, sources, way, count, rng, done))
        took_s = loop.time() - began_at
        load.stop()
        await asking
    total = len(site.server_urls)
    servers = await listed(site)
    by_way = ", ".join(f"{way} {done[way, 'removed']}" for way in WAYS)
    return [
        equal("removals of a server", sum(done[way, "removed"] for way in WAYS), plan.changes),
        Finding("  by way", by_way, "", ok=True),
        equal("adds of a server", sum(done[way, "added"] for way in WAYS), plan.changes),
        Finding("  of them before it was gone", str(done["taken back"]), "", ok=True),
        Finding("watches of Kubernetes that broke", str(sources.broken_watches), "", ok=True),
        *load.findings(),
        equal("servers that are up at the end", list(servers.values()).count("up"), total),
        equal("counters of the ledger and the queues not at zero", await _left(site), {}),
        Finding("seconds", f"{took_s:.0f}", "", ok=True),
    ]


async def _churn(
    site: Site, sources: Sources, way: str, count: int, rng: Random, done: Counter[object]
) -> None:
    """Remove and add the servers of one way, one at a time."""
    urls = sources.of(way)
    for _ in range(count):
        url = rng.choice(urls)
        await sources.change(site, way, url, present=False)
        done[way, "removed"] += 1
        await _until(site, url, lambda state: state in {None, "leaving"})
        if rng.random() < _OVERLAP:
            done["taken back"] += 1
        else:
            await _until(site, url, lambda state: state is None)
        await sources.change(site, way, url, present=True)
        done[way, "added"] += 1
        await _until(site, url, lambda state: state == "up")


async def _until(site: Site, url: str, reached: Callable[[str | None], bool]) -> None:
    state: str | None = "not asked for yet"
    try:
        async with asyncio.timeout(30.0):
            while not reached(state := (await listed(site)).get(url)):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise AssertionError(f"{url} stays {state!r}") from None


async def listed(site: Site) -> dict[str, str]:
    """States of the servers by URL, as the admin API tells them."""
    async with site.http.get(f"{site.admin_url}/admin/servers") as response:
        servers = (await response.json())["servers"]
    return {each["url"]: each["state"] for each in servers}


async def _by_admin(site: Site, url: str, *, present: bool) -> None:
    path = f"{site.admin_url}/admin/servers"
    if present:
        asked = site.http.post(path, json={"url": url})
    else:
        asked = site.http.delete(f"{path}/{url.replace('/', '%2F')}")
    async with asked as response:
        response.raise_for_status()


async def _left(site: Site) -> dict[str, object]:
    """What the scheduler still counts, once it has had time to end."""
    await site.emptied(asyncio.get_running_loop().time, within_s=2.0)
    return await site.left_over()
