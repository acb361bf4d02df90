"""Clients that leave at random moments, streamed or not, politely or not: nothing is left over."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random

from benchmarks.live.conversation import Conversation, ask, question
from benchmarks.live.findings import Finding, equal
from benchmarks.live.site import BASE_MODEL, Site

QUEUED = "queued"
SILENT = "sent to a server, no byte yet"
STREAMING = "in mid-stream"
ANSWERED = "answered before it left"
_STAGES = (QUEUED, SILENT, STREAMING)
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationsPlan:
    """How many requests, how many of them at once, and the longest random delay in seconds.

    The last `at_once` of them leave at the same moment.
    """

    requests: int
    at_once: int
    longest_delay_s: float = 0.2
    tokens: int = 5_000
    seed: int = 1

    @property
    def bound_s(self) -> float:
        """For everything to be forgotten: a second for each 1,000 that leave at the same moment."""
        return max(1.0, self.at_once / 1_000)


class Visits:
    """Makes requests and leaves them."""

    def __init__(self, site: Site, plan: CancellationsPlan) -> None:
        """Nothing has been asked yet."""
        self._site = site
        self._plan = plan
        self._rng = Random(plan.seed)
        self._places = asyncio.Semaphore(plan.at_once)
        self.left: Counter[tuple[str, bool]] = Counter()
        self.cpu_before_s = 0.0
        """Of the gateway, when those who leave together began to."""

    async def leave_at_random(self, number: int) -> None:
        """Wait for a random stage, and then for a random while, before leaving."""
        async with self._places:
            stage = self._rng.choice(_STAGES)
            delay_s = self._rng.uniform(0.0, self._plan.longest_delay_s)
            async with self._conversation(number) as conversation:
                await self._reach(stage, conversation)
                await self._read_for(conversation, delay_s if stage != SILENT else delay_s / 10)
                self._leave(conversation)

    async def leave_together(self, numbers: range) -> None:
        """Ask many, and leave them all at once."""
        conversations = [self._conversation(number) for number in numbers]
        async with asyncio.TaskGroup() as group:
            visits = [group.create_task(self._stay(c)) for c in conversations]
            await self._some_stream(conversations)
            self.cpu_before_s = self._site.cpu_s()
            for visit in visits:
                visit.cancel()
        for conversation in conversations:
            self._leave(conversation)

    def _conversation(self, number: int) -> Conversation:
        text = f"Question {number}: " + "why is the sky blue? " * self._rng.randint(1, 200)
        stream = self._rng.random() < 0.7
        body = question(BASE_MODEL, text, max_tokens=self._plan.tokens, stream=stream)
        return Conversation(self._site.port, f"{'stream' if stream else 'whole'}-{number}", body)

    async def _reach(self, stage: str, conversation: Conversation) -> None:
        """Wait for a stage; a whole answer has no middle that a client could see."""
        if stage == QUEUED:
            return
        await self._site.reached(conversation.request_id)
        if stage == STREAMING and conversation.request_id.startswith("stream"):
            await conversation.read()

    async def _read_for(self, conversation: Conversation, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await conversation.read_all()
        except TimeoutError:
            pass

    async def _stay(self, conversation: Conversation) -> None:
        await conversation.__aenter__()
        await conversation.read_all()

    async def _some_stream(self, conversations: list[Conversation]) -> None:
        """Wait until some of this wave stream and others are queued.

        None may be silent at a moment when both is so: the silent ones left one by one before.
        """
        while {QUEUED, STREAMING} - {self._stage(c) for c in conversations}:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    def _leave(self, conversation: Conversation) -> None:
        streamed = conversation.request_id.startswith("stream")
        self.left[self._stage(conversation), streamed] += 1
        conversation.leave(rudely=self._rng.random() < 0.5)

    def _stage(self, conversation: Conversation) -> str:
        if conversation.complete:
            return ANSWERED
        if conversation.pieces:
            return STREAMING
        return SILENT if self._site.exchanges(conversation.request_id) else QUEUED


async def check_cancellations(site: Site, plan: CancellationsPlan) -> list[Finding]:
    """Let everybody leave, and see how soon and how completely they are forgotten."""
    visits = Visits(site, plan)
    single = range(plan.requests - plan.at_once)
    await asyncio.gather(*(visits.leave_at_random(number) for number in single))
    await visits.leave_together(range(len(single), plan.requests))
    ledger_s, engines_s = await site.emptied(
        asyncio.get_running_loop().time, within_s=10 * plan.bound_s
    )
    cpu_s = site.cpu_s() - visits.cpu_before_s
    left = visits.left
    stages = [
        Finding(
            f"left {stage}",
            f"{left[stage, True]} streamed, {left[stage, False]} whole",
            "some",
            left[stage, True] > 0 and (left[stage, False] > 0 or stage == STREAMING),
        )
        for stage in _STAGES
    ]
    bound = f"below {plan.bound_s:g} s"
    answers = await _answers_left(site, plan.bound_s)
    body = question(BASE_MODEL, "Still there?", max_tokens=5, stream=True)
    after = await ask(site.port, "after", body)
    return [
        equal(
            "requests cancelled",
            left.total() - left[ANSWERED, True] - left[ANSWERED, False],
            plan.requests,
        ),
        *stages,
        Finding(
            "ledger and queues at zero after", f"{ledger_s:.3f} s", bound, ledger_s < plan.bound_s
        ),
        Finding(
            "running and waiting at zero after",
            f"{engines_s:.3f} s",
            bound,
            engines_s < plan.bound_s,
        ),
        Finding(
            f"the gateway's CPU time, {plan.at_once} left together", f"{cpu_s:.2f} s", "", ok=True
        ),
        equal("counters of the ledger and the queues not at zero", await site.left_over(), {}),
        equal("answers still in the making", answers, 0),
        equal("a request afterwards", (after.status, after.complete), (200, True)),
    ]


async def _answers_left(site: Site, bound_s: float) -> int:
    """Answers that servers still make `bound_s` after their engines were seen to be empty.

    A request may have been on its way between the processes at that moment, and its end with it.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + bound_s
    while True:
        states = [await site.sim_state(number) for number in range(len(site.server_urls))]
        answers = sum(state["answers"] for state in states)
        if not answers or clock() > until:
            return answers
        await asyncio.sleep(_POLL_S)
