"""The keys of a pool's `discovery`: where its servers are looked for, besides `servers`."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.settings.quantities import PositiveDuration, parse_server_url

Name = Annotated[str, Field(min_length=1)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Scheme = Literal["http", "https"]
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


_DNS_PORT = 53


def split_nameserver(text: str) -> tuple[str, int]:
    """Address and port of `10.0.0.53`, `10.0.0.53:5353`, `::1` or `[::1]:5353`."""
    address, port = text, ""
    if text.startswith("[") or text.count(":") == 1:
        address, _, port = text.rpartition(":")
    try:
        return str(ip_address(address.strip("[]"))), int(port or _DNS_PORT)
    except ValueError as error:
        raise ValueError("expected an address such as 10.0.0.53 or 10.0.0.53:5353") from error


def _checked_nameserver(text: str) -> str:
    split_nameserver(text)
    return text


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DnsDiscovery(_Group):
    """A name that is resolved again and again.

    With `A` (which includes AAAA) each address is a server at `port`; with `SRV` each target is
    one at its own port, and only those of the lowest priority value count.
    """

    name: Name
    type: Literal["A", "SRV"] = "A"
    port: PortNumber | None = None
    scheme: Scheme = "http"
    interval: PositiveDuration = 10.0
    nameserver: Annotated[str, AfterValidator(_checked_nameserver)] | None = None


class FileDiscovery(_Group):
    """A file with `servers`, or a directory of such files, that is looked at again and again."""

    path: Path
    interval: PositiveDuration = 1.0


class KubernetesDiscovery(_Group):
    """Pods: behind a `service`, by the labels in `pods`, or of an `inference_pool`; one of them.

    `port` is a number, or with `service` also a port's name; an InferencePool has its own.
    """

    service: Name | None = None
    pods: Name | None = None
    inference_pool: Name | None = None
    namespace: Name | None = None
    port: PortNumber | Name | None = None
    scheme: Scheme = "http"
    api_server: Annotated[str, AfterValidator(parse_server_url)] = "https://kubernetes.default.svc"
    token_file: Path = _SERVICE_ACCOUNT / "token"
    ca_file: Path = _SERVICE_ACCOUNT / "ca.crt"
    namespace_file: Path = _SERVICE_ACCOUNT / "namespace"


class DiscoverySettings(_Group):
    """Sources of servers; each that is set adds its own."""

    dns: DnsDiscovery | None = None
    file: FileDiscovery | None = None
    kubernetes: KubernetesDiscovery | None = None
