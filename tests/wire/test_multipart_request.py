"""The model of an audio upload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.multipart_request import parse_multipart_model
from gateway.wire.openai_request import BadRequest, rewrite_body
from gateway.wire.parsed_request import RequestKind

TYPE = "multipart/form-data; boundary=frontier"


def part(name: str, value: bytes, extra: str = "") -> bytes:
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def body_of(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


FILE = part(
    "file", b"RIFF\r\n\r\n\x00\xff" * 4_000, '; filename="a.wav"\r\nContent-Type: audio/wav'
)


def test_the_model_is_found_behind_the_file() -> None:
    body = body_of(FILE, part("model", b"whisper"))

    parsed = parse_multipart_model(TYPE, body)

    assert parsed.model == "whisper"
    assert parsed.body is body
    assert parsed.kind is RequestKind.OTHER
    assert parsed.generates
    assert not parsed.streamed


@pytest.mark.parametrize(
    ("value", "streamed"), [(b"true", True), (b"True", True), (b"1", True), (b"false", False)]
)
def test_a_stream_is_asked_for_by_a_field(value: bytes, *, streamed: bool) -> None:
    body = body_of(part("model", b"m"), part("stream", value))

    assert parse_multipart_model(TYPE, body).streamed is streamed


def test_the_model_is_replaced_in_place() -> None:
    parsed = parse_multipart_model(TYPE, body_of(part("model", b"m"), FILE))

    assert rewrite_body(parsed, model="öther") == body_of(part("model", "öther".encode()), FILE)
    assert rewrite_body(parsed, model="m", drop_priority=True) is parsed.body
    assert rewrite_body(parsed, include_usage=True) is parsed.body


def test_the_last_of_equal_fields_wins() -> None:
    body = body_of(part("model", b"first"), part("model", b"second"))

    assert parse_multipart_model(TYPE, body).model == "second"


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="frontier"',
        "Multipart/Form-Data;charset=utf-8; Boundary=frontier",
        'multipart/form-data; x="; boundary=no"; boundary=frontier',
    ],
)
def test_a_boundary_is_read_as_rfc_2046_writes_it(content_type: str) -> None:
    assert parse_multipart_model(content_type, body_of(part("model", b"m"))).model == "m"


@pytest.mark.parametrize("boundary", ["f", "f" * 70])
def test_a_boundary_has_1_to_70_characters(boundary: str) -> None:
    body = body_of(part("model", b"m")).replace(b"frontier", boundary.encode())

    assert parse_multipart_model(f"multipart/form-data; boundary={boundary}", body).model == "m"


def test_text_before_the_first_boundary_is_skipped() -> None:
    for preamble in (b"preamble\r\n", b"\r\n"):
        body = preamble + body_of(part("model", b"m"))

        assert parse_multipart_model(TYPE, body).model == "m"


def test_a_longer_boundary_does_not_end_a_part() -> None:
    value = b"m\r\n--frontiers\r\n\r\n"

    with pytest.raises(BadRequest, match="control characters"):
        parse_multipart_model(TYPE, body_of(part("model", value)))


def test_an_unquoted_name_is_a_name() -> None:
    body = b"--frontier\r\ncontent-disposition: form-data; name=model\r\n\r\nm\r\n--frontier--"

    assert parse_multipart_model(TYPE, body).model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary",
        b"--frontier",
        body_of(),
        body_of(FILE),
        body_of(part("model", b"")),
        body_of(part("model", b"\xff")),
        body_of(part("model", b"a\r\nb")),
        body_of(part("model", b"m" * 5_000)),
        body_of(part("model", b"m", '; filename="m"')),
        body_of(part("file", b"", '; filename="; name=\\"model\\""')),
        body_of(b"--frontier\r\nContent-Type: text/plain\r\n\r\nm\r\n"),
        body_of(b"--frontier\r\nContent-Disposition: form-data; name=model\r\n"),
        body_of(b"--frontier\r\nContent-Disposition: form-data\r\n\r\nm\r\n"),
        part("model", b"m"),
    ],
)
def test_a_body_without_a_usable_model_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_multipart_model(TYPE, body)

    assert refused.value.param == "model"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=frontier",
        "multipart/form-data; boundary=ö",
        "multipart/form-data; boundary=" + "x" * 71,
    ],
)
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        parse_multipart_model(content_type, body_of(part("model", b"m")))


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(BadRequest, match="more than 256 parts"):
        parse_multipart_model(TYPE, body_of(*[part("x", b"")] * 300))


PIECES = st.sampled_from(
    [
        b"--frontier",
        b"--",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Disposition: form-data",
        b'; name="model"',
    ]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=24).map(b"".join))
def test_no_body_breaks_the_parser(body: bytes) -> None:
    try:
        parsed = parse_multipart_model(TYPE, body)
    except BadRequest:
        return

    assert rewrite_body(parsed, model=parsed.model + "2").count(b"2") == body.count(b"2") + 1
