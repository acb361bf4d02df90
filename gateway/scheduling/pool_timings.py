"""What is known of the speed of every server of a pool, and what that says of the others."""

from collections.abc import Iterator
from statistics import fmean
from typing import Final

from gateway.scheduling.model import BackendId
from gateway.scheduling.outlook import NEVER
from gateway.scheduling.server_timing import ServerTiming, Start
from gateway.scheduling.step_time import StepTimePrior

_POOL_SAMPLES: Final = 4
"""Samples, a second's, after which a server counts in what is believed of unknown ones."""
_START_KEPT_S: Final = 1.0


class PoolTimings:
    """Timings by server; those without samples are believed to be as the mean of the others."""

    def __init__(self, *, prior: StepTimePrior) -> None:
        """Believe in `prior` while no server is known."""
        self._timings: dict[BackendId, ServerTiming] = {}
        self._start_until = NEVER
        self._start = Start(
            decode=(prior.step_s, prior.per_sequence_s, prior.per_context_token_s),
            prefill=(prior.overhead_s, prior.per_prefill_token_s),
            ttft_bias=0.0,
            tpot_bias=0.0,
            spread=prior.spread,
            adapter_load_s=prior.adapter_load_s,
        )

    def find(self, backend_id: BackendId) -> ServerTiming | None:
        """The server's timing, or None if nobody asked for it yet."""
        return self._timings.get(backend_id)

    def of(self, backend_id: BackendId) -> ServerTiming:
        """The server's timing."""
        found = self._timings.get(backend_id)
        if found is None:
            found = self._timings[backend_id] = ServerTiming(self._start)
        return found

    def forget(self, backend_id: BackendId) -> None:
        """Drop what is known of the server, if anything."""
        self._timings.pop(backend_id, None)

    def __len__(self) -> int:
        """Number of servers that something may be known of."""
        return len(self._timings)

    def __iter__(self) -> Iterator[BackendId]:
        """Those servers."""
        return iter(self._timings)

    def restarted(self, backend_id: BackendId, *, now: float) -> ServerTiming:
        """The timing of an idle server without samples, after what others have shown since."""
        if now >= self._start_until:
            self._start_until = now + _START_KEPT_S
            self._start = self._mean_start()
        found = self.of(backend_id)
        if found.start is not self._start:
            found = self._timings[backend_id] = ServerTiming(self._start)
        return found

    def _mean_start(self) -> Start:
        """The mean of servers that are known a little, or as before without any."""
        known = [t for t in self._timings.values() if t.decode.samples >= _POOL_SAMPLES]
        if not known:
            return self._start
        decodes = [timing.decode.coefficients() for timing in known]
        prefills = [timing.prefill.coefficients() for timing in known]
        return Start(
            decode=(
                fmean([row[0] for row in decodes]),
                fmean([row[1] for row in decodes]),
                fmean([row[2] for row in decodes]),
            ),
            prefill=(fmean([row[0] for row in prefills]), fmean([row[1] for row in prefills])),
            ttft_bias=fmean([timing.ttft_error.bias for timing in known]),
            tpot_bias=fmean([timing.tpot_error.bias for timing in known]),
            spread=self._start.spread,
            adapter_load_s=fmean([timing.adapter_load_s for timing in known]),
        )
