import pytest

from gateway.telemetry.trace_context import RemoteParent, TraceContext, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{SPAN}-01"


def parsed(*values: str) -> RemoteParent | None:
    return parse_traceparent([(b"traceparent", value.encode()) for value in values])


def test_the_callers_span_is_read() -> None:
    assert parsed(VALID) == RemoteParent(TRACE, SPAN, sampled=True)
    assert parsed(f"00-{TRACE}-{SPAN}-00") == RemoteParent(TRACE, SPAN, sampled=False)


def test_later_versions_may_say_more() -> None:
    assert parsed(f"01-{TRACE}-{SPAN}-01-more") == RemoteParent(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "values",
    [
        (),
        (VALID, VALID),
        ("",),
        (f"ff-{TRACE}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}-01-more",),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE.upper()}-{SPAN}-01",),
        (f"00-{TRACE}-{SPAN}",),
    ],
)
def test_what_is_not_valid_starts_a_new_trace(values: tuple[str, ...]) -> None:
    assert parsed(*values) is None


def test_the_server_is_told_the_exchange_as_its_parent() -> None:
    trace = TraceContext(TRACE, "1" * 16, "2" * 16, None, sampled=False)
    assert trace.header == (b"traceparent", f"00-{TRACE}-{'2' * 16}-00".encode())
