from base64 import b64encode

import pytest

from gateway.wire.credentials import api_key_of, password_of


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer sk-1")], b"sk-1"),
        ([(b"authorization", b"bearer   sk-1 ")], b"sk-1"),
        ([(b"x-api-key", b"sk-2")], b"sk-2"),
        ([(b"api-key", b"sk-3")], b"sk-3"),
        ([(b"x-api-key", b"sk-2"), (b"authorization", b"Bearer sk-1")], b"sk-1"),
        ([(b"x-api-key", b" ")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Basic c2s=")], None),
        ([(b"accept", b"*/*")], None),
        ([], None),
    ],
)
def test_the_key_is_read_where_clients_put_it(
    headers: list[tuple[bytes, bytes]], key: bytes | None
) -> None:
    assert api_key_of(headers) == key


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key"])
def test_a_request_with_two_keys_shows_none(name: bytes) -> None:
    assert api_key_of([(name, b"Bearer a"), (name.lower(), b"Bearer b")]) is None


@pytest.mark.parametrize(
    ("value", "password"),
    [
        (b"Basic " + b64encode(b"anybody:secret:too"), b"secret:too"),
        (b"Basic " + b64encode(b"no colon"), None),
        (b"Basic ***", None),
        (b"Bearer secret", None),
    ],
)
def test_a_password_is_taken_from_basic_credentials(value: bytes, password: bytes | None) -> None:
    assert password_of([(b"authorization", value)]) == password


def test_two_values_show_no_password() -> None:
    value = b"Basic " + b64encode(b"a:b")
    assert password_of([(b"authorization", value)] * 2) is None
