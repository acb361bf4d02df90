"""All that users get wrong, in one list: each ends in a clear line, or in the right status."""

import json
import subprocess
import sys
from pathlib import Path
from socket import create_server

import aiohttp
import pytest

from tests.live.in_process_site import site_in_process

SERVERS = "servers: ['http://127.0.0.1:9']"
SERVICE = "{name: p, " + SERVERS + ", services: [%s]}"

pytestmark = pytest.mark.usefixtures("clean_environment")


def ended(*arguments: str) -> tuple[int, str]:
    """Run the program as a user does; return its status and its last line."""
    process = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in process.stderr
    return process.returncode, process.stderr.rstrip().split("\n")[-1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--bakends", "http://a:1"], "unknown argument --bakends; did you mean --backends?"),
        (["--port", "http"], "--port: 'http': expected a valid integer"),
        (["--queue-timeout", "5 bananas"], "--queue-timeout: '5 bananas': expected a duration"),
        (["--backends", "gpu-1:8000"], "backends[0]: 'gpu-1:8000': expected a URL with scheme"),
        ([], "no servers; expected --backends"),
    ],
    ids=["unknown flag", "port", "duration", "URL without scheme", "no servers"],
)
def test_wrong_flags_end_in_one_clear_line(arguments: list[str], line: str) -> None:
    status, said = ended(*arguments)
    assert status == 2
    assert line in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"pools: [{{name: p, {SERVERS}, sevices: []}}]", "pools[0].sevices: unknown key; did you"),
        (
            f"pools: [{SERVICE % '{name: s, targets: [{name: m, weight: -1}]}'}]",
            "targets[0].weight: -1: expected greater than or equal to 0",
        ),
        (
            f"pools: [{SERVICE % '{name: s}, {name: s, model: m}'}]",
            "services[1].name: 's': already at pools[0].services[0].name",
        ),
        ("backends: [gpu-1:8000]", "backends[0]: 'gpu-1:8000': expected a URL with scheme"),
        ("port: [", "not valid YAML"),
    ],
    ids=["unknown key", "negative weight", "service twice", "URL without scheme", "not YAML"],
)
def test_a_wrong_file_ends_in_one_clear_line(text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    status, said = ended("--config", str(path))
    assert status == 2
    assert said.startswith(f"llm-gateway: {path}")
    assert line in said


def test_an_occupied_port_ends_in_one_clear_line() -> None:
    with create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, said = ended("--backends", "http://127.0.0.1:9", "--host", "127.0.0.1",
                             "--port", port, "--admin-port", "0")  # fmt: skip
    assert status == 2
    assert f"{port}): address already in use: choose another with --port" in said


CHAT = json.dumps({"model": "base", "messages": [{"role": "user", "content": "hello"}]})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "chat/completions", "{", 400, "JSON"),
        ("POST", "chat/completions", "[]", 400, "JSON object"),
        ("POST", "chat/completions", "", 400, "JSON"),
        ("POST", "chat/completions", '{"messages": []}', 400, "model"),
        ("POST", "chat/completions", '{"model": 7}', 400, "model"),
        ("POST", "chat/completions", '{"model": "nope"}', 404, "nope"),
        ("POST", "chat/completions", f'{{"model": "{"x" * 3_000}"}}', 413, "large"),
        ("POST", "load_lora_adapter", CHAT, 403, "Adapters"),
        ("GET", "chat/completions", "", 405, "method"),
    ],
    ids=[
        *("not JSON", "not an object", "empty", "without model", "model not text"),
        *("unknown model", "too large", "loading an adapter", "wrong method"),
    ],
)
async def test_wrong_requests_get_the_right_status_and_a_reason(
    method: str, path: str, body: str, status: int, message: str
) -> None:
    async with (
        site_in_process(servers=1, settings={"max_body_size": 2_048}) as site,
        site.http.request(
            method,
            f"http://127.0.0.1:{site.port}/v1/{path}",
            data=body,
            headers={"content-type": "application/json"},
        ) as response,
    ):
        answer = await response.json()
        assert (response.status, answer["error"]["code"]) == (status, status)
        assert message in answer["error"]["message"]


async def test_without_a_server_there_is_a_503_that_says_when_to_come_again() -> None:
    async with (
        site_in_process(servers=1, settings={"queue_timeout": 0.05}) as site,
        aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as http,
    ):
        await site.recorders[0].stop()
        async with http.get("/ready") as response:
            while response.status == 200:
                response = await http.get("/ready")  # noqa: PLW2901
        async with http.post("/v1/chat/completions", data=CHAT) as response:
            assert response.status == 503
            assert int(response.headers["retry-after"]) >= 1
            assert "server" in (await response.json())["error"]["message"]
