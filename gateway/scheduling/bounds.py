"""The TTFT and TPOT that a request is steered by: from its service, the pool, its client."""

from dataclasses import replace
from typing import Final

from gateway.scheduling.model import InferenceRequest, LatencyObjective, LLMService
from gateway.scheduling.tracked_request import TrackedRequest

_TTFT_SHARE_OF_NTPOT: Final = 0.25
"""Of an end-to-end bound, the share that the first token may take; decoding has the rest."""


def set_bounds(tracked: TrackedRequest, default: LatencyObjective) -> None:
    """Set `ttft_bound_s` and `tpot_bound_s`; what the objective leaves open comes from `default`.

    An NTPOT objective (end to end over output tokens) is split by the expected answer.
    """
    objective = tracked.service.objective or default
    ttft_s = objective.ttft_s
    tpot_s = objective.tpot_s
    if objective.ntpot_s is not None:
        per_choice = max(1.0, tracked.expected_output_tokens / tracked.request.choices)
        whole_s = objective.ntpot_s * per_choice
        ttft_s = min(_or_infinite(ttft_s), _TTFT_SHARE_OF_NTPOT * whole_s)
        tpot_s = min(_or_infinite(tpot_s), (1.0 - _TTFT_SHARE_OF_NTPOT) * objective.ntpot_s)
    tracked.ttft_bound_s = _or_infinite(default.ttft_s) if ttft_s is None else ttft_s
    tracked.tpot_bound_s = default.tpot_s if tpot_s is None else tpot_s


def picking_bounds(tracked: TrackedRequest) -> tuple[float, float | None]:
    """The TTFT and TPOT that servers are compared by: the client's own where those are tighter."""
    request = tracked.request
    ttft_s, tpot_s = tracked.ttft_bound_s, tracked.tpot_bound_s
    if request.ttft_slo_s is not None:
        ttft_s = min(ttft_s, request.ttft_slo_s)
    if request.tpot_slo_s is not None:
        tpot_s = min(_or_infinite(tpot_s), request.tpot_slo_s)
    return ttft_s, tpot_s


def tightened(service: LLMService, request: InferenceRequest) -> LLMService:
    """The service with the client's own bounds in its objective, where those are tighter."""
    if request.ttft_slo_s is None and request.tpot_slo_s is None:
        return service
    own = service.objective or LatencyObjective()
    return replace(
        service,
        objective=replace(
            own,
            ttft_s=_tighter(own.ttft_s, request.ttft_slo_s),
            tpot_s=_tighter(own.tpot_s, request.tpot_slo_s),
        ),
    )


def _tighter(own_s: float | None, asked_s: float | None) -> float | None:
    given = [bound_s for bound_s in (own_s, asked_s) if bound_s is not None]
    return min(given, default=None)


def _or_infinite(bound_s: float | None) -> float:
    return float("inf") if bound_s is None else bound_s
