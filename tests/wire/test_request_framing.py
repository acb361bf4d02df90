"""How a request says where its body ends."""

import pytest

from gateway.wire.openai_request import BadRequest
from gateway.wire.request_framing import BodyFraming, body_framing


@pytest.mark.parametrize(
    ("headers", "framing"),
    [
        ([], BodyFraming()),
        ([(b"content-length", b"12")], BodyFraming(12)),
        ([(b"content-length", b"0")], BodyFraming(0)),
        ([(b"transfer-encoding", b"Chunked")], BodyFraming(chunked=True)),
        ([(b"from", b"b"), (b"content-encodin", b"c")], BodyFraming()),
    ],
)
def test_a_body_is_framed_as_one_header_says(
    headers: list[tuple[bytes, bytes]], framing: BodyFraming
) -> None:
    assert body_framing([(b"host", b"g"), *headers]) == framing


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ([(b"host", b"a"), (b"host", b"a")], "Host is given twice"),
        ([(b"content-length", b"1"), (b"content-length", b"1")], "Content-Length is given twice"),
        ([(b"transfer-encoding", b"chunked")] * 2, "Transfer-Encoding is given twice"),
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], "exclude each other"),
        ([(b"transfer-encoding", b"gzip, chunked")], "only Transfer-Encoding"),
        ([(b"content-length", b"+1")], "no number"),
        ([(b"content-length", b"")], "no number"),
        ([(b"content-length", b"0" * 6_000)], "no number"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(
    headers: list[tuple[bytes, bytes]], complaint: str
) -> None:
    with pytest.raises(BadRequest, match=complaint):
        body_framing([*headers, (b"host", b"g")])


@pytest.mark.parametrize(
    ("framing", "follows", "header"),
    [
        (BodyFraming(), False, b"content-length: 0"),
        (BodyFraming(0), False, b"content-length: 0"),
        (BodyFraming(7), True, b"content-length: 7"),
        (BodyFraming(chunked=True), True, b"transfer-encoding: chunked"),
    ],
)
def test_a_framing_says_whether_a_body_follows_and_how(
    framing: BodyFraming, *, follows: bool, header: bytes
) -> None:
    assert framing.follows is follows
    assert framing.header == header


def test_only_clients_that_know_of_hosts_must_name_one() -> None:
    assert body_framing([], http_11=False) == BodyFraming()
    with pytest.raises(BadRequest, match="Host is missing"):
        body_framing([])


def test_chunks_of_a_client_that_cannot_know_of_them_are_refused() -> None:
    with pytest.raises(BadRequest, match="has no Transfer-Encoding"):
        body_framing([(b"transfer-encoding", b"chunked")], http_11=False)
