"""What the fleet remembers of requests, servers and gateways while it runs."""

from gateway.scheduling.model import BackendId, Forecast, RequestId
from gateway.simulator.engine import Engine
from gateway.simulator.fleet_model import FleetPolicy, FleetRequest


class Gateway:
    """One policy.

    Attributes:
        armed_at: the instant for which its deadline is on the timeline.
    """

    __slots__ = ("armed_at", "index", "policy")

    def __init__(self, index: int, policy: FleetPolicy) -> None:
        """Number `index` of those that share the pool."""
        self.index = index
        self.policy = policy
        self.armed_at: float | None = None


class Server:
    """An engine.

    Attributes:
        flights: requests dispatched to it that have not ended.
        streams: those of them whose first token a gateway has seen.
        step_at: the end of its step that is on the timeline.
        stepped_at: end of the last step.
        progress_armed: whether its next progress report is on the timeline.
    """

    __slots__ = (
        "alive",
        "engine",
        "flights",
        "id",
        "progress_armed",
        "step_at",
        "stepped_at",
        "streams",
    )

    def __init__(self, backend_id: BackendId, engine: Engine) -> None:
        """A living server without requests."""
        self.id = backend_id
        self.engine = engine
        self.alive = True
        self.flights: dict[RequestId, Flight] = {}
        self.streams: dict[RequestId, Flight] = {}
        self.step_at: float | None = None
        self.stepped_at = 0.0
        self.progress_armed = False


class Flight:
    """A request between its arrival and its end.

    Attributes:
        server: where it is dispatched to; `ahead` requests were in flight there then.
    """

    __slots__ = (
        "ahead",
        "dispatched_at",
        "first_token_at",
        "forecast",
        "gateway",
        "planned",
        "server",
    )

    def __init__(self, planned: FleetRequest, gateway: Gateway) -> None:
        """A request that has just arrived at `gateway`."""
        self.planned = planned
        self.gateway = gateway
        self.server: Server | None = None
        self.ahead = 0
        self.dispatched_at: float | None = None
        self.first_token_at: float | None = None
        self.forecast: Forecast | None = None
