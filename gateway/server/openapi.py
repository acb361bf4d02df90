"""The OpenAPI description of both listeners, at /openapi.json of administration."""

from importlib.resources import files
from typing import Any

import msgspec
import yaml

from gateway.server.client_channel import JSON_HEADER, ClientChannel
from gateway.server.client_request import ClientRequest

_PATH = "/openapi.json"


def api_description() -> dict[str, Any]:
    """The description, as an OpenAPI 3.1 document."""
    text = files("gateway.server").joinpath("openapi.yaml").read_text(encoding="utf-8")
    description: dict[str, Any] = yaml.safe_load(text)
    return description


class ApiDescription:
    """A section of the administration listener."""

    def __init__(self) -> None:
        self._document = msgspec.json.encode(api_description())

    async def answer(self, request: ClientRequest, channel: ClientChannel) -> bool:
        """Answer one request; False if it does not ask for the description."""
        if request.method not in ("GET", "HEAD") or request.path != _PATH:
            return False
        channel.send(200, JSON_HEADER, self._document)
        return True
