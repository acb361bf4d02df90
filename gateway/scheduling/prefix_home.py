"""The server that a request had better wait for: the one that holds most of its prompt."""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.scheduling.backend_state import BackendState
from gateway.scheduling.capacity import OpenServer
from gateway.scheduling.model import BackendId
from gateway.scheduling.tracked_request import TrackedRequest

_WORTH_WAITING: Final = 0.05
"""Share of its TTFT bound that a request's home has to save it."""
_CROWDED: Final = 0.9
"""Share of what the TPOT there may be from which a server is left to those whose prompts it holds:
a prefill that another server could spare it slows all that run there, and pushes prefixes out."""
_MOST_COMPARED: Final = 100
"""Of more servers, some has room nearly always, and to compare them all would take too long."""


def home_of(tracked: TrackedRequest, backends: Sequence[BackendState]) -> BackendId | None:
    """The one of `backends` that would save the request most of its prefill; None if little."""
    blocks = tracked.request.prefix_blocks
    if not blocks or len(backends) > _MOST_COMPARED:
        return None
    most_s, home = _WORTH_WAITING * tracked.ttft_bound_s, None
    for backend in backends:
        held = backend.prefixes.match(backend.adapter_of(tracked.target), blocks)
        saved_s = held * tracked.block_tokens * backend.outlook.per_prefill_token_s
        if saved_s > most_s and not backend.ejected:
            most_s, home = saved_s, backend.id
    return home


def have_room(tracked: TrackedRequest, servers: Iterable[OpenServer], *, margin: float) -> bool:
    """Whether all of `servers` are far from the TPOT that the request and those there may have."""
    allowed = _CROWDED * margin
    own_s = float("inf") if tracked.tpot_bound_s is None else tracked.tpot_bound_s
    for server in servers:
        backend = server.backend
        others_s = backend.strictest_tpot_s
        strictest_s = own_s if own_s < others_s else others_s  # noqa: FURB136 - hot
        if server.prediction.tpot_s > allowed * strictest_s and backend.in_flight:
            return False
    return True


def not_left_to_others(
    tracked: TrackedRequest, servers: Sequence[OpenServer], home: BackendState, *, margin: float
) -> list[OpenServer]:
    """Those of `servers` that have room, or hold about as much of the prompt as `home` does."""
    left_at_home = home.uncached_tokens(tracked)
    worth_s = _WORTH_WAITING * tracked.ttft_bound_s
    return [
        server
        for server in servers
        if have_room(tracked, (server,), margin=margin)
        or (server.prediction.uncached_tokens - left_at_home)
        * server.backend.outlook.per_prefill_token_s
        <= worth_s
    ]
