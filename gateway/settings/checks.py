"""What no single key can tell: faults between keys, and what is allowed but hardly meant."""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from gateway.scheduling.model import is_critical
from gateway.scheduling.service_directory import DEFAULT_SERVICE
from gateway.settings.discovery import DiscoverySettings
from gateway.settings.problems import Problem
from gateway.settings.schema import (
    ObjectiveSettings,
    PoolSettings,
    ServiceSettings,
    Settings,
)
from gateway.settings.tls import TlsFileError, client_side_context, server_side_context
from gateway.wire.openai_request import BadRequest, check_model

_KUBERNETES_KINDS = ("service", "pods", "inference_pool")
_BOUNDS = ("ttft", "tpot", "ntpot")


def faults(settings: Settings) -> list[Problem]:
    """What makes the configuration unusable, each at its key."""
    return _located(
        settings,
        (
            *_assignment(settings),
            *_duplicates(settings),
            *_limit_faults(settings),
            *_pool_faults(settings.pools),
            *_key_faults(settings),
            *_tls_faults(settings),
            *_fallback_faults(settings.pools),
        ),
    )


def warnings(settings: Settings) -> list[Problem]:
    """What can be used, but will hardly do what was meant."""
    return _located(settings, (*_warnings(settings.effective_pools()), *_access_warnings(settings)))


def _located(settings: Settings, found: Iterable[tuple[str, str]]) -> list[Problem]:
    """Add to each key and text where the key's top level came from."""
    return [
        Problem(settings.origins.get(re.split(r"[.\[]", key)[0], ""), key, text)
        for key, text in found
    ]


def _warnings(pools: tuple[PoolSettings, ...]) -> Iterator[tuple[str, str]]:
    for index, pool in enumerate(pools):
        if not pool.servers and not pool.discovers:
            yield f"pools[{index}].servers", "no servers, so every request will be refused"
        if not pool.services and not pool.accept_unregistered_models:
            yield f"pools[{index}]", "no services and no other models accepted: nothing to serve"
        if pool.margin_non_critical > pool.margin_critical:
            yield (
                f"pools[{index}].margin_non_critical",
                "above margin_critical: Non-Critical requests start where Critical ones wait",
            )
        for key, service in _services(index, pool):
            if service.targets and not any(target.weight for target in service.targets):
                yield f"{key}.targets", "every weight is 0, so its requests will be refused"
            if service.max_queue_wait is not None and is_critical(service.priority):
                text = "without effect: the service is Critical, and waits up to queue_timeout"
                yield f"{key}.max_queue_wait", text


