"""Reads a gateway's administration listener: state, recent requests, the stream of events."""

import http.client
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

_TIMEOUT_S = 10.0
"""The state comes once a second; silence for so long means that nobody is there."""


class Unreachable(Exception):  # noqa: N818 - says what is the matter, not that it is one
    """The gateway does not answer, or not with what was asked for."""


class NotAuthorized(Exception):  # noqa: N818 - likewise
    """The listener asks for a key, or for another one."""


class Sight(NamedTuple):
    """What there is to show: the state as of `/live/state`, the newest point, the last requests."""

    state: dict[str, Any]
    point: dict[str, Any] | None
    requests: list[dict[str, Any]]


class AdminClient:
    """Asks one listener."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        """`url` as of the page in a browser.

        Raises:
            ValueError: it is no http or https URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r}: expected a URL such as http://127.0.0.1:8081")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def look(self, *, rows: int) -> Sight:
        """The state now, with as many requests.

        Raises:
            NotAuthorized, Unreachable: there is nothing to show.
        """
        points = self._json("/live/history")
        return self._sight(self._json("/live/state"), points, rows)

    def sights(self, *, rows: int) -> Generator[Sight, None, None]:
        """The state once a second, with as many requests, until the stream ends.

        Raises:
            NotAuthorized, Unreachable: there is nothing more to show.
        """
        points: list[dict[str, Any]] = []
        name = ""
        with self._answer("/live/events") as stream:
            while True:
                line = _read_line(stream)
                if not line:
                    return
                field, _, value = line.rstrip(b"\n").partition(b": ")
                if field == b"event":
                    name = value.decode()
                elif field == b"data" and name == "points":
                    points = orjson.loads(value) or points
                elif field == b"data":
                    yield self._sight(orjson.loads(value), points, rows)

    def _sight(self, state: dict[str, Any], points: list[dict[str, Any]], rows: int) -> Sight:
        found = self._json(f"/live/requests?limit={rows}")["requests"] if rows else []
        return Sight(state, points[-1] if points else None, found)

    def _json(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        with self._answer(path) as answer:
            try:
                return orjson.loads(answer.read())
            except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
                raise Unreachable(f"no answer that can be read to {path}") from error

    @contextmanager
    def _answer(self, path: str) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        with closing(kind(self._host, self._port, timeout=_TIMEOUT_S)) as connection:
            try:
                connection.request("GET", self._prefix + path, headers=self._headers)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unreachable(str(error) or type(error).__name__) from error
            with answer:
                if answer.status == 401:
                    raise NotAuthorized
                if answer.status != 200:
                    raise Unreachable(f"answered {answer.status} {answer.reason} to {path}")
                yield answer


def _read_line(stream: http.client.HTTPResponse) -> bytes:
    try:
        return stream.readline()
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error
