"""The page's files, read from the package once. Names are a fixed list, so no path can escape."""

import hashlib
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

_TYPES = MappingProxyType(
    {
        "css": b"text/css; charset=utf-8",
        "html": b"text/html; charset=utf-8",
        "js": b"text/javascript; charset=utf-8",
        "svg": b"image/svg+xml",
    }
)
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFETY = (
    b"content-security-policy: %b\r\nx-content-type-options: nosniff\r\n"
    b"referrer-policy: no-referrer\r\ncross-origin-resource-policy: same-origin\r\n" % _POLICY
)


class Asset(NamedTuple):
    """One file; `etag` as in the header, `headers` complete lines."""

    etag: bytes
    headers: bytes
    body: bytes


def load_assets() -> dict[str, Asset]:
    """All files by path: `/` is the page, the others lie below `/assets/`."""
    folder = files(__package__) / "assets"
    found = {}
    for below, prefix in ((folder, "/assets/"), (folder / "vendor", "/assets/vendor/")):
        for entry in below.iterdir():
            kind = _TYPES.get(entry.name.rpartition(".")[2])
            if kind is not None:
                path = "/" if entry.name == "index.html" else prefix + entry.name
                found[path] = _asset(kind, entry.read_bytes())
    return found


def _asset(kind: bytes, body: bytes) -> Asset:
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:24].encode()
    headers = b"content-type: %b\r\netag: %b\r\ncache-control: no-cache\r\n%b" % (
        kind,
        etag,
        _SAFETY,
    )
    return Asset(etag, headers, body)
