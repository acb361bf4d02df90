"""More adapters than slots, and a traffic split, as the servers and the clients see them."""

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from math import sqrt
from random import Random

import orjson

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import Site

SPLIT_SERVICE = "assistant"
SPLIT_TARGETS = ("adapter-1", "adapter-2")
SPLIT_SHARE = 0.9
_SAMPLE_S = 0.02
_LORA_INFO = re.compile(
    r'^vllm:lora_requests_info\{.*running_lora_adapters="([^"]*)".*\} (\S+)$', re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptersPlan:
    """How many requests over how many adapters, and how many through the split."""

    requests: int
    adapters: int
    slots: int
    tokens: int
    split_requests: int
    split_at_once: int = 50
    seed: int = 1


def adapter_names(count: int) -> tuple[str, ...]:
    """Names of so many adapters."""
    return tuple(f"adapter-{number}" for number in range(1, count + 1))


def split_settings() -> dict[str, object]:
    """Keys of the gateway's configuration: a service with a split, all models besides."""
    weights = (SPLIT_SHARE * 100, 100 - SPLIT_SHARE * 100)
    targets = [
        {"name": name, "weight": weight}
        for name, weight in zip(SPLIT_TARGETS, weights, strict=True)
    ]
    service = {"name": SPLIT_SERVICE, "targets": targets, "priority": "Critical"}
    return {
        "pools": [{"name": "pool", "services": [service], "accept_unregistered_models": True}],
    }


async def check_adapters(site: Site, plan: AdaptersPlan) -> list[Finding]:
    """Send requests for all adapters in random order at once, streamed and not in turn."""
    rng = Random(plan.seed)
    names = [f"adapter-{1 + number % plan.adapters}" for number in range(plan.requests)]
    rng.shuffle(names)
    most_reported = [0] * len(site.server_urls)
    async with asyncio.TaskGroup() as group:
        sampling = group.create_task(_sample(site, most_reported))
        answers = await asyncio.gather(
            *(
                ask(
                    site.port,
                    f"adapter-request-{number}",
                    question(
                        name,
                        f"Question {number}",
                        max_tokens=plan.tokens,
                        stream=bool(number % 2),
                    ),
                )
                for number, name in enumerate(names)
            )
        )
        sampling.cancel()
    states = [await site.sim_state(number) for number in range(len(site.server_urls))]
    engines = [state["engine"] for state in states]
    complete = sum(answer.status == 200 and answer.complete for answer in answers)
    asked = {e.model for r in site.recorders for es in r.exchanges.values() for e in es}
    return [
        equal("requests that were complete", complete, plan.requests),
        equal("adapters that were asked for", len(asked), plan.adapters),
        _bounded("adapters at once, by lora_requests_info", most_reported, plan.slots),
        _bounded(
            "adapters at once, by the engines",
            [e["max_distinct_adapters"] for e in engines],
            plan.slots,
        ),
        _bounded(
            "adapters at once, sent by the gateway",
            [recorder.most_models for recorder in site.recorders],
            plan.slots,
        ),
        equal(
            "requests an engine passed over for a slot", sum(e["slot_waits"] for e in engines), 0
        ),
        Finding("adapter loads", str([e["cold_adapter_loads"] for e in engines]), "", ok=True),
    ]


async def check_split(site: Site, plan: AdaptersPlan) -> list[Finding]:
    """Send requests for the service with the split."""
    places = asyncio.Semaphore(plan.split_at_once)

    async def one(number: int) -> Conversation:
        async with places:
            body = question(
                SPLIT_SERVICE, f"Question {number}", max_tokens=3, stream=bool(number % 2)
            )
            return await ask(site.port, f"split-{number}", body)

    answers = await asyncio.gather(*(one(number) for number in range(plan.split_requests)))
    asked = Counter(
        exchange.model for answer in answers for exchange in site.exchanges(answer.request_id)
    )
    expected = plan.split_requests * SPLIT_SHARE
    margin = 3 * sqrt(expected * (1 - SPLIT_SHARE))
    share = asked[SPLIT_TARGETS[0]]
    return [
        equal(
            "requests of the split that were complete",
            sum(answer.status == 200 and answer.complete for answer in answers),
            plan.split_requests,
        ),
        equal("requests for one of the two targets", asked.total(), plan.split_requests),
        Finding(
            "requests for the first target",
            str(share),
            f"{expected:.0f} +- {margin:.0f}",
            abs(share - expected) <= margin and set(asked) == set(SPLIT_TARGETS),
        ),
        equal(
            "answers that name the client's model only",
            sum(_models(answer) == {SPLIT_SERVICE} for answer in answers),
            plan.split_requests,
        ),
        equal(
            "answers that are the server's but for the model's name",
            sum(_only_renamed(site, answer) for answer in answers),
            plan.split_requests,
        ),
    ]


async def _sample(site: Site, most: list[int]) -> None:
    """Look at every server's metrics again and again, until cancelled."""
    while True:
        for number, url in enumerate(site.server_urls):
            async with site.http.get(f"{url}/metrics") as response:
                series = _LORA_INFO.findall(await response.text())
            # Series are never removed: the one set last is the state now, as in vLLM.
            newest, _ = max(series, key=lambda s: float(s[1]), default=("", 0))
            most[number] = max(most[number], len(newest.split(",")) if newest else 0)
        await asyncio.sleep(_SAMPLE_S)


def _bounded(what: str, most: list[int], bound: int) -> Finding:
    return Finding(what, str(most), f"at most {bound} each", max(most) <= bound)


def _models(answer: Conversation) -> set[str]:
    """Model names in a body, or in every chunk of a stream."""
    body = answer.body
    if not body.startswith(b"data: "):
        return {orjson.loads(body)["model"]}
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    return {orjson.loads(event)["model"] for event in events if event != b"[DONE]"}


def _only_renamed(site: Site, answer: Conversation) -> bool:
    (exchange,) = site.exchanges(answer.request_id)
    sent, shown = (b'"model":"%b"' % name.encode() for name in (exchange.model, SPLIT_SERVICE))
    return exchange.body.replace(sent, shown) == answer.body
