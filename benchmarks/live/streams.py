"""Many concurrent streams: all complete, unchanged, at little memory, and nothing is left over."""

import asyncio
from dataclasses import dataclass

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import BASE_MODEL, Site

DONE = b"data: [DONE]\n\n"
_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsPlan:
    """How many streams at once, how long each, over which models."""

    streams: int
    tokens: int
    models: tuple[str, ...] = (BASE_MODEL,)
    bytes_wanted: int = 100_000


class _Watch:
    """Follows streams and the gateway's memory."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._open = 0
        self.most_open = 0
        self.most_bytes = 0

    async def stream(self, conversation: Conversation) -> Conversation:
        """Read a stream to its end."""
        async with conversation:
            await conversation.read()
            self._open += 1
            self.most_open = max(self.most_open, self._open)
            await conversation.read_all()
            self._open -= 1
        return conversation

    async def memory(self) -> None:
        """Sample until cancelled."""
        while True:
            self.most_bytes = max(self.most_bytes, self._site.resident_bytes())
            await asyncio.sleep(_SAMPLE_S)


async def check_streams(site: Site, plan: StreamsPlan) -> list[Finding]:
    """Run the streams and tell what came of them."""
    for number in range(20):
        model = plan.models[number % len(plan.models)]
        await ask(site.port, f"warm-{number}", question(model, "hi", max_tokens=2, stream=True))
    watch = _Watch(site)
    bytes_before, descriptors_before = site.resident_bytes(), site.descriptors()
    async with asyncio.TaskGroup() as group:
        sampling = group.create_task(watch.memory())
        streams = await asyncio.gather(*(watch.stream(c) for c in _conversations(site, plan)))
        sampling.cancel()
    whole = sum(s.status == 200 and s.complete and s.body.endswith(DONE) for s in streams)
    findings = [
        equal("streams that were complete", whole, plan.streams),
        equal("streams open at the same time", watch.most_open, plan.streams),
        equal(
            "streams with exactly the server's bytes",
            sum(_unchanged(site, s) for s in streams),
            plan.streams,
        ),
        equal(
            "chunks of tokens",
            sum(s.body.count(b'"delta":{"content":') for s in streams),
            plan.streams * plan.tokens,
        ),
    ]
    if site.gateway_pid is not None:
        findings += _memory(plan, bytes_before, watch.most_bytes)
    _, engines_s = await site.emptied(asyncio.get_running_loop().time, within_s=1.0)
    findings += [
        equal("counters of the ledger and the queues not at zero", await site.left_over(), {}),
        Finding("engines empty after", f"{engines_s:.2f} s", "below 1 s", engines_s < 1.0),
    ]
    if site.gateway_pid is not None:
        findings.append(await _descriptors(site, descriptors_before))
    return findings


def _conversations(site: Site, plan: StreamsPlan) -> list[Conversation]:
    return [
        Conversation(
            site.port,
            f"stream-{number}",
            question(
                plan.models[number % len(plan.models)],
                f"Tell story {number}.",
                max_tokens=plan.tokens,
                stream=True,
            ),
        )
        for number in range(plan.streams)
    ]


def _unchanged(site: Site, stream: Conversation) -> bool:
    """Whether one server was asked once and the client got exactly its bytes."""
    exchanges = site.exchanges(stream.request_id)
    return len(exchanges) == 1 and exchanges[0].complete and exchanges[0].body == stream.body


def _memory(plan: StreamsPlan, before: int, peak: int) -> list[Finding]:
    each = (peak - before) / plan.streams
    return [
        Finding(
            "resident memory of the gateway",
            f"{before / 1e6:.1f} MB before, {peak / 1e6:.1f} MB at the peak",
            "",
            ok=True,
        ),
        Finding(
            "memory per stream",
            f"{each / 1e3:.1f} kB",
            f"below {plan.bytes_wanted / 1e3:.0f} kB",
            each < plan.bytes_wanted,
        ),
    ]


async def _descriptors(site: Site, before: int) -> Finding:
    """Idle connections to servers are kept for 3 s; then no descriptor may be left."""
    for _ in range(100):
        if site.descriptors() <= before:
            break
        await asyncio.sleep(0.1)
    left = site.descriptors() - before
    return Finding("descriptors left open", str(max(0, left)), "0", left <= 0)
