from pathlib import Path

import pytest

from gateway.settings.loading import load_settings
from gateway.settings.problems import ConfigurationError, Problem, fault, hint, key_path


def test_a_key_path_shows_positions_in_brackets() -> None:
    assert key_path(("pools", 0, "services", 12, "name")) == "pools[0].services[12].name"


def test_an_error_lists_each_problem_on_a_line() -> None:
    error = ConfigurationError([Problem("f.yaml", "a", "wrong"), Problem("", "b", "missing")])
    assert str(error) == "f.yaml: a: wrong\nb: missing"


def test_a_fault_without_key_names_only_its_source() -> None:
    assert str(fault("f.yaml", "", "unreadable")) == "f.yaml: unreadable"


def test_a_name_like_none_of_the_known_gives_no_hint() -> None:
    assert hint("zzz", ["port", "host"]) == ""


def test_a_secret_is_not_shown_when_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("upstream_api_key: 123456", encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, path)
    assert "123456" not in str(refused.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings({"port": "9" * 500 + "x"})
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pools: 3", "pools: 3: expected a list"),
        ("pools: [3]", "pools[0]: 3: expected keys with values"),
    ],
)
def test_a_value_of_the_wrong_shape_is_told_in_words_of_the_file(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_settings({}, path)
    assert str(refused.value) == f"{path}: {said}"
