import shutil
import ssl
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.__main__ import main
from gateway.scheduling.model import ServiceName
from gateway.settings.checks import warnings
from gateway.settings.loading import load_file, load_settings
from gateway.settings.policies import forwarding_policy, key_policies
from gateway.settings.problems import ConfigurationError
from gateway.settings.schema import Settings
from gateway.settings.tls import client_side_context, server_side_context
from gateway.wire.http_headers import CredentialPolicy

TLS = Path(__file__).parents[1] / "server" / "tls"
DIGEST = sha256(b"sk-1").hexdigest()
POOL = "pools: [{name: p, servers: ['http://a:1'], services: [{name: s}]}]\n"

pytestmark = pytest.mark.usefixtures("clean_environment")


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "gateway.yaml"
    path.write_text(POOL + text)
    return load_file(path)


def problem(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return str(caught.value)


def test_a_key_may_have_two_digests_services_and_limits(tmp_path: Path) -> None:
    other = "ab" * 32
    settings = loaded(
        tmp_path,
        f"api_keys: [{{name: k, sha256: [{DIGEST}, {other.upper()}], services: [s, default],"
        " requests_per_minute: 60, tokens_per_minute: 1000}]",
    )
    (policy,) = key_policies(settings)
    assert policy.digests == (bytes.fromhex(DIGEST), bytes.fromhex(other))
    assert policy.services == frozenset(map(ServiceName, ("s", "default")))
    assert (policy.requests_per_minute, policy.tokens_per_minute) == (60, 1_000)
    assert settings.requires_keys


def test_keys_of_a_file_of_their_own_are_added(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(f"api_keys: [{{name: b, sha256: {'cd' * 32}}}]")
    settings = loaded(
        tmp_path,
        f"api_keys: [{{name: a, sha256: {DIGEST}}}]\napi_keys_file: {tmp_path / 'keys.yaml'}",
    )
    assert [policy.name for policy in key_policies(settings)] == ["a", "b"]


def test_an_empty_file_of_keys_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("")
    settings = loaded(tmp_path, f"api_keys_file: {tmp_path / 'keys.yaml'}")
    assert settings.requires_keys
    assert key_policies(settings) == []


def test_keys_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_API_KEYS", f'[{{"name": "k", "sha256": "{DIGEST}"}}]')
    assert [policy.name for policy in key_policies(load_settings({}))] == ["k"]


def test_keys_in_the_environment_that_are_no_json_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_API_KEYS", "sk-secret")
    with pytest.raises(ConfigurationError, match="GATEWAY_API_KEYS: expected JSON") as caught:
        load_settings({})
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api_keys: [{name: k, sha256: abc}]", "64 hex digits that `llm-gateway make-key` prints"),
        (f"api_keys: [{{name: 'a b', sha256: {DIGEST}}}]", "api_keys[0].name: 'a b'"),
        (f"api_keys: [{{name: k, sha256: {DIGEST}, services: [x]}}]", "'x': no such service"),
        (
            f"api_keys: [{{name: k, sha256: {DIGEST}}}, {{name: l, sha256: {DIGEST}}}]",
            "the same key as api_keys[0].sha256[0]",
        ),
        (
            f"api_keys: [{{name: k, sha256: {DIGEST}}}, {{name: k, sha256: {'ab' * 32}}}]",
            "'k': already at api_keys[0].name",
        ),
        ("api_keys_file: absent.yaml", "absent.yaml: cannot be read"),
        (f"tls_certificate: {TLS / 'certificate.pem'}", "expected tls_key beside it"),
        ("admin_tls: true", "expected tls_certificate and tls_key beside it"),
        (
            f"tls_certificate: absent.pem\ntls_key: {TLS / 'key.pem'}",
            "tls_certificate: absent.pem: cannot be read: No such file",
        ),
        (
            f"tls_certificate: {TLS / 'key.pem'}\ntls_key: {TLS / 'key.pem'}",
            "expected certificates and an unencrypted key in PEM that match",
        ),
        ("upstream_tls_ca: absent.pem", "upstream_tls_ca: absent.pem: cannot be read"),
    ],
)
def test_what_is_wrong_is_told_at_its_key(text: str, said: str, tmp_path: Path) -> None:
    assert said in problem(tmp_path, text)


def test_where_keys_are_needed_they_are_not_passed_on() -> None:
    (pool,) = Settings().effective_pools()
    assert forwarding_policy(pool).credentials is CredentialPolicy.FORWARD
    assert forwarding_policy(pool, requires_keys=True).credentials is CredentialPolicy.DROP


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("admin_host: 0.0.0.0", True),
        ("admin_host: 0.0.0.0\nadmin_api_key: k", False),
        ("admin_host: localhost", False),
        ("admin_host: ::1", False),
        ("upstream_tls_verify: false", True),
    ],
)
def test_what_leaves_a_door_open_is_warned_of(
    text: str,
    warned: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    assert bool(warnings(loaded(tmp_path, text))) is warned


def test_servers_are_verified_unless_that_is_turned_off() -> None:
    (pool,) = Settings(upstream_tls_ca=TLS / "certificate.pem").effective_pools()
    assert server_side_context(pool).verify_mode is ssl.CERT_REQUIRED
    (pool,) = Settings(upstream_tls_verify=False).effective_pools()
    assert server_side_context(pool).verify_mode is ssl.CERT_NONE


def test_a_client_certificate_is_shown_to_servers(tmp_path: Path) -> None:
    shutil.copy(TLS / "certificate.pem", tmp_path)
    (pool,) = Settings(
        upstream_tls_certificate=tmp_path / "certificate.pem", upstream_tls_key=TLS / "key.pem"
    ).effective_pools()
    assert server_side_context(pool).get_ca_certs() is not None


def test_without_a_certificate_there_is_no_tls() -> None:
    assert client_side_context(Settings()) is None


def test_a_new_key_is_printed_with_its_entry(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["make-key", "team", "--services", "s", "--requests-per-minute", "5"]) == 0
    printed = capsys.readouterr().out
    key = printed.split("\n")[0].rpartition(" ")[2]
    (policy,) = key_policies(loaded(tmp_path, printed))
    assert policy.digests == (sha256(key.encode()).digest(),)
    assert policy.services == frozenset({ServiceName("s")})
    assert policy.requests_per_minute == 5
    assert key.startswith("sk-")
    assert len(key) >= 40


def test_a_key_that_would_not_be_valid_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-key", "a b"]) == 2
    assert "name: 'a b'" in capsys.readouterr().err
