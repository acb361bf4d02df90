"""The keys about who may come in, how much at once, and over which certificates."""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from gateway.settings.pool_defaults import CountFromOne
from gateway.settings.quantities import FilePath, Key, PositiveDuration, Size

MASK = "**********"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def _checked_digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("expected the 64 hex digits that `llm-gateway make-key` prints")
    return value.lower()


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Digest = Annotated[
    str, AfterValidator(_checked_digest), PlainSerializer(lambda _: MASK, when_used="json")
]


class ApiKeySettings(BaseModel):
    """One client's key; what is kept of the key itself is its SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:@-]+$")]
    """what logs and metrics call the key"""
    sha256: Annotated[tuple[Digest, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """SHA-256 of the key in hex; a list of both while the key is being changed for a new one"""
    services: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """services it may be used for, `default` for models without one; default: all"""
    requests_per_minute: CountFromOne | None = None
    """default: no limit"""
    tokens_per_minute: CountFromOne | None = None
    """of prompts and answers together; default: no limit"""


class ClientLimits(BaseModel):
    """How much clients may have open, send and wait."""

    max_body_size: Size = Field(64 << 20, description="largest request body")
    max_body_memory: Size = Field(2 << 30, description="memory for the bodies of all requests")
    max_header_size: Annotated[Size, Field(ge=1_024)] = Field(
        32 << 10, description="largest head of a request: its first line and headers"
    )
    max_header_count: Annotated[int, Field(ge=8)] = Field(
        128, description="headers that one request may have"
    )
    header_timeout: PositiveDuration = Field(10.0, description="for a client to send its headers")
    body_timeout: PositiveDuration = Field(60.0, description="for a client to send its body")
    client_idle_timeout: PositiveDuration = Field(
        75.0, description="for the next request on a client's connection"
    )
    max_connections: CountFromOne = Field(
        16_384, description="clients' connections; beyond, those without a request make room"
    )
    max_connections_per_client: CountFromOne | None = Field(
        None, description="connections of one address"
    )
    max_requests: CountFromOne = Field(
        16_384, description="requests in flight, those that wait included"
    )
    max_requests_per_client: CountFromOne | None = Field(
        None, description="requests in flight of one API key, or of one address without keys"
    )


class AccessSettings(ClientLimits):
    """Keys and certificates."""

    api_keys: tuple[ApiKeySettings, ...] = Field((), description="keys that clients need")
    api_keys_file: FilePath | None = Field(
        None, description="YAML file with more `api_keys`, such as a mounted secret"
    )
    admin_api_key: Key | None = Field(None, description="key of the administration listener")
    tls_certificate: FilePath | None = Field(
        None, description="PEM file with the certificate chain that clients see; turns TLS on"
    )
    tls_key: FilePath | None = Field(
        None, description="PEM file with the certificate's private key"
    )
    admin_tls: bool = Field(
        default=False, description="serve administration over TLS with the same certificate"
    )

    @property
    def requires_keys(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None