def _access_warnings(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.admin_api_key is None and not _is_loopback(settings.admin_host):
        text = (
            f"administration listens on {settings.admin_host} and asks for no key: anybody who"
            " reaches it may see and do everything; set admin_api_key, or keep to 127.0.0.1"
        )
        yield "admin_host", text
    for index, pool in enumerate(settings.effective_pools()):
        if not pool.upstream_tls_verify:
            key = f"pools[{index}].upstream_tls_verify"
            yield key, "false: whoever is on the way to the servers can read and answer for them"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    keys = list(enumerate(settings.api_keys))
    yield from _repeated((f"api_keys[{i}].name", key.name) for i, key in keys)
    digests: dict[str, str] = {}
    for index, key in keys:
        for number, digest in enumerate(key.sha256):
            path = f"api_keys[{index}].sha256[{number}]"
            if digest in digests:
                yield path, f"the same key as {digests[digest]}; expected each once"
            digests.setdefault(digest, path)
    known = {service.name for pool in settings.pools for service in pool.services}
    known.add(DEFAULT_SERVICE)
    for index, key in keys:
        for number, service in enumerate(key.services or ()):
            if service not in known:
                text = f"{service!r}: no such service; expected one of {', '.join(sorted(known))}"
                yield f"api_keys[{index}].services[{number}]", text


def _tls_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        missing = "tls_key" if settings.tls_key is None else "tls_certificate"
        given = "tls_certificate" if settings.tls_key is None else "tls_key"
        yield given, f"expected {missing} beside it"
        return
    if settings.admin_tls and settings.tls_certificate is None:
        yield "admin_tls", "expected tls_certificate and tls_key beside it"
    try:
        client_side_context(settings)
    except TlsFileError as error:
        yield error.key, f"{error.path}: {error.text}"
    for index, pool in enumerate(settings.effective_pools()):
        files = (pool.upstream_tls_ca, pool.upstream_tls_certificate, pool.upstream_tls_key)
        if any(files) or any(url.startswith("https://") for url in pool.servers):
            try:
                server_side_context(pool)
            except TlsFileError as error:
                own = settings.pools and error.key in settings.pools[index].model_fields_set
                yield (f"pools[{index}]." if own else "") + error.key, f"{error.path}: {error.text}"


def _assignment(settings: Settings) -> Iterator[tuple[str, str]]:
    """`backends` belong to the one pool that names no servers itself."""
    own = [pool for pool in settings.pools if pool.servers]
    if settings.backends and own:
        yield "backends", f"pool {own[0].name!r} has servers of its own; expected one of the two"
    elif settings.backends and len(settings.pools) > 1:
        yield "backends", "expected `servers` in each pool, as there are several pools"


def _limit_faults(settings: Settings) -> Iterator[tuple[str, str]]:
    """Bounds that leave nothing between them, and names that do not fit where they go."""
    if settings.max_body_memory < settings.max_body_size:
        yield "max_body_memory", "expected at least max_body_size, or large bodies never fit"
    for index, pool in enumerate(settings.effective_pools()):
        path = f"pools[{index}]." if settings.pools else ""
        if pool.eject_time > pool.eject_max_time:
            yield f"{path}eject_time", "expected at most eject_max_time"
        if settings.journal is not None and len(settings.pools) > 1 and "/" in pool.name:
            yield f"{path}name", f"{pool.name!r}: expected no slash: the journal's file is named so"


def _duplicates(settings: Settings) -> Iterator[tuple[str, str]]:
    pools = list(enumerate(settings.pools))
    services = [item for index, pool in pools for item in _services(index, pool)]
    yield from _repeated((f"pools[{i}].name", pool.name) for i, pool in pools)
    yield from _repeated((f"{key}.name", service.name) for key, service in services)
    yield from _repeated((f"{key}.model", service.model) for key, service in services)
    yield from _repeated(
        (f"pools[{i}].servers[{j}]", url) for i, pool in pools for j, url in enumerate(pool.servers)
    )
    yield from _repeated((f"backends[{i}]", url) for i, url in enumerate(settings.backends))


def _repeated(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for key, value in named:
        if value in first:
            yield key, f"{value!r}: already at {first[value]}; expected each once"
        first.setdefault(value, key)


def _services(index: int, pool: PoolSettings) -> Iterator[tuple[str, ServiceSettings]]:
    for number, service in enumerate(pool.services):
        yield f"pools[{index}].services[{number}]", service


def _pool_faults(pools: tuple[PoolSettings, ...]) -> Iterator[tuple[str, str]]:
    for index, pool in enumerate(pools):
        yield from _discovery_faults(f"pools[{index}].discovery", pool.discovery)
        for key, service in _services(index, pool):
            if service.name == DEFAULT_SERVICE:
                yield f"{key}.name", f"{service.name!r} stands for models without a service"
            if service.objective:
                yield from _objective_faults(f"{key}.objective", service.objective)
            yield from _target_faults(key, service)
            if not _can_be_asked_for(service.model):
                yield f"{key}.model", "expected a name without control characters, of at most 512"


def _can_be_asked_for(model: str) -> bool:
    """Whether requests for a model of this name are let in."""
    try:
        check_model(model)
    except BadRequest:
        return False
    return True


def _fallback_faults(pools: tuple[PoolSettings, ...]) -> Iterator[tuple[str, str]]:
    """A fallback names a service of another pool."""
    pool_of = {service.name: pool.name for pool in pools for service in pool.services}
    for index, pool in enumerate(pools):
        for key, service in _services(index, pool):
            if service.fallback is None:
                continue
            where = pool_of.get(service.fallback)
            if where is None:
                known = ", ".join(name for name, its in pool_of.items() if its != pool.name)
                told = known or "there is none yet"
                yield (
                    f"{key}.fallback",
                    f"{service.fallback!r}: no such service; expected one of another pool: {told}",
                )
            elif where == pool.name:
                yield (
                    f"{key}.fallback",
                    f"{service.fallback!r}: is in this pool; expected one of another pool",
                )


def _objective_faults(key: str, objective: ObjectiveSettings) -> Iterator[tuple[str, str]]:
    if not any(getattr(objective, bound) for bound in _BOUNDS):
        yield key, "expected at least one of ttft, tpot, ntpot"
    for bound in _BOUNDS:
        percentile = f"{bound}_percentile"
        if getattr(objective, percentile) is not None and getattr(objective, bound) is None:
            yield f"{key}.{percentile}", f"expected {bound} beside it"


def _target_faults(key: str, service: ServiceSettings) -> Iterator[tuple[str, str]]:
    yield from _repeated(
        (f"{key}.targets[{i}].name", target.name) for i, target in enumerate(service.targets)
    )
    weighted = [target for target in service.targets if "weight" in target.model_fields_set]
    if weighted and len(weighted) < len(service.targets):
        yield f"{key}.targets", "expected a weight for every target, or for none (an even split)"


def _discovery_faults(key: str, discovery: DiscoverySettings) -> Iterator[tuple[str, str]]:
    dns, kubernetes = discovery.dns, discovery.kubernetes
    if dns and (dns.type == "A") != (dns.port is not None):
        expected = "expected a port" if dns.type == "A" else "expected none: SRV records name ports"
        yield f"{key}.dns.port", expected
    if not kubernetes:
        return
    chosen = [name for name in _KUBERNETES_KINDS if getattr(kubernetes, name) is not None]
    if len(chosen) != 1:
        yield f"{key}.kubernetes", f"expected one of {', '.join(_KUBERNETES_KINDS)}"
    elif chosen == ["pods"] and not isinstance(kubernetes.port, int):
        yield f"{key}.kubernetes.port", "expected a port's number beside pods"
    elif chosen == ["inference_pool"] and kubernetes.port is not None:
        yield f"{key}.kubernetes.port", "expected none: the InferencePool has target ports"
