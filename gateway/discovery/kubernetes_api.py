"""Lists and watches of the Kubernetes API, over aiohttp's client.

Only reading is needed, of four kinds of objects: a client library would bring thousands of classes
for it, and retries of its own.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Self, TypeVar

import aiohttp
import msgspec

from gateway.settings.discovery import KubernetesDiscovery

_T = TypeVar("_T")
_PAGE = 500
_LIST_S = 30.0
_WATCH_S = 120
"""The server ends a watch after this long; a connection that is dead is noticed a little later."""
_LATE_S = 15.0
_LONGEST_LINE = 16 << 20


class ApiError(Exception):
    """The API cannot be asked, or answers with an error; the message is for the log."""


class ExpiredError(ApiError):
    """The resource version is too old (410): what there is must be listed again."""


class WatchEvent(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class ObjectList(msgspec.Struct):
    """A whole list, and the version it is of."""

    items: list[msgspec.Raw]
    version: str


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    next_page: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Status(msgspec.Struct):
    message: str = ""
    code: int = 0


class KubernetesApi:
    """One connection's worth of access; use it as a context, and make another after a failure.

    The certificate authority is read once, the token before each request: both are replaced while
    a pod lives.
    """

    def __init__(self, wanted: KubernetesDiscovery) -> None:
        self._wanted = wanted
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        tls: ssl.SSLContext | bool = True
        if self._wanted.api_server.startswith("https:"):
            try:
                tls = ssl.create_default_context(cafile=self._wanted.ca_file)
            except OSError as error:
                reason = error.strerror or error
                raise ApiError(f"ca_file {self._wanted.ca_file}: {reason}") from error
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def list(self, path: str, query: Mapping[str, str]) -> ObjectList:
        """Every object at a path, page by page.

        Raises:
            ApiError: it cannot be had.
        """
        items: list[msgspec.Raw] = []
        version = after = ""
        while True:
            more = {"limit": str(_PAGE)} | ({"continue": after} if after else {})
            async with self._get(path, {**query, **more}, timeout_s=_LIST_S) as response:
                page = decoded(await response.read(), _Page)
            items += page.items or ()
            version = version or page.metadata.resource_version
            after = page.metadata.next_page
            if not after:
                return ObjectList(items, version)

    async def watch(
        self, path: str, query: Mapping[str, str], version: str
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes since a version, until the server ends the watch in good order.

        Raises:
            ExpiredError: the version is too old.
            ApiError: the watch broke, also in the middle of a line.
        """
        more = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_S),
        }
        rest = b""
        async with self._get(path, {**query, **more}, timeout_s=_WATCH_S + _LATE_S) as response:
            async for data in response.content.iter_any():
                *lines, rest = (rest + data).split(b"\n")
                for line in filter(None, lines):
                    yield _event(line)
                if len(rest) > _LONGEST_LINE:
                    raise ApiError(f"an object of more than {_LONGEST_LINE} bytes")
        if rest:
            raise ApiError("the watch ended in the middle of a line")

    @asynccontextmanager
    async def _get(
        self, path: str, query: Mapping[str, str], *, timeout_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._wanted.api_server + path
        try:
            async with self._session.get(
                url,
                params=query,
                headers=self._credentials(),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise _refusal(response.status, await response.read(), path)
                yield response
        except TimeoutError as error:
            raise ApiError(f"{url} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(f"{url}: {str(error) or type(error).__name__}") from error

    def _credentials(self) -> dict[str, str]:
        path = self._wanted.token_file
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            if self._wanted.api_server.startswith("http:") and not path.exists():
                return {}  # `kubectl proxy`, say, which brings its own credentials
            raise ApiError(f"token_file {path}: {error}") from error
        return {"Authorization": f"Bearer {token}"}


def decoded(data: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    """An object of the API; ApiError if it is not one."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"not an object as expected: {error}") from error


def _event(line: bytes) -> WatchEvent:
    event = decoded(line, WatchEvent)
    if event.type == "ERROR":
        status = decoded(event.object, _Status)
        raise _refusal(status.code, bytes(event.object), "the watch")
    return event


def _refusal(status: int, body: bytes, what: str) -> ApiError:
    try:
        message = msgspec.json.decode(body, type=_Status).message
    except msgspec.DecodeError:
        message = ""
    kind = ExpiredError if status == HTTPStatus.GONE else ApiError
    return kind(f"{what}: {status} {message}".rstrip())
