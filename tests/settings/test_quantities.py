import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.settings.quantities import (
    check_key,
    format_duration,
    format_priority,
    format_size,
    parse_duration,
    parse_origin,
    parse_percentile,
    parse_priority,
    parse_server_url,
    parse_size,
    split_list,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("5min", 300.0),
        ("2 h", 7200.0),
        ("0.25", 0.25),
        (".5s", 0.5),
        (3, 3.0),
        (0, 0.0),
    ],
)
def test_durations_are_understood(written: object, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["5m", "fast", "-1s", -1, "", "1s 5ms", True, None, [], "inf"])
def test_what_is_not_a_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 300ms"):
        parse_duration(written)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_durations_are_finite(number: float) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(number)


@given(st.integers(0, 10**9).map(lambda microseconds: microseconds / 1_000_000))
def test_a_duration_reads_back_as_it_was_shown(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.3, "300ms"), (1.5, "1.5s"), (90.0, "90s"), (300.0, "5min"), (7200.0, "2h"), (0.0, "0s")],
)
def test_durations_are_shown_as_people_write_them(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(
    ("written", "size"),
    [("64MiB", 64 << 20), ("10kB", 10_000), ("1.5KiB", 1536), ("7B", 7), (9, 9)],
)
def test_sizes_are_understood(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["64mib", "-1B", "big", None])
def test_what_is_not_a_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 64MiB"):
        parse_size(written)


@given(st.integers(0, 1 << 45))
def test_a_size_reads_back_as_it_was_shown(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_sizes_are_shown_in_the_largest_fitting_unit() -> None:
    assert [format_size(size) for size in (64 << 20, 1 << 30, 1500)] == ["64MiB", "1GiB", "1500B"]


@pytest.mark.parametrize("written", [0.95, "+0.95", 95, "p95", "95%"])
def test_percentiles_are_understood(written: object) -> None:
    assert parse_percentile(written) == pytest.approx(0.95)


@pytest.mark.parametrize("written", [0, 100, 1.0e9, "p100", -5, "most", True, None, "nan"])
def test_what_is_not_a_percentile_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a percentile"):
        parse_percentile(written)


@pytest.mark.parametrize(
    ("written", "level"),
    [("Critical", 0), ("non-critical", -1), (7, 7), ("-3", -3), (" CRITICAL ", 0)],
)
def test_priorities_are_understood(written: object, level: int) -> None:
    assert parse_priority(written) == level


@pytest.mark.parametrize("written", ["Crtical", "", 1.5, True, None, 1 << 31, "-9999999999"])
def test_what_is_not_a_priority_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected Critical, Non-Critical or an integer"):
        parse_priority(written)


def test_levels_with_a_name_are_shown_by_it() -> None:
    assert [format_priority(level) for level in (0, -1, 2)] == ["Critical", "Non-Critical", 2]


@pytest.mark.parametrize(
    ("written", "known"),
    [
        (" https://gpu-1:8000/base/ ", "https://gpu-1:8000/base"),
        ("HTTP://GPU-1:8000", "http://gpu-1:8000"),
        ("http://gpu-1:80/", "http://gpu-1"),
        ("https://gpu-1:443/Base", "https://gpu-1/Base"),
        ("https://gpu-1:80", "https://gpu-1:80"),
        ("http://[0:0::1]:8000", "http://[::1]:8000"),
        ("http://[FE80::1%eth0]", "http://[fe80::1%eth0]"),
    ],
)
def test_a_server_has_one_url_however_it_is_written(written: str, known: str) -> None:
    assert parse_server_url(written) == known


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("10.0.0.1:8000", "scheme and host"),
        ("gpu-1", "scheme and host"),
        ("ftp://gpu-1", "scheme and host"),
        ("http://", "scheme and host"),
        ("http://gpu-1/v1", "without /v1"),
        ("http://gpu-1?x=1", "host, port and path only"),
        ("http://user@gpu-1", "host, port and path only"),
        ("http://gpü:1", "scheme and host"),
        ("http://gpu 1:1", "scheme and host"),
        ("http://gpu-1/a\nb", "scheme and host"),
        ("http://[::1", "scheme and host"),
        ("http://a..b:1", "1 to 63 characters"),
        (f"http://{'x' * 64}:1", "1 to 63 characters"),
        ("http://gpu-1:99999", "port from 1 to 65535"),
        ("http://gpu-1:0", "port from 1 to 65535"),
    ],
)
def test_what_is_not_a_server_url_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_server_url(url)


@pytest.mark.parametrize("origin", ["*", "https://app.example.com", "http://localhost:3000"])
def test_origins_are_as_browsers_send_them(origin: str) -> None:
    assert parse_origin(f" {origin} ") == origin


@pytest.mark.parametrize("origin", ["app.example.com", "https://a/", "HTTPS://A", "https://a b"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="without a path"):
        parse_origin(origin)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nx-evil: 1", "clé"])
def test_a_key_that_cannot_stand_in_a_header_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        check_key(SecretStr(key))


def test_comma_separated_text_becomes_a_list() -> None:
    assert split_list("http://a, http://b,") == ["http://a", "http://b"]
    assert split_list(["http://a"]) == ["http://a"]
