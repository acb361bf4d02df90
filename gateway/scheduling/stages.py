"""The stages of a request's way through the scheduler, wired to what they share."""

from gateway.scheduling.admission import Admission
from gateway.scheduling.dispatcher import Dispatcher
from gateway.scheduling.flights import Flights
from gateway.scheduling.intake import Intake
from gateway.scheduling.preemption import Preemption
from gateway.scheduling.scheduler_parts import Knowledge, Rules
from gateway.scheduling.turns import Turns


class Stages:
    """Intake, then admission and turns where it has to wait, then dispatch and flight."""

    __slots__ = ("admission", "dispatcher", "flights", "intake", "preemption", "turns")

    def __init__(self, *, knowledge: Knowledge, rules: Rules) -> None:
        """Let all of them share `knowledge` and follow `rules`."""
        self.intake = Intake(
            services=knowledge.services,
            ledger=knowledge.ledger,
            estimates=knowledge.estimates,
            policy=rules.policy,
        )
        self.admission = Admission(knowledge=knowledge, rules=rules)
        self.turns = Turns(queue=knowledge.queue, ledger=knowledge.ledger, rules=rules)
        self.preemption = Preemption(knowledge=knowledge, turns=self.turns, rules=rules)
        self.flights = Flights(
            ledger=knowledge.ledger,
            predictor=knowledge.predictor,
            breakers=knowledge.breakers,
            estimates=knowledge.estimates,
            adherence=knowledge.adherence,
        )
        self.dispatcher = Dispatcher(
            knowledge=knowledge, turns=self.turns, flights=self.flights, rules=rules
        )

    def reconfigure(self, rules: Rules) -> None:
        """Go by other rules from now on."""
        self.intake.reconfigure(rules.policy)
        self.admission.reconfigure(rules)
        self.turns.reconfigure(rules)
        self.preemption.reconfigure(rules)
        self.dispatcher.reconfigure(rules)
