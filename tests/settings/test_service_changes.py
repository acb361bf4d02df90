import pytest

from gateway.settings.problems import ConfigurationError
from gateway.settings.schema import ServiceSettings, Settings
from gateway.settings.service_changes import ServiceChange, with_service_changes

SETTINGS = Settings.model_validate(
    {
        "pools": [
            {
                "name": "p",
                "servers": ["http://a:1"],
                "services": [
                    {"name": "chat", "objective": {"ttft": "1s"}, "fairness_weight": 2},
                    {"name": "batch"},
                ],
            }
        ]
    }
)


def changed(change: ServiceChange, service: str = "chat") -> ServiceSettings:
    settings = with_service_changes(SETTINGS, {service: change}, source="test")
    found = {each.name: each for each in settings.pools[0].services}
    return found[service]


def test_a_change_leaves_the_other_keys_and_services_alone() -> None:
    settings = with_service_changes(SETTINGS, {"chat": {"priority": 5}}, source="test")
    chat, batch = settings.pools[0].services
    assert (chat.priority, chat.fairness_weight, chat.model) == (5, 2, "chat")
    assert batch == SETTINGS.pools[0].services[1]


def test_values_are_written_as_in_a_file() -> None:
    objective = changed({"objective": {"tpot": "50ms", "percentile": "p90"}}).objective
    assert objective is not None
    assert (objective.ttft, objective.tpot, objective.percentile) == (None, 0.05, 0.9)


def test_none_is_the_default_again() -> None:
    assert changed({"fairness_weight": None}).fairness_weight == 1


def test_a_priority_that_was_never_set_follows_the_objective() -> None:
    assert changed({"objective": None}).priority == -1
    assert changed({"objective": {"ttft": "1s"}}, service="batch").priority == 0


def test_a_service_that_is_not_there_changes_nothing() -> None:
    assert with_service_changes(SETTINGS, {"none": {"priority": 1}}, source="test") is SETTINGS


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"priority": "high"}, "test: pools[0].services[0].priority: 'high': expected Critical"),
        ({"model": "x"}, "test: pools[0].services[0].model: expected one of fairness_weight,"),
        ({"objective": {"ttf": 1}}, "objective.ttf: unknown key; did you mean ttft?"),
        ({"objective": {}}, "objective: expected at least one of ttft, tpot, ntpot"),
        ({"targets": [{"name": "a"}, {"name": "a"}]}, "targets[1].name: 'a': already at"),
        ({"targets": [{"name": "a", "weight": -1}]}, "targets[0].weight: -1: expected"),
    ],
)
def test_a_change_is_refused_as_it_would_be_in_a_file(change: ServiceChange, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        changed(change)
    assert text in str(refused.value)
