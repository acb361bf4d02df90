import pytest

from gateway.server.options import BackendEndpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://a:8000", BackendEndpoint("a", 8_000, "a:8000")),
        ("http://a", BackendEndpoint("a", 80, "a")),
        ("https://a/", BackendEndpoint("a", 443, "a", tls=True)),
        ("http://[::1]:8000/x/", BackendEndpoint("::1", 8_000, "[::1]:8000", prefix="/x")),
    ],
)
def test_a_url_is_taken_apart(url: str, endpoint: BackendEndpoint) -> None:
    assert BackendEndpoint.parse(url) == endpoint


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("a:8000", "http://"),
        ("ftp://a", "http://"),
        ("http://", "no host"),
        ("http://:80", "no host"),
        ("http://a?x", "only"),
        ("http://user@a", "only"),
        ("http://a:99999", "Port out of range"),
        ("http://a/b c", "no spaces"),
        ("http://a/b\r\nx-evil: 1", "control characters"),
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        BackendEndpoint.parse(url)
