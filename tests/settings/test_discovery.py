from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings.checks import warnings
from gateway.settings.discovery import split_nameserver
from gateway.settings.loading import load_file
from gateway.settings.problems import ConfigurationError

WriteConfig = Callable[[str], Path]


def discovery(text: str) -> str:
    return f"pools: [{{name: p, discovery: {{{text}}}}}]"


@pytest.mark.parametrize(
    "text",
    [
        "dns: {name: a, port: 8000}",
        "dns: {name: a, type: SRV, nameserver: '10.0.0.53:5353'}",
        "file: {path: /etc/servers.yaml}",
        "kubernetes: {service: vllm}",
        "kubernetes: {service: vllm, port: http}",
        "kubernetes: {pods: app=vllm, port: 8000}",
        "kubernetes: {inference_pool: llama}",
    ],
)
def test_each_source_is_enough_for_a_pool(write_config: WriteConfig, text: str) -> None:
    settings = load_file(write_config(discovery(text)))
    assert settings.pools[0].discovers
    assert not warnings(settings)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dns: {name: a}", "discovery.dns.port: expected a port"),
        ("dns: {name: a, type: SRV, port: 1}", "discovery.dns.port: expected none"),
        ("dns: {name: a, port: 1, nameserver: x}", "'x': expected an address such as"),
        ("kubernetes: {}", "discovery.kubernetes: expected one of service, pods, inference_pool"),
        ("kubernetes: {service: a, pods: b}", "kubernetes: expected one of service, pods"),
        ("kubernetes: {pods: a=b}", "kubernetes.port: expected a port's number beside pods"),
        ("kubernetes: {pods: a=b, port: http}", "port: expected a port's number beside pods"),
        ("kubernetes: {inference_pool: a, port: 1}", "kubernetes.port: expected none"),
        ("consul: {}", "discovery.consul: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(write_config: WriteConfig, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_file(write_config(discovery(text)))
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.53", ("10.0.0.53", 53)),
        ("10.0.0.53:5353", ("10.0.0.53", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_a_name_server_is_an_address_with_or_without_a_port(
    text: str, expected: tuple[str, int]
) -> None:
    assert split_nameserver(text) == expected
