"""What people write for times, sizes, shares, priorities and URLs, and the values it stands for.

Each type validates from text or a number and serialises (JSON mode) back to the readable form.
"""

import math
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr

from gateway.scheduling.model import CRITICAL, NON_CRITICAL

_SECONDS = MappingProxyType({"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0})
_BYTES = MappingProxyType({"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9})
_BINARY_BYTES = MappingProxyType({"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10})
_NUMBER_AND_UNIT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")
_PRINTABLE = re.compile(r"[!-~]+")
_LABEL = re.compile(r".{1,63}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[!-.0->@-~]+")
_SERVER_URL = "expected a URL with scheme and host such as http://10.0.0.1:8000"
_DEFAULT_PORTS = MappingProxyType({"http": 80, "https": 443})
_MOST_LEVELS = 1 << 31
_PRIORITIES = MappingProxyType({"Critical": CRITICAL, "Non-Critical": NON_CRITICAL})


def _scaled(value: object, units: Mapping[str, float], expected: str) -> float:
    """A number, or text of a number with one of `units`; ValueError(`expected`) otherwise."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number, unit = float(value), ""
    else:
        match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(expected)
        number, unit = float(match[1]), match[2]
    if (unit and unit not in units) or not math.isfinite(number) or number < 0:
        raise ValueError(expected)
    return number * (units[unit] if unit else 1)


def parse_duration(value: object) -> float:
    """Seconds of `300ms`, `1.5s`, `5min`, `1h`, or of a plain number of seconds."""
    return _scaled(value, _SECONDS, "expected a duration such as 300ms, 1.5s, 5min or 1h, >= 0")


def format_duration(seconds: float) -> str:
    """The shortest exact form that `parse_duration` reads back."""
    for unit in ("h", "min"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds * 1000:g}ms" if 0 < seconds < 1 else f"{seconds:.12g}s"


def parse_size(value: object) -> int:
    """Bytes of `64MiB`, `10kB`, or of a plain number of bytes."""
    return int(_scaled(value, _BYTES | _BINARY_BYTES, "expected a size such as 64MiB or 10kB"))


def format_size(size: int) -> str:
    """The largest binary unit that divides the size; `parse_size` reads it back."""
    for unit, scale in _BINARY_BYTES.items():
        if size and size % scale == 0:
            return f"{size // scale}{unit}"
    return f"{size}B"


def parse_percentile(value: object) -> float:
    """A share in (0, 1) of `0.95`, `95`, `95%` or `p95`."""
    text = str(value).strip().removeprefix("p").removesuffix("%")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    share = number / 100 if number >= 1 else number
    if not 0 < share < 1 or isinstance(value, bool):
        raise ValueError("expected a percentile such as 0.95, 99 or p99")
    return share


def parse_priority(value: object) -> int:
    """A priority level of `Critical`, `Non-Critical` or an integer."""
    expected = "expected Critical, Non-Critical or an integer (higher goes first)"
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _MOST_LEVELS:
            raise ValueError(f"{expected} of 32 bits")
        return value
    if isinstance(value, str):
        for name, level in _PRIORITIES.items():
            if value.strip().lower() == name.lower():
                return level
        if re.fullmatch(r"[+-]?\d+", value.strip()):
            return parse_priority(int(value))
    raise ValueError(expected)


def format_priority(level: int) -> str | int:
    """The name of a level that has one, else the level."""
    return next((name for name, named in _PRIORITIES.items() if named == level), level)


def parse_server_url(value: str) -> str:
    """A server's base URL in the one form in which it is known, however it was written.

    Scheme and host are in lower case (an IPv6 address is in its short form), and there is no
    default port and no trailing slash (RFC 3986, section 6.2). Raises ValueError.
    """
    url = value.strip()
    # urlsplit drops line ends and tabs without a word; it refuses brackets that do not match.
    if not _PRINTABLE.fullmatch(url) or url.count("[") != url.count("]"):
        raise ValueError(_SERVER_URL)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(_SERVER_URL) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(_SERVER_URL)
    if not all(_LABEL.fullmatch(label) for label in parts.hostname.rstrip(".").split(".")):
        raise ValueError("expected a host name of parts with 1 to 63 characters")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("expected a URL of host, port and path only")
    path = parts.path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError("expected the server's base URL, without /v1")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("expected a port from 1 to 65535")
    shown = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{_normal_host(parts.hostname)}{shown}{path}"


def _normal_host(host: str) -> str:
    """As a URL has it; `host` is in lower case and without brackets, as urlsplit tells it."""
    if ":" not in host:
        return host
    address, percent, zone = host.partition("%")
    try:
        return f"[{ip_address(address).compressed}{percent}{zone}]"
    except ValueError as error:
        raise ValueError("expected an IPv6 address between brackets") from error


def parse_path(value: object) -> object:
    """Anything but empty text, which Path takes for the working directory."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("expected a path")
    return value


def parse_origin(value: str) -> str:
    """An origin as browsers send it, or `*`."""
    origin = value.strip()
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("expected * or an origin such as https://app.example.com, without a path")
    return origin


def check_key(secret: SecretStr) -> SecretStr:
    """A key that can stand in a header."""
    if not _PRINTABLE.fullmatch(secret.get_secret_value()):
        raise ValueError("expected one or more printable ASCII characters, without spaces")
    return secret


def split_list(value: object) -> object:
    """Items of comma-separated text, as flags and variables have it; lists stay as they are."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


Duration = Annotated[
    float, BeforeValidator(parse_duration), PlainSerializer(format_duration, when_used="json")
]
PositiveDuration = Annotated[Duration, Field(gt=0)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, when_used="json")]
Percentile = Annotated[float, BeforeValidator(parse_percentile)]
Priority = Annotated[
    int, BeforeValidator(parse_priority), PlainSerializer(format_priority, when_used="json")
]
FilePath = Annotated[Path, BeforeValidator(parse_path)]
ServerUrl = Annotated[str, AfterValidator(parse_server_url)]
Origin = Annotated[str, AfterValidator(parse_origin)]
Key = Annotated[SecretStr, AfterValidator(check_key)]
