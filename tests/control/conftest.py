import pytest


@pytest.fixture(autouse=True)
def only_own_variables(clean_environment: None) -> None:
    """Settings read the environment, so each of these tests sets its own."""
