"""The gateway's own ids of requests."""

from gateway.server.request_ids import RequestIds
from gateway.wire.http_headers import choose_request_id


def test_no_two_ids_are_the_same() -> None:
    ids = RequestIds("a1b2")

    assert len({ids.new() for _ in range(1_000)}) == 1_000


def test_an_id_is_valid_as_a_header() -> None:
    made = RequestIds("a1b2").new()

    assert choose_request_id([(b"x-request-id", made.encode())], generated="other") == made
