"""The simulated server's endpoints beside generation: models, adapters, tokens, state, metrics."""

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from gateway.simulator.api_errors import ApiError, missing_field
from gateway.simulator.api_requests import Body
from gateway.simulator.generation_api import read_body
from gateway.simulator.http_replies import empty_reply, json_reply, text_reply
from gateway.simulator.simulated_vllm import SimulatedVllm

_NO_SUCH_PATHS = ("missing", "nope")
"""A path that ends so has no adapter; every other path has."""


class ModelApi:
    """Handlers of models, adapters, tokens, health and metrics."""

    def __init__(self, vllm: SimulatedVllm) -> None:
        """Answer for this server."""
        self._vllm = vllm

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""

        async def empty(_: web.Request) -> web.Response:
            return empty_reply(503 if self._vllm.switches.unhealthy else 200)

        handlers: list[tuple[str, str, Callable[[web.Request], Awaitable[web.Response]]]] = [
            ("GET", "/v1/models", self.models),
            ("GET", "/metrics", self.metrics),
            ("GET", "/health", empty),
            ("GET", "/ping", empty),
            ("POST", "/ping", empty),
            ("GET", "/version", self.version),
            ("GET", "/load", self.load),
            ("POST", "/tokenize", self.tokenize),
            ("POST", "/detokenize", self.detokenize),
            ("POST", "/reset_prefix_cache", self.reset_prefix_cache),
            ("POST", "/v1/load_lora_adapter", self.load_adapter),
            ("POST", "/v1/unload_lora_adapter", self.unload_adapter),
        ]
        return [web.route(method, path, handler) for method, path, handler in handlers]

    async def models(self, _: web.Request) -> web.Response:
        """List the base model and the adapters, which name it as their parent."""
        vllm = self._vllm
        base = vllm.options.model
        models = [self._model(base, f"models/{base}", None)]
        models += [self._model(name, path, base) for name, path in vllm.adapters.items()]
        return json_reply(orjson.dumps({"object": "list", "data": models}))

    async def metrics(self, _: web.Request) -> web.Response:
        """Show the metrics page."""
        vllm = self._vllm
        if vllm.switches.garbage_metrics:
            return text_reply("<html>\x00 vllm:num_requests_running{ NaN} }\n" * 3)
        page = vllm.metrics.page(vllm.live.engine)
        return text_reply(page)

    async def version(self, _: web.Request) -> web.Response:
        """Name vLLM's version."""
        return json_reply(b'{"version":"0.32.0"}')

    async def load(self, _: web.Request) -> web.Response:
        """Count the requests in flight."""
        return json_reply(b'{"server_load":%d}' % len(self._vllm.answers))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Turn a prompt or messages into token ids."""
        vllm = self._vllm
        body = await read_body(request)
        if "messages" in body:
            tokens = vllm.reader.chat_tokens(body)
        else:
            tokens = vllm.language.encode(str(_required(body, "prompt")))
        answer = {
            "count": len(tokens),
            "max_model_len": vllm.max_model_len,
            "tokens": tokens,
            "token_strs": None,
        }
        return json_reply(orjson.dumps(answer))

    async def detokenize(self, request: web.Request) -> web.Response:
        """Turn token ids into text."""
        tokens = _required(await read_body(request), "tokens")
        if not isinstance(tokens, list) or not all(type(t) is int and t >= 0 for t in tokens):
            raise ApiError(400, "Bad Request", "tokens must be a list of token ids", "tokens")
        return json_reply(orjson.dumps({"prompt": self._vllm.language.decode(tokens)}))

    async def reset_prefix_cache(self, _: web.Request) -> web.Response:
        """Forget the cached prefixes."""
        self._vllm.live.engine.reset_prefix_cache()
        return json_reply(b'{"success":true}')

    async def load_adapter(self, request: web.Request) -> web.Response:
        """Add an adapter at run time."""
        vllm = self._vllm
        body = await read_body(request)
        name, path = str(_required(body, "lora_name")), str(_required(body, "lora_path"))
        if name in vllm.adapters and not body.get("load_inplace"):
            message = (
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True."
            )
            raise ApiError(400, "InvalidUserInput", message)
        if not vllm.options.engine.max_loras or path.rstrip("/").endswith(_NO_SUCH_PATHS):
            message = f"Loading lora {name} failed: No adapter found for {path}"
            raise ApiError(404, "NotFoundError", message)
        vllm.adapters[name] = path
        return text_reply(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_adapter(self, request: web.Request) -> web.Response:
        """Remove an adapter at run time; requests in flight go on."""
        vllm = self._vllm
        name = str(_required(await read_body(request), "lora_name"))
        if name not in vllm.adapters:
            message = f"The lora adapter '{name}' cannot be found."
            raise ApiError(404, "NotFoundError", message)
        del vllm.adapters[name]
        vllm.live.engine.forget_adapter(name)
        return text_reply(f"Success: LoRA adapter '{name}' removed successfully.")

    def _model(self, name: str, root: str, parent: str | None) -> dict[str, object]:
        vllm = self._vllm
        permission = {
            "id": vllm.new_id("modelperm", None),
            "object": "model_permission",
            "created": vllm.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": vllm.created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": None if parent else vllm.max_model_len,
            "permission": [permission],
        }


def _required(body: Body, name: str) -> object:
    if name not in body:
        raise missing_field(name, len(body))
    return body[name]
