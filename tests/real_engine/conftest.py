"""Tests against real vLLM servers; scripts/test-engine starts those and runs these.

`GATEWAY_REAL_ENGINE_URLS` names the servers (comma-separated), `GATEWAY_URL` what to test: a
gateway in front of them, or one of them. `GATEWAY_REAL_ENGINE_PIDS` lets the test that kills them.
Without the servers nothing here is collected.
"""

import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
from openai import AsyncOpenAI

from tests.real_engine.engines import Engines

_ENGINE_URLS = os.environ.get("GATEWAY_REAL_ENGINE_URLS", "")

collect_ignore_glob = [] if _ENGINE_URLS else ["test_*.py"]
if not os.environ.get("GATEWAY_REAL_ENGINE_PIDS"):
    collect_ignore_glob.append("test_kills.py")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_engine: talks to real vLLM servers")


@pytest.fixture
def gateway_url() -> str:
    return os.environ["GATEWAY_URL"]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        yield session


@pytest.fixture
async def client(gateway_url: str) -> AsyncIterator[AsyncOpenAI]:
    """The official client as its users have it, but without its retries, which hide faults."""
    async with AsyncOpenAI(
        base_url=f"{gateway_url}/v1", api_key="unused", max_retries=0, timeout=120
    ) as client:
        yield client


@pytest.fixture
async def engines(http: aiohttp.ClientSession) -> Engines:
    """The servers, idle: what an earlier test left behind would falsify the counts."""
    engines = Engines(urls=tuple(_ENGINE_URLS.split(",")), http=http)
    await engines.become_idle(within_s=30.0)
    return engines
