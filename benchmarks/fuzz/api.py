"""Requests made from the gateway's own description: `python -m benchmarks.fuzz.api [EXAMPLES]`.

A gateway in front of simulated servers gets them; no answer may be a failure of the gateway, or of
a shape that is not described.
"""

import asyncio
import sys
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case

from gateway.server.openapi import api_description

_WORKS = frozenset({502, 503, 504})
"""What a gateway may say of its servers; 500 it may not."""


def ask_everything(urls: dict[str, str], *, examples: int, key: str | None = None) -> Counter[str]:
    """Ask every operation of each listener `examples` times at most.

    Args:
        urls: base URL by tag: clients, administration.
        examples: for each operation, good ones and bad ones together.
        key: is shown to both listeners.

    Returns:
        Answers by operation and status.

    Raises:
        AssertionError: names the request that got an answer it should not.
    """
    schema = schemathesis.openapi.from_dict(_on_loopback(api_description()))
    answers: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        definition: Any = operation.definition.raw
        for tag in definition["tags"]:
            _ask(operation, urls[tag], examples, key, answers)
    return answers


def _on_loopback(description: dict[str, Any]) -> dict[str, Any]:
    """The description with servers of this machine only: no name is to be looked up."""
    body = description["paths"]["/admin/servers"]["post"]["requestBody"]
    fields = body["content"]["application/json"]["schema"]["properties"]
    fields["url"] = {"type": "string", "pattern": r"^http://127\.0\.0\.1:[1-9][0-9]{2}$"}
    return description


def _ask(operation: Any, url: str, examples: int, key: str | None, answers: Counter[str]) -> None:  # noqa: ANN401 - schemathesis has no public type for it
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    modes = schemathesis.GenerationMode

    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=modes.NEGATIVE))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case) -> None:
        response = case.call(base_url=url, headers=headers, timeout=10)
        status = response.status_code
        answers[f"{operation.label} {status}"] += 1
        said = f"{operation.label}: {status} {response.content[:300]!r} to {case.as_curl_command()}"
        assert status < 500 or status in _WORKS, said
        if status >= 400:
            error = response.json()["error"] if response.content else {"message", "type", "code"}
            assert {"message", "type", "code"} <= set(error), said

    ask()


async def _main(examples: int) -> None:
    from tests.live.in_process_site import site_in_process  # noqa: PLC0415 - needs a checkout

    async with site_in_process(servers=1, settings={"queue_timeout": 0.2}, longest_s=3_600) as site:
        urls = {"clients": f"http://127.0.0.1:{site.port}", "administration": site.admin_url}
        answers = await asyncio.to_thread(ask_everything, urls, examples=examples)
    for label, count in sorted(answers.items()):
        print(f"{count:7} {label}")
    print(f"{sum(answers.values()):7} requests, none answered by a failure of the gateway")


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
