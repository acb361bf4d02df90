"""Makes request records, so that a test names only what it is about."""

from typing import Any

import msgspec

from gateway.scheduling.model import BackendId, ServiceName
from gateway.telemetry.request_record import Outcome, RequestRecord
from gateway.telemetry.token_times import normalised_time_per_token, time_per_output_token

_ANSWERED = RequestRecord(
    lease_id="gateway-1",
    request_id="client-1",
    path="/v1/chat/completions",
    outcome=Outcome.OK,
    status=200,
    pool="pool",
    service=ServiceName("chat"),
    priority=0,
    model="chat",
    target_model="base",
    backend_id=BackendId("a"),
    streamed=True,
    attempts=1,
    e2e_s=2.4,
    ttft_s=0.4,
    queue_s=0.1,
    overhead_s=0.0002,
    prompt_tokens=100,
    completion_tokens=21,
    cached_tokens=64,
    forecast_ttft_s=0.33,
    forecast_tpot_s=0.08,
    dispatch_ttft_s=0.3,
)


def make_record(**changed: Any) -> RequestRecord:  # noqa: ANN401 - the fields of RequestRecord
    """A streamed answer of 21 tokens: TTFT .4 s, TPOT .1 s, forecast errors .1 and .2."""
    record = msgspec.structs.replace(_ANSWERED, **changed)
    e2e_s, tokens = record.e2e_s, record.completion_tokens
    record.tpot_s = time_per_output_token(
        e2e_s=e2e_s, ttft_s=record.ttft_s, completion_tokens=tokens
    )
    record.ntpot_s = normalised_time_per_token(e2e_s=e2e_s, completion_tokens=tokens)
    return record
