"""Replies of the simulated server with uvicorn's headers."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import web

from gateway.simulator.api_errors import ApiError

_HEADERS: Mapping[str, str] = MappingProxyType({"server": "uvicorn", "vary": "Origin"})
STREAM_HEADERS: Mapping[str, str] = MappingProxyType(
    {**_HEADERS, "content-type": "text/event-stream; charset=utf-8"}
)


def json_reply(body: bytes, status: int = 200) -> web.Response:
    """Reply with encoded JSON."""
    return web.Response(body=body, status=status, headers=_HEADERS, content_type="application/json")


def text_reply(text: str, content_type: str = "text/plain") -> web.Response:
    """Reply with text."""
    return web.Response(text=text, headers=_HEADERS, content_type=content_type)


def empty_reply(status: int = 200) -> web.Response:
    """Reply with a status alone."""
    return web.Response(status=status, headers=_HEADERS)


@web.middleware
async def errors_as_replies(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn refusals into vLLM's error bodies, unknown paths and methods into FastAPI's."""
    try:
        return await handler(request)
    except ApiError as error:
        return json_reply(error.body(), error.status)
    except web.HTTPNotFound:
        return json_reply(b'{"detail":"Not Found"}', 404)
    except web.HTTPMethodNotAllowed as error:
        reply = json_reply(b'{"detail":"Method Not Allowed"}', 405)
        reply.headers["allow"] = ", ".join(sorted(error.allowed_methods))
        return reply
