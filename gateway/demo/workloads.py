"""What the demo's traffic is made of: services, and what their clients ask for."""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.settings.schema import ObjectiveSettings, ServiceSettings, TargetSettings


class Workload(NamedTuple):
    """A service and its clients.

    Attributes:
        share: of all requests; shares need not add up to 1.
        system_words: the part of the prompt that all its requests begin with.
        prompt_words, answer_tokens: medians of the rest of the prompt and of the answer.
    """

    service: ServiceSettings
    share: float
    system_words: int
    prompt_words: int
    answer_tokens: int


def demo_workloads(base_model: str, adapters: Sequence[str]) -> tuple[Workload, ...]:
    """Critical and Non-Critical services, on the base model and on up to five adapters."""

    def adapter(number: int, weight: float = 1.0) -> TargetSettings:
        return TargetSettings(name=adapters[number % len(adapters)], weight=weight)

    chat = ServiceSettings(
        name="chat",
        targets=(TargetSettings(name=base_model),),
        objective=ObjectiveSettings(ttft=1.0, tpot=0.06),
    )
    support = ServiceSettings(
        name="support",
        targets=(adapter(0, weight=9.0), adapter(1)),
        objective=ObjectiveSettings(ttft=2.0, tpot=0.08),
    )
    code = ServiceSettings(
        name="code", targets=(adapter(2),), objective=ObjectiveSettings(ttft=1.5, tpot=0.06)
    )
    search = ServiceSettings(name="search", targets=(adapter(3),), max_queue_wait=5.0)
    summaries = ServiceSettings(name="summaries", targets=(adapter(4),))
    return (
        Workload(chat, share=0.4, system_words=300, prompt_words=150, answer_tokens=150),
        Workload(support, share=0.2, system_words=600, prompt_words=80, answer_tokens=100),
        Workload(code, share=0.15, system_words=100, prompt_words=800, answer_tokens=40),
        Workload(search, share=0.15, system_words=200, prompt_words=30, answer_tokens=20),
        Workload(summaries, share=0.1, system_words=50, prompt_words=4000, answer_tokens=250),
    )
