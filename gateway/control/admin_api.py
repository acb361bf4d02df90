"""The admin API: servers, services, reload. JSON in and out; errors as OpenAI's.

GET    /admin/servers                      every server of every pool
POST   /admin/servers                      add {"url", "pool"?, "persist"?}
PATCH  /admin/servers/URL                  {"draining": true or false, "persist"?}
DELETE /admin/servers/URL                  remove, once its requests have ended
GET    /admin/services                     every service, and how it fares
PATCH  /admin/services/NAME                change keys of it {..., "persist"?}
DELETE /admin/services/NAME/changes        take the changes back
POST   /admin/reload                       read the configuration again

`?persist=true` does what `"persist": true` in a body does.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.control.admin_views import server_view, service_views
from gateway.control.configuration import ConfigurationInForce
from gateway.control.operator_changes import OperatorChanges, ServerAction
from gateway.control.served_pools import ServedPool
from gateway.server.client_channel import JSON_HEADER, ClientChannel
from gateway.server.client_request import ClientRequest
from gateway.server.options import FrontEndOptions
from gateway.server.pool_servers import PoolServers
from gateway.server.request_body import Refused, read_body
from gateway.settings.problems import ConfigurationError, problems_of
from gateway.settings.quantities import ServerUrl, parse_server_url
from gateway.wire.error_response import ProtocolError, bad_request_answer, protocol_answer
from gateway.wire.openai_request import BadRequest

_PREFIX = "/admin/"
_CHANGES = "/changes"
_LIMITS = FrontEndOptions(max_body_bytes=1 << 16, body_timeout_s=10.0)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    persist: bool = False


class _NewServer(_Body):
    url: ServerUrl
    pool: str | None = None


class _ServerPatch(_Body):
    draining: bool


class _Call(NamedTuple):
    """One request, taken apart: `rest` is what follows the collection in the path, if anything."""

    request: ClientRequest
    channel: ClientChannel
    method: str
    rest: str
    persist: bool


_B = TypeVar("_B", bound=BaseModel)


class AdminApi:
    """Answers what lies below /admin/; a section of the administration listener."""

    def __init__(
        self,
        pools: Sequence[ServedPool],
        *,
        changes: OperatorChanges,
        configuration: ConfigurationInForce,
    ) -> None:
        self._pools = tuple(pools)
        self._changes = changes
        self._configuration = configuration
        self._handlers: dict[tuple[str, str, bool], Callable[[_Call], Awaitable[object]]] = {
            ("servers", "GET", False): self._list_servers,
            ("servers", "POST", False): self._add_server,
            ("servers", "PATCH", True): self._patch_server,
            ("servers", "DELETE", True): self._remove_server,
            ("services", "GET", False): self._list_services,
            ("services", "PATCH", True): self._patch_service,
            ("services", "DELETE", True): self._restore_service,
            ("reload", "POST", False): self._reload,
        }

    async def answer(self, request: ClientRequest, channel: ClientChannel) -> bool:
        """Answer one request; False if it is not about this section."""
        path, _, query = request.target.partition("?")
        if not path.startswith(_PREFIX):
            return False
        collection, _, rest = path.removeprefix(_PREFIX).partition("/")
        method = "GET" if request.method == "HEAD" else request.method
        try:
            call = _Call(request, channel, method, unquote(rest), _persists(query))
            found = await self._found(collection, call)
        except Refused as refusal:
            channel.close_after()
            channel.send_answer(refusal.answer)
        except BadRequest as error:
            channel.close_after()
            channel.send_answer(bad_request_answer(error))
        except ConfigurationError as error:
            channel.send_answer(bad_request_answer(_as_bad_request(error)))
        else:
            channel.send(200, JSON_HEADER, orjson.dumps(found))
        return True

    async def _found(self, collection: str, call: _Call) -> object:
        handler = self._handlers.get((collection, call.method, bool(call.rest)))
        if handler is not None:
            return await handler(call)
        known = any(collection == name for name, _, _ in self._handlers)
        error = ProtocolError.METHOD_NOT_ALLOWED if known else ProtocolError.NOT_FOUND
        raise Refused(protocol_answer(error))

    async def _reload(self, call: _Call) -> object:
        await _read(call, _Body)
        self._configuration.reload()
        return {"reloads": self._configuration.reloads}

    # -- servers ----------------------------------------------------------------------------

    async def _list_servers(self, _: _Call) -> object:
        return {"servers": self._server_views()}

    async def _add_server(self, call: _Call) -> object:
        body = await _read(call, _NewServer)
        pool = self._pool(body.pool)
        other = self._pool_of(body.url)
        if other is not None and other is not pool:
            raise BadRequest(f"{body.url} is a server of pool {other.name!r}.", param="url")
        self._changes.server(
            pool.name, body.url, ServerAction.ADD, persist=body.persist or call.persist
        )
        return self._server_view(body.url)

    async def _patch_server(self, call: _Call) -> object:
        pool, url = self._pool_with(call.rest)
        body = await _read(call, _ServerPatch)
        action = ServerAction.DRAIN if body.draining else ServerAction.RESUME
        self._changes.server(pool.name, url, action, persist=body.persist or call.persist)
        return self._server_view(url)

    async def _remove_server(self, call: _Call) -> object:
        pool, url = self._pool_with(call.rest)
        self._changes.server(pool.name, url, ServerAction.REMOVE, persist=call.persist)
        return self._server_view(url)

    def _server_views(self) -> list[dict[str, object]]:
        return [
            server_view(pool.servers.name, status)
            for pool in self._pools
            for status in pool.servers.statuses()
        ]

    def _server_view(self, url: str) -> dict[str, object]:
        return next(view for view in self._server_views() if view["url"] == url)

    def _pool(self, name: str | None) -> PoolServers:
        names = [pool.servers.name for pool in self._pools]
        if name is None and len(names) == 1:
            name = names[0]
        found = next((pool.servers for pool in self._pools if pool.servers.name == name), None)
        if found is None:
            raise BadRequest(f"`pool` must be one of {', '.join(names)}.", param="pool")
        return found

    def _pool_of(self, url: str) -> PoolServers | None:
        for pool in self._pools:
            if any(status.url == url for status in pool.servers.statuses()):
                return pool.servers
        return None

    def _pool_with(self, written: str) -> tuple[PoolServers, str]:
        """The pool that has a server, and the URL under which it is known there."""
        try:
            url = parse_server_url(written)
        except ValueError:
            url = written
        found = self._pool_of(url)
        if found is None:
            detail = f"No pool has the server {url!r}; GET /admin/servers lists them."
            raise Refused(protocol_answer(ProtocolError.NOT_FOUND, detail=detail))
        return found, url

    # -- services ---------------------------------------------------------------------------

    async def _list_services(self, _: _Call) -> object:
        idle = self._changes.changed_services - self._service_names()
        return {"services": self._service_views(), "idle_changes": sorted(idle)}

    async def _restore_service(self, call: _Call) -> object:
        if not call.rest.endswith(_CHANGES):
            raise Refused(protocol_answer(ProtocolError.METHOD_NOT_ALLOWED))
        name = call.rest.removesuffix(_CHANGES)
        idle = name in self._changes.changed_services - self._service_names()
        if not idle:
            self._check_service(name)
        self._changes.service(name, None, persist=call.persist)
        return {"name": name, "changed": []} if idle else self._service_view(name)

    async def _patch_service(self, call: _Call) -> object:
        name = call.rest
        self._check_service(name)
        values = await _read_object(call)
        persist = values.pop("persist", False)
        if not isinstance(persist, bool):
            raise BadRequest("`persist` must be true or false.", param="persist")
        self._changes.service(name, values, persist=persist or call.persist)
        return self._service_view(name)

    def _service_names(self) -> set[str]:
        pools = self._configuration.settings.effective_pools()
        return {service.name for pool in pools for service in pool.services}

    def _check_service(self, name: str) -> None:
        if name not in self._service_names():
            detail = f"No pool has the service {name!r}; GET /admin/services lists them."
            raise Refused(protocol_answer(ProtocolError.NOT_FOUND, detail=detail))

    def _service_views(self) -> list[dict[str, object]]:
        snapshots = {pool.serving.pool.name: pool.serving.driver.snapshot() for pool in self._pools}
        return service_views(
            self._configuration.settings.effective_pools(), snapshots, self._changes.services
        )

    def _service_view(self, name: str) -> dict[str, object]:
        return next(view for view in self._service_views() if view["name"] == name)


def _persists(query: str) -> bool:
    """Whether `?persist=true` asks for the change to be kept."""
    given = parse_qs(query, keep_blank_values=True).get("persist", ["false"])
    if given not in (["true"], ["false"]):
        raise BadRequest("`persist` must be true or false.", param="persist")
    return given == ["true"]


def _media_type(request: ClientRequest) -> str:
    return (request.header(b"content-type") or "").partition(";")[0].strip().lower()


async def _read_object(call: _Call) -> dict[str, object]:
    """The body's object; a page of another origin cannot send this type without being asked."""
    if _media_type(call.request) != "application/json":
        raise Refused(protocol_answer(ProtocolError.UNSUPPORTED_MEDIA_TYPE))
    body = await read_body(call.request, call.channel, _LIMITS)
    try:
        values = orjson.loads(body.readable or b"{}")
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BadRequest("The body must be an object.")
    return values


async def _read(call: _Call, kind: type[_B]) -> _B:
    values = await _read_object(call)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _as_bad_request(ConfigurationError(problems_of(error, {}, section=kind))) from error


def _as_bad_request(error: ConfigurationError) -> BadRequest:
    """Every fault in the message, the key of the first as the parameter at fault."""
    return BadRequest(str(error), param=error.problems[0].key or None)
