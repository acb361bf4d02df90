from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings.checks import warnings
from gateway.settings.loading import load_file
from gateway.settings.problems import ConfigurationError

WriteConfig = Callable[[str], Path]

TWO_POOLS = """
pools:
  - {name: a, servers: ["http://a:1"], services: [{name: one, model: m}]}
  - {name: b, servers: ["http://b:1"], services: [{name: two, model: n}]}
"""


def service(text: str) -> str:
    return f"pools: [{{name: p, servers: ['http://a:1'], services: [{{name: s, {text}}}]}}]"


def test_pools_that_differ_are_accepted(write_config: WriteConfig) -> None:
    assert len(load_file(write_config(TWO_POOLS)).pools) == 2


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("name: b", "name: a", "pools[1].name"),
        ("http://b:1", "http://a:1/", "pools[1].servers[0]"),
        ("name: two", "name: one", "pools[1].services[0].name"),
        ("model: n", "model: m", "pools[1].services[0].model"),
    ],
)
def test_what_must_be_unique_is_refused_twice(
    write_config: WriteConfig, old: str, new: str, key: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_file(write_config(TWO_POOLS.replace(old, new)))
    (problem,) = refused.value.problems
    assert problem.key == key
    assert "already at pools[0]." in problem.text


@pytest.mark.parametrize(
    ("fallback", "text"),
    [
        ("three", "no such service; expected one of another pool: two"),
        ("one", "is in this pool; expected one of another pool"),
    ],
)
def test_a_fallback_is_a_service_of_another_pool(
    write_config: WriteConfig, fallback: str, text: str
) -> None:
    text_of_file = TWO_POOLS.replace("model: m", f"model: m, fallback: {fallback}")
    with pytest.raises(ConfigurationError) as refused:
        load_file(write_config(text_of_file))
    (problem,) = refused.value.problems
    assert problem.key == "pools[0].services[0].fallback"
    assert text in problem.text


def test_a_fallback_in_another_pool_is_accepted(write_config: WriteConfig) -> None:
    settings = load_file(write_config(TWO_POOLS.replace("model: m", "model: m, fallback: two")))
    assert settings.pools[0].services[0].fallback == "two"


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("backends: ['http://a:1', 'http://a:1']", "backends[1]", "already at backends[0]"),
        (
            "backends: ['http://a:1']\npools: [{name: p, servers: ['http://b:1']}]",
            "backends",
            "pool 'p' has servers of its own",
        ),
        (
            "backends: ['http://a:1']\npools: [{name: p}, {name: q}]",
            "backends",
            "expected `servers` in each pool",
        ),
        (service("objective: {}"), "pools[0].services[0].objective", "at least one of ttft"),
        (
            service("objective: {ttft: 1s, tpot_percentile: p99}"),
            "pools[0].services[0].objective.tpot_percentile",
            "expected tpot beside it",
        ),
        (
            service("targets: [{name: m, weight: 90}, {name: n}]"),
            "pools[0].services[0].targets",
            "a weight for every target, or for none",
        ),
        (
            service("targets: [{name: m}, {name: m}]"),
            "pools[0].services[0].targets[1].name",
            "already at",
        ),
        (
            "backends: ['http://a:1']\nmax_body_size: 2GiB\nmax_body_memory: 1GiB",
            "max_body_memory",
            "at least max_body_size",
        ),
        (
            "backends: ['http://a:1']\neject_time: 9s",
            "eject_time",
            "at most eject_max_time",
        ),
        (
            "pools: [{name: p, servers: ['http://a:1'], eject_max_time: 500ms}]",
            "pools[0].eject_time",
            "at most eject_max_time",
        ),
        (
            "journal: j\npools: [{name: p, servers: ['http://a:1']}, {name: a/b}]",
            "pools[1].name",
            "no slash",
        ),
        (
            service('model: "a\\nb"'),
            "pools[0].services[0].model",
            "without control characters",
        ),
        (
            service(f"model: {'x' * 513}"),
            "pools[0].services[0].model",
            "at most 512",
        ),
        (
            service("x: 1").replace("name: s, x: 1", "name: default"),
            "pools[0].services[0].name",
            "stands for models without a service",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    write_config: WriteConfig, text: str, key: str, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_file(write_config(text))
    (problem,) = refused.value.problems
    assert problem.key == key
    assert expected in problem.text


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("", "pools[0].servers", "no servers"),
        (
            service("targets: [{name: m, weight: 0}, {name: n, weight: 0}]"),
            "pools[0].services[0].targets",
            "every weight is 0",
        ),
        (
            service("priority: Critical, max_queue_wait: 5s"),
            "pools[0].services[0].max_queue_wait",
            "without effect",
        ),
        (
            "pools: [{name: p, servers: ['http://a:1'], accept_unregistered_models: false}]",
            "pools[0]",
            "nothing to serve",
        ),
        (
            "backends: ['http://a:1']\nmargin_critical: 0.7\nmargin_non_critical: 0.8",
            "pools[0].margin_non_critical",
            "start where Critical ones wait",
        ),
    ],
)
def test_what_is_hardly_meant_is_warned_of(
    write_config: WriteConfig, text: str, key: str, expected: str
) -> None:
    (warning,) = warnings(load_file(write_config(text)))
    assert warning.key == key
    assert expected in warning.text


def test_a_sound_configuration_gives_no_warning(write_config: WriteConfig) -> None:
    assert warnings(load_file(write_config(TWO_POOLS))) == []
