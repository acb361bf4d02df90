from collections import Counter
from math import sqrt
from random import Random

import pytest

from gateway.scheduling.model import LLMServerPool, LLMService, ServiceName, is_critical
from gateway.scheduling.service_directory import DEFAULT_SERVICE, ServiceDirectory
from tests.builders import make_service


def directory(*services: LLMService, accept_unregistered: bool = True) -> ServiceDirectory:
    pool = LLMServerPool(
        name="pool", services=services, accept_unregistered_models=accept_unregistered
    )
    return ServiceDirectory(pool=pool, rng=Random(11))


def draws(count: int, *targets: tuple[str, float]) -> Counter[str | None]:
    service = make_service("chat", targets=targets)
    found = directory(service)
    return Counter(found.draw_target(service, "chat") for _ in range(count))


def test_a_service_is_found_by_its_name() -> None:
    chat = make_service("chat")
    assert directory(chat).find(ServiceName("chat")) is chat
    assert directory(chat).find(ServiceName("unheard-of")) is None


def test_unregistered_models_are_non_critical_where_they_are_accepted() -> None:
    default = directory().find(DEFAULT_SERVICE)
    assert default is not None
    assert not is_critical(default.priority)
    assert directory(accept_unregistered=False).find(DEFAULT_SERVICE) is None


def test_a_configured_default_service_goes_before_the_built_in_one() -> None:
    mine = make_service(DEFAULT_SERVICE, priority=3)
    assert directory(mine, accept_unregistered=False).find(DEFAULT_SERVICE) is mine


def test_a_reload_replaces_the_services() -> None:
    found = directory(make_service("old"))
    found.reconfigure(LLMServerPool(name="pool", services=(make_service("new"),)))
    assert found.find(ServiceName("old")) is None
    assert found.find(ServiceName("new")) is not None


def test_without_targets_the_clients_model_is_sent() -> None:
    service = LLMService(name=ServiceName("chat"), model="m")
    assert directory(service).draw_target(service, "m") == "m"


def test_a_single_target_is_sent_whatever_its_weight() -> None:
    assert draws(3, ("v1", 0.001)) == {"v1": 3}


@pytest.mark.parametrize(
    "weights", [(90.0, 10.0), (0.9, 0.1), (1.0, 1.0), (1.0, 2.0, 3.0), (5.0, 0.0, 5.0)]
)
def test_targets_share_the_traffic_by_weight_within_three_sigma(weights: tuple[float, ...]) -> None:
    requests = 10_000
    found = draws(requests, *((f"v{number}", weight) for number, weight in enumerate(weights)))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        three_sigma = 3 * sqrt(requests * share * (1 - share))
        assert abs(found[f"v{number}"] - requests * share) <= three_sigma


@pytest.mark.parametrize("weights", [(0.0,), (0.0, 0.0)])
def test_without_any_weight_there_is_no_target(weights: tuple[float, ...]) -> None:
    assert draws(3, *((f"v{number}", weight) for number, weight in enumerate(weights))) == {None: 3}


class _AlmostOne(Random):
    """Draws the largest value that random() can give."""

    def random(self) -> float:
        return 1.0 - 2.0**-53


def test_a_draw_that_rounding_puts_past_the_end_goes_to_the_last_weighted_target() -> None:
    service = make_service("chat", targets=[("a", 0.1), ("b", 0.2), ("c", 0.3), ("off", 0.0)])
    found = ServiceDirectory(pool=LLMServerPool(name="pool"), rng=_AlmostOne())
    assert found.draw_target(service, "chat") == "c"
