"""What passes between client, gateway and server, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.http_headers import (
    CredentialPolicy,
    ForwardingPolicy,
    choose_request_id,
    parse_deadline,
    parse_fairness_id,
    parse_slo_headers,
    request_headers_to_forward,
    response_headers_to_client,
)
from gateway.wire.openai_request import BadRequest


def forward(
    *headers: tuple[bytes, bytes], policy: ForwardingPolicy | None = None
) -> list[tuple[bytes, bytes]]:
    return request_headers_to_forward(
        list(headers), host="server:8000", request_id="id-1", policy=policy or ForwardingPolicy()
    )


OURS = [(b"host", b"server:8000"), (b"x-request-id", b"id-1")]


def test_end_to_end_headers_pass_in_order_and_repeated() -> None:
    sent = [
        (b"content-type", b"application/json"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"accept-encoding", b"gzip"),
        (b"x-session-id", b"s"),
        (b"x-two", b"1"),
        (b"x-two", b"2"),
        (b"authorization", b"Bearer k"),
    ]

    assert forward(*sent) == OURS + [(name.lower(), value) for name, value in sent]


@pytest.mark.parametrize(
    "name",
    [
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"x-request-id",
        b"x-gateway-inference-objective",
        b"x-gateway-inference-fairness-id",
        b"x-slo-ttft-ms",
        b"x-llm-d-slo-tpot-ms",
    ],
)
def test_what_is_for_the_gateway_or_the_hop_stays_here(name: bytes) -> None:
    assert forward((name, b"x")) == OURS


def test_what_the_sender_does_not_want_passed_on_stays_here() -> None:
    sent = [(b"accept-encoding", b"gzip"), (b"accept", b"x")]

    forwarded = request_headers_to_forward(
        sent,
        host="server:8000",
        request_id="id-1",
        policy=ForwardingPolicy(),
        without=frozenset({b"accept-encoding"}),
    )

    assert forwarded == [*OURS, (b"accept", b"x")]


def test_framing_is_made_anew() -> None:
    assert forward((b"content-length", b"12")) == OURS
    assert forward((b"transfer-encoding", b"Chunked")) == OURS


def test_headers_named_by_connection_stay_here() -> None:
    sent = [(b"connection", b"close, X-Private ,"), (b"x-private", b"1"), (b"x-public", b"2")]

    assert forward(*sent) == [*OURS, (b"x-public", b"2")]


def test_steering_headers_pass_where_that_is_configured() -> None:
    policy = ForwardingPolicy(forwards_steering=True)

    assert forward((b"x-slo-ttft-ms", b"9"), policy=policy) == [*OURS, (b"x-slo-ttft-ms", b"9")]


def test_credentials_are_replaced_or_dropped_where_that_is_configured() -> None:
    sent = [(b"authorization", b"Bearer k"), (b"x-api-key", b"k"), (b"api-key", b"k")]

    drop = ForwardingPolicy(credentials=CredentialPolicy.DROP)
    assert forward(*sent, policy=drop) == OURS
    replace = ForwardingPolicy(credentials=CredentialPolicy.REPLACE, authorization="Bearer up")
    assert forward(*sent, policy=replace) == [*OURS, (b"authorization", b"Bearer up")]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"1, 1")],
        [(b"content-length", b"+1")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"0x1")],
        [(b"content-length", b"")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
    ],
)
def test_ambiguous_framing_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest, match="contradict") as refused:
        forward(*headers)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"1\r\nx-evil: 2"),
        (b"x-a", b"1\nx-evil: 2"),
        (b"x-a", b"1\r"),
        (b"x-a", b"\x00"),
        (b"x-a\r\nx-evil", b"1"),
        (b"x a", b"1"),
        (b"x-a:", b"1"),
        (b"", b"1"),
        (b"Transfer-Encoding ", b"chunked"),
        (b"\xe4", b"1"),
        (b"x-a\n", b"1"),
    ],
)
def test_header_injection_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadRequest, match="characters"):
        forward(header)


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_no_headers_break_out_of_their_lines(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        forwarded = forward(*headers)
    except BadRequest:
        forwarded = []
    returned = response_headers_to_client(
        headers, request_id="id-1", event_stream=True, keeps_length=True
    )

    for name, value in forwarded + returned:
        assert not set(name) & set(b"\r\n\0: ")
        assert not set(value) & set(b"\r\n\0")


@pytest.mark.parametrize("given_id", [b"a", b"req-1.2:3_X", b"x" * 128])
def test_a_valid_request_id_of_the_client_is_kept(given_id: bytes) -> None:
    headers = [(b"accept", b"*/*"), (b"x-request-id", given_id)]

    assert choose_request_id(headers, generated="ours") == given_id.decode()


@pytest.mark.parametrize(
    "given_ids",
    [[], [b""], [b"x" * 129], [b"a b"], [b"a\n"], [b"\xe4"], [b"a", b"b"], [b"a\r\nx: y"]],
)
def test_another_request_id_is_replaced(given_ids: list[bytes]) -> None:
    headers = [(b"x-request-id", given_id) for given_id in given_ids]

    assert choose_request_id(headers, generated="ours") == "ours"


def test_response_headers_pass_without_hop_by_hop_ones() -> None:
    received = [
        (b"date", b"now"),
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"x-request-id", b"theirs"),
        (b"x-bad", b"1\r\n"),
        (b"cache-control", b"private"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]

    returned = response_headers_to_client(
        received, request_id="id-1", event_stream=False, keeps_length=True
    )

    assert returned == [
        (b"date", b"now"),
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"cache-control", b"private"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x-request-id", b"id-1"),
    ]


def test_the_length_of_a_changed_body_does_not_pass() -> None:
    returned = response_headers_to_client(
        [(b"content-length", b"5")], request_id="id-1", event_stream=False, keeps_length=False
    )

    assert returned == [(b"x-request-id", b"id-1")]


def test_proxies_are_told_not_to_hold_a_stream_back() -> None:
    received = [(b"cache-control", b"max-age=5"), (b"x-accel-buffering", b"yes"), (b"vary", b"x")]

    returned = response_headers_to_client(
        received, request_id="id-1", event_stream=True, keeps_length=False
    )

    assert returned == [
        (b"vary", b"x"),
        (b"x-request-id", b"id-1"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


def test_latency_bounds_are_read_in_either_spelling() -> None:
    assert parse_slo_headers([(b"x-slo-ttft-ms", b"250"), (b"accept", b"x")]) == (0.25, None)
    assert parse_slo_headers([(b"x-llm-d-slo-tpot-ms", b"40.5")]) == (None, 0.0405)
    assert parse_slo_headers([]) == (None, None)


def test_of_several_bounds_the_tightest_holds() -> None:
    headers = [(b"x-slo-ttft-ms", b"300"), (b"x-llm-d-slo-ttft-ms", b"200")]

    assert parse_slo_headers(headers) == (0.2, None)
    assert parse_slo_headers(reversed(headers)) == (0.2, None)


def test_a_day_is_the_longest_bound() -> None:
    assert parse_slo_headers([(b"x-slo-ttft-ms", b"86400000")]) == (86_400.0, None)


@pytest.mark.parametrize(
    "value",
    [b"-1", b"0", b"0.0", b"nan", b"inf", b"1e3", b"", b"fast", b"86400001", b"1_0", b"\xd9\xa3"],
)
@pytest.mark.parametrize("name", [b"x-slo-ttft-ms", b"x-llm-d-slo-tpot-ms"])
def test_a_bad_latency_bound_is_refused_by_name(name: bytes, value: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_slo_headers([(name, value)])

    assert refused.value.status == 400
    assert refused.value.param == name.decode().lower()
    assert "milliseconds" in refused.value.message


def test_the_deadline_is_read_and_of_several_the_least_holds() -> None:
    assert parse_deadline([(b"accept", b"x")]) is None
    assert parse_deadline([(b"x-gateway-deadline-ms", b"1500")]) == 1.5
    assert parse_deadline([(b"x-gateway-deadline-ms", b"%d" % ms) for ms in (90, 50, 70)]) == 0.05


def test_a_bad_deadline_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="x-gateway-deadline-ms"):
        parse_deadline([(b"x-gateway-deadline-ms", b"soon")])


def test_the_fairness_id_is_read() -> None:
    assert parse_fairness_id([(b"x-gateway-inference-fairness-id", b"tenant-7")]) == "tenant-7"
    assert parse_fairness_id([(b"accept", b"x")]) is None


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\n", b"\xe4"])
def test_a_bad_fairness_id_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_fairness_id([(b"x-gateway-inference-fairness-id", value)])

    assert refused.value.param == "x-gateway-inference-fairness-id"
