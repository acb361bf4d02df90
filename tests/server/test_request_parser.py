"""From bytes to requests, however the bytes are cut."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.server.backend_connection import ReadFlow
from gateway.server.client_request import BodyBroken, ClientRequest
from gateway.server.options import ConnectionLimits
from gateway.server.request_parser import MalformedRequest, RequestParser

POST = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;extension=1\r\nbo\r\n2\r\ndy\r\n0\r\nX-Trailer: t\r\n\r\n"
)
GET = b"GET /health HTTP/1.1\r\nHost: g\r\nX-A: b \t\r\nx-a: c\r\n\r\n"
UPGRADE = (
    b"Host: g\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABk\r\n"
)


class Side:
    """The connection of a client that reads everything."""

    transport: asyncio.Transport | None = None
    remote = "192.0.2.1"
    writing_paused = False
    task: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self.read_on = 0

    def feed_from(self, flow: ReadFlow | None) -> None:
        raise AssertionError(flow)

    def body_taken(self) -> None:
        self.read_on += 1


class Told(NamedTuple):
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes | None


class Parser:
    """Fed with bytes."""

    def __init__(self, requests: list[ClientRequest], side: Side | None = None) -> None:
        limits = ConnectionLimits(header_bytes=4_096, header_count=100)
        self._parser = RequestParser(side or Side(), requests.append, limits)

    def take(self, data: bytes) -> None:
        self._parser.feed(memoryview(data))

    def close(self) -> None:
        self._parser.close()


def told_of(requests: list[ClientRequest]) -> list[Told]:
    return [
        Told(
            each.method,
            each.target,
            each.headers,
            each.body.take() if each.body.complete else None,
        )
        for each in requests
    ]


def parsed(data: bytes, *, step: int | None = None) -> list[Told]:
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    step = step or len(data)
    for start in range(0, len(data), step):
        parser.take(data[start : start + step])
    return told_of(requests)


@pytest.mark.parametrize("step", [None, 1, 3, 17])
def test_requests_do_not_depend_on_how_their_bytes_are_cut(step: int | None) -> None:
    assert parsed(POST + CHUNKED + b"\r\n" + GET, step=step) == [
        Told(
            "POST",
            "/v1/completions?a=b",
            [(b"host", b"g"), (b"content-length", b"4")],
            b"body",
        ),
        Told("POST", "/x", [(b"host", b"g"), (b"transfer-encoding", b"chunked")], b"body"),
        Told("GET", "/health", [(b"host", b"g"), (b"x-a", b"b"), (b"x-a", b"c")], b""),
    ]


@pytest.mark.parametrize("step", [None, 1, 5])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 39\r\n", b"GET /hidden HTTP/1.1\r\nHost: g\r\n\r\nxxxxxx"),
        (b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
        (b"", b""),
        (b"Content-Length: 0\r\n", b""),
    ],
    ids=["length", "chunks", "none", "empty"],
)
def test_a_request_that_offers_an_upgrade_is_a_plain_one(
    framing: bytes, body: bytes, step: int | None
) -> None:
    first = b"POST /first HTTP/1.1\r\n" + UPGRADE + framing + b"\r\n" + body
    one, other = parsed(first + GET, step=step)
    assert (one.target, other.target) == ("/first", "/health")
    assert one.body == (b"body" if b"chunked" in framing else body)


@pytest.mark.parametrize(
    "head", [b"POST / HTTP/1.0\r\n", b"POST / HTTP/1.1\r\nConnection: close\r\n"]
)
def test_an_offer_of_an_upgrade_on_a_connection_that_ends_with_it_is_a_plain_request(
    head: bytes,
) -> None:
    (request,) = parsed(head + UPGRADE + b"Content-Length: 4\r\n\r\nbody")
    assert request.body == b"body"


def test_ten_thousand_offers_of_an_upgrade_in_one_read_are_as_many_requests() -> None:
    offer = b"GET / HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"
    assert len(parsed(offer * 10_000)) == 10_000


@pytest.mark.parametrize(
    ("head", "status", "complaint"),
    [
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, b"CONNECT"),
        (b"GET / HTTP/2.0\r\n\r\n", 505, b"HTTP/1.1"),
        (b"GET / HTTP/0.9\r\n\r\n", 505, b"HTTP/1.1"),
        (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 505, b"HTTP/1.1"),
        (b"SOURCE / ICE/1.0\r\nHost: a\r\n\r\n", 505, b"HTTP/1.1"),
        (b"\r\nGET / RTSP/1.1\r\nHost: a\r\n\r\n", 505, b"HTTP/1.1"),
        (b"GET http://a:99999999/?sk-secret HTTP/1.1\r\n\r\n", 400, b"not a valid URL"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, b"Host is given twice"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431, b"header"),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 1_000 + b"\r\n") * 5 + b"\r\n", 431, b"header"),
        (b"GET /" + b"a" * 5_000, 431, b"header"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, b"Host is missing"),
        (b"nonsense\r\n\r\n", 400, b"Malformed request"),
    ],
)
def test_a_head_that_is_refused_says_why(head: bytes, status: int, complaint: bytes) -> None:
    requests: list[ClientRequest] = []
    with pytest.raises(MalformedRequest) as caught:
        Parser(requests).take(head)
    assert caught.value.answer.status == status
    assert caught.value.too_large == (status == 431)
    assert complaint in caught.value.answer.body
    assert b"sk-secret" not in caught.value.answer.body
    assert requests == []


@pytest.mark.parametrize("before", [b"", GET, POST, CHUNKED])
@pytest.mark.parametrize("step", [1, 3, 7, 4_096])
@pytest.mark.parametrize("target", [b"/", b"/" + b"a" * 300])
@pytest.mark.parametrize("spaces", [1, 2, 100])
def test_another_protocol_than_http_is_refused_wherever_its_request_is_cut(
    spaces: int, target: bytes, step: int, before: bytes
) -> None:
    line = (b" " * spaces).join([b"POST", target, b"RTSP/1.0"])
    data = before + line + b"\r\nHost: g\r\n\r\n"
    with pytest.raises(MalformedRequest, match="505"):
        parsed(data, step=step)


@pytest.mark.parametrize("step", [1, 5, 4_096])
def test_requests_before_that_of_another_protocol_are_taken(step: int) -> None:
    data = GET * 3 + GET.replace(b"HTTP/1.1", b"RTSP/1.1") + GET
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    with suppress(MalformedRequest):
        for start in range(0, len(data), step):
            parser.take(data[start : start + step])
    assert [each.target for each in requests] == ["/health"] * 3


@pytest.mark.parametrize("step", [None, 1, 5])
def test_bodies_and_headers_may_speak_of_other_protocols(step: int | None) -> None:
    body = b"What means\r\nGET /x RTSP/1.0\r\nand POST /x RTSP/1.0?"
    head = b"POST /x HTTP/1.1\r\nHost: g\r\nX-A: POST /x RTSP/1.0\r\nContent-Length: %d\r\n\r\n"
    assert len(parsed((head % len(body) + body) * 3, step=step)) == 3


def test_another_protocol_is_refused_behind_a_body_that_speaks_of_it() -> None:
    body = b"What means POST /x RTSP/1.0?"
    first = b"POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with pytest.raises(MalformedRequest, match="505"):
        parsed(first + b"POST /x RTSP/1.0\r\nHost: g\r\n\r\n")


@st.composite
def one_request(draw: st.DrawFn) -> tuple[bytes, bool]:
    """A request whose body speaks of requests, and whether it is of HTTP."""
    is_http = draw(st.integers(0, 4)) > 0
    line = b"POST /x %b/1.1\r\nHost: g\r\n" % (b"HTTP" if is_http else b"RTSP")
    if draw(st.integers(0, 3)) == 0:
        line += b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    spoken = st.sampled_from(
        [b"POST /x RTSP/1.0\r\n", b"POST /x HTTP/1.1\r\n", b"\r\n", b"\n", b"\r", b"0", b" ", b"a"]
    )
    pieces = draw(st.lists(st.lists(spoken, min_size=1, max_size=6).map(b"".join), max_size=4))
    if draw(st.booleans()):
        body = b"".join(pieces)
        return line + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), is_http
    extension, trailer = draw(st.sampled_from([(b"", b""), (b";a=b", b"X-T: t\r\n")]))
    chunks = [b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in pieces]
    body = b"".join((*chunks, b"0", extension, b"\r\n", trailer, b"\r\n"))
    return line + b"Transfer-Encoding: chunked\r\n\r\n" + body, is_http


@given(
    told=st.lists(one_request(), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    between=st.sampled_from([b"", b"\r\n"]),
)
@settings(max_examples=150)
def test_only_request_lines_tell_the_protocol_however_requests_follow_each_other(
    told: list[tuple[bytes, bool]], cuts: list[int], between: bytes
) -> None:
    data = between.join(request for request, _ in told)
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    status = 0
    try:
        for start, stop in pairwise(places):
            parser.take(data[start:stop])
    except MalformedRequest as fault:
        status = fault.answer.status
    of_http = [is_http for _, is_http in told]
    assert len(requests) == [*of_http, False].index(False)
    assert status == (0 if all(of_http) else 505)


@pytest.mark.parametrize("target", ["*", "http://gateway.example/v1/models?a", "/%00//"])
def test_a_target_is_kept_as_it_came(target: str) -> None:
    (request,) = parsed(f"OPTIONS {target} HTTP/1.1\r\nHost: g\r\n\r\n".encode())
    assert request.target == target


@pytest.mark.parametrize(
    ("head", "http_11", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: g\r\n\r\n", True, True),
        (b"GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n", True, False),
        (b"GET / HTTP/1.0\r\n\r\n", False, False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, True),
    ],
)
def test_version_and_connection_say_whether_it_stays_open(
    head: bytes, *, http_11: bool, keep_alive: bool
) -> None:
    requests: list[ClientRequest] = []
    Parser(requests).take(head)
    assert (requests[0].http_11, requests[0].keep_alive) == (http_11, keep_alive)


@pytest.mark.parametrize("endless", [b"1;" + b"a" * 30_000, b"0\r\nX: " + b"a" * 30_000])
def test_chunk_extensions_and_trailers_without_end_are_refused(endless: bytes) -> None:
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    parser.take(b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.take(endless)
    parser.take(b"a" * 30_000)
    with pytest.raises(MalformedRequest, match="400"):
        parser.take(b"a" * 30_000)


def test_small_chunks_with_large_extensions_are_taken() -> None:
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    parser.take(b"POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10):
        parser.take(b"1;" + b"a" * 30_000 + b"\r\nb\r\n")
    parser.take(b"0\r\n\r\n")
    assert told_of(requests)[0].body == b"b" * 10


async def test_a_body_that_breaks_off_is_told_to_its_reader_after_what_came() -> None:
    requests: list[ClientRequest] = []
    parser = Parser(requests)
    parser.take(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nbody")
    body = requests[0].body
    assert await body.more() == b"body"
    reading = asyncio.create_task(body.more())
    await asyncio.sleep(0)
    parser.close()
    with pytest.raises(BodyBroken):
        await reading


def test_a_body_that_nobody_takes_is_full_until_it_is_taken() -> None:
    requests: list[ClientRequest] = []
    side = Side()
    parser = Parser(requests, side)
    parser.take(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n\r\n")
    body = requests[0].body
    while not body.is_full:
        parser.take(b"a" * 65_536)
    assert body.received == 5 * 65_536
    assert len(body.take()) == body.received
    assert not body.is_full
    assert side.read_on == 1
