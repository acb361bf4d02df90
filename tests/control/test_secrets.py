"""Canaries: no secret shows anywhere in what the gateway writes, answers or passes on."""

import json
import logging
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.settings.loading import load_file
from gateway.settings.problems import ConfigurationError
from gateway.settings.rendering import effective_configuration
from gateway.settings.schema import Settings
from tests.control.running import ModelServer, RunningGateway, eventually, pool, ready, running
from tests.server.gateway_rig import CHAT, chat
from tests.server.raw_client import RawResponse

CLIENT = "sk-canary-client"
UNKNOWN = "sk-canary-unknown"
UPSTREAM = "sk-canary-upstream"
ADMIN = "sk-canary-admin"
PROMPT = "canary-prompt"
DIGEST = sha256(CLIENT.encode()).hexdigest()


def with_secrets(server: ModelServer, folder: Path, **keys: object) -> Settings:
    return Settings.model_validate(
        {
            "host": "127.0.0.1",
            "port": 0,
            "admin_port": 0,
            "health_interval": "5ms",
            "metrics_interval": "5ms",
            "request_log": folder / "requests.jsonl",
            "journal": folder / "journal.jsonl",
            "api_keys": [{"name": "team", "sha256": DIGEST}],
            "admin_api_key": ADMIN,
            "debug_headers": True,
            "pools": [pool(server, upstream_api_key=UPSTREAM)],
            **keys,
        }
    )


async def answers(gateway: RunningGateway) -> list[bytes]:
    """What clients and administrators are shown, in good cases and bad ones."""
    shown: list[RawResponse] = []
    bodies = (chat(messages=[{"role": "user", "content": PROMPT}]), chat(model="absent"), b"{")
    for key in (CLIENT, UNKNOWN):
        for body in bodies:
            async with gateway.client() as client:
                client.post(CHAT, body, f"Authorization: Bearer {key}", "X-Request-Id: known")
                shown.append(await client.response())
    async with gateway.client() as client:
        client.get("/v1/models", f"x-api-key: {CLIENT}")
        shown.append(await client.response())
    for path in ("/metrics", "/debug/state", "/debug/requests/known", "/admin/servers",
                 "/admin/services", "/absent"):  # fmt: skip
        for key in (ADMIN, UNKNOWN):
            async with gateway.admin() as admin:
                admin.get(path, f"Authorization: Bearer {key}")
                shown.append(await admin.response())
    assert {each.status for each in shown} >= {200, 400, 401, 404}
    return [repr(each.headers).encode() + each.body for each in shown]


async def test_no_secret_shows_in_answers_logs_metrics_or_journal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with ModelServer() as server:
        settings = with_secrets(server, tmp_path)
        async with running(settings) as gateway:
            await ready(gateway)
            written = await answers(gateway)
            gateway.loaded = with_secrets(server, tmp_path, admin_api_key=ADMIN + "-new")
            gateway.configuration.reload()
    written.append(caplog.text.encode())
    written.append(effective_configuration(settings).encode())
    written += [(tmp_path / name).read_bytes() for name in ("requests.jsonl", "journal.jsonl")]
    text = b"".join(written)
    for secret in (CLIENT, UNKNOWN, UPSTREAM, ADMIN, PROMPT, DIGEST):
        assert secret.encode() not in text, secret
    log = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in log} == {"team", None}


@pytest.mark.parametrize(
    "text",
    [
        f"upstream_api_key: [{UPSTREAM}]",
        f"admin_api_key: {{key: {ADMIN}}}",
        f"pools: {{name: p, upstream_api_key: {UPSTREAM}}}",
        f"pools: [{{upstream_api_key: {UPSTREAM}, sevices: 1}}]",
        f"api_keys: [{{name: a, sha256: {CLIENT}}}]",
        f"api_keys: {CLIENT}",
        f"api_keys: [{{name: a, sha256: [{CLIENT}, {DIGEST}]}}]",
        f"backends: ['http://user:{UPSTREAM}@a:1']",
        f"backends: ['http://{UPSTREAM}@a:1']",
    ],
)
def test_no_secret_shows_in_what_is_wrong_with_a_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_file(path)
    for secret in (CLIENT, UPSTREAM, ADMIN):
        assert secret not in str(caught.value)


async def test_the_clients_key_stays_here_and_servers_get_theirs_polls_too(tmp_path: Path) -> None:
    async with ModelServer() as server, running(with_secrets(server, tmp_path)) as gateway:
        await ready(gateway)
        await answers(gateway)
        await eventually(lambda: server.answered)
    sent = {request.header("authorization") for request in server.requests}
    assert sent == {f"Bearer {UPSTREAM}"}
    assert {request.header("x-api-key") for request in server.requests} == {None}
