"""What a scheduler is made of: the parts that remember, and the parts that a policy decides."""

from collections.abc import Callable

from gateway.scheduling.admission_queue import AdmissionQueue
from gateway.scheduling.backend_ledger import BackendLedger
from gateway.scheduling.backend_picker import BackendPicker
from gateway.scheduling.breakers import Breakers
from gateway.scheduling.capacity import Capacity
from gateway.scheduling.drain_rate import DrainRate
from gateway.scheduling.fairness import ServiceOrder
from gateway.scheduling.latency_predictor import LatencyPredictor
from gateway.scheduling.policy import SchedulingPolicy
from gateway.scheduling.retry_budget import RetryBudget
from gateway.scheduling.service_directory import ServiceDirectory
from gateway.scheduling.shortlist import Shortlist
from gateway.scheduling.slo_adherence import SloAdherence
from gateway.scheduling.token_estimates import TokenEstimates


class Knowledge:
    """What the scheduler learns and keeps over a change of policies."""

    __slots__ = (
        "adherence",
        "breakers",
        "drain_rate",
        "estimates",
        "ledger",
        "predictor",
        "queue",
        "services",
    )

    def __init__(
        self,
        *,
        ledger: BackendLedger,
        predictor: LatencyPredictor,
        queue: AdmissionQueue,
        services: ServiceDirectory,
        drain_rate: DrainRate,
        adherence: SloAdherence,
    ) -> None:
        """Hold the parts that have state."""
        self.ledger = ledger
        self.breakers = Breakers(ledger=ledger)
        self.predictor = predictor
        self.queue = queue
        self.services = services
        self.estimates = TokenEstimates()
        self.drain_rate = drain_rate
        self.adherence = adherence

    def reconfigure(self, policy: SchedulingPolicy, *, now: float) -> None:
        """Go by another policy from now on, with all that was learned."""
        self.adherence.reconfigure(policy.fairness, now=now)
        self.breakers.reconfigure(policy.breaker)
        self.ledger.reconfigure(
            default_max_loras=policy.capacity.default_max_loras,
            chunk_budget_tokens=policy.capacity.chunk_budget_tokens,
        )


class Rules:
    """The parts that a policy decides, made anew when it changes."""

    __slots__ = ("capacity", "order", "picker", "policy", "retries", "shortlist")

    def __init__(
        self,
        *,
        policy: SchedulingPolicy,
        capacity: Capacity,
        order: ServiceOrder,
        picker: BackendPicker,
        retries: RetryBudget,
        shortlist: Shortlist | None,
    ) -> None:
        """Hold one policy and what was built from it.

        Without a `shortlist` every server gets a full forecast, however many there are.
        """
        self.policy = policy
        self.capacity = capacity
        self.order = order
        self.picker = picker
        self.retries = retries
        self.shortlist = shortlist


MakeRules = Callable[[SchedulingPolicy, Rules | None], Rules]
"""Makes rules from a policy; what they have counted is taken over from those before."""
