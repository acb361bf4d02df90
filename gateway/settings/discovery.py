"""The keys of a pool's `discovery`: where its servers are looked for, besides `servers`."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.settings.quantities import FilePath, PositiveDuration, parse_server_url

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
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DnsDiscovery(_Group):
    """A name that is resolved again and again.

    With `A` (which includes AAAA) each address is a server at `port`; with `SRV` each target is
    one at its own port, and only those of the lowest priority value count.
    """

    name: Name
    """the name that is resolved; one that vanishes keeps its last servers"""
    type: Literal["A", "SRV"] = "A"
    """A (and AAAA): each address is a server; SRV: each target of the lowest priority value"""
    port: PortNumber | None = None
    """of the servers; none with SRV, where the records name ports"""
    scheme: Scheme = "http"
    """http or https"""
    interval: PositiveDuration = 10.0
    """between two look-ups"""
    nameserver: Annotated[str, AfterValidator(_checked_nameserver)] | None = None
    """address, with or without a port; default: those of the system"""


class FileDiscovery(_Group):
    """A file with `servers`, or a directory of such files, that is looked at again and again."""

    path: FilePath
    """YAML or JSON: `servers`, of URLs, or of {url: URL, draining: true}; or a directory of them"""
    interval: PositiveDuration = 1.0
    """between two looks"""


class KubernetesDiscovery(_Group):
    """Pods: behind a `service`, by the labels in `pods`, or of an `inference_pool`; one of them.

    `port` is a number, or with `service` also a port's name; an InferencePool has its own.
    """

    service: Name | None = None
    """name of a Service, whose endpoints are the servers"""
    pods: Name | None = None
    """label selector such as app=vllm; needs `port`"""
    inference_pool: Name | None = None
    """name of an InferencePool; InferenceObjectives set priorities of services of their names"""
    namespace: Name | None = None
    """where all of them are; default: the gateway's own"""
    port: PortNumber | Name | None = None
    """number, or name of a Service's port; default: the one the Service has"""
    scheme: Scheme = "http"
    """http or https"""
    api_server: Annotated[str, AfterValidator(parse_server_url)] = "https://kubernetes.default.svc"
    """base URL of the Kubernetes API"""
    token_file: FilePath = _SERVICE_ACCOUNT / "token"
    """credentials, read anew for each request"""
    ca_file: FilePath = _SERVICE_ACCOUNT / "ca.crt"
    """certificate authority of the API"""
    namespace_file: FilePath = _SERVICE_ACCOUNT / "namespace"
    """where the gateway's own namespace is written"""


class DiscoverySettings(_Group):
    """Sources of servers; each that is set adds its own."""

    dns: DnsDiscovery | None = None
    """a DNS name"""
    file: FileDiscovery | None = None
    """a file, or a directory of files"""
    kubernetes: KubernetesDiscovery | None = None
    """the Kubernetes API"""
