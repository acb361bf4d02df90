"""What is measured: how each gateway, router or proxy is started in front of the same servers."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from benchmarks.overhead.programs import MODEL

DIRECT = "direct"
OURS = "ours"
"""As the container has it: the wheel with compiled modules, in an environment of its own."""
INTERPRETED = "ours-interpreted"
"""This checkout as plain Python."""
PEERS = {
    "vllm-router": "vllm-router",
    "sglang-router": "sglang-router",
    "smg": "smg",
    "litellm": "litellm[proxy]",
}
"""Peers and what their environment is made of; `python -m benchmarks.overhead set-up` makes it."""
NAMES = (DIRECT, "nginx", "haproxy", *PEERS, OURS, INTERPRETED)
SOURCE_STATE = "source-state"
"""File in the environment of `ours`: `source_state` when it was made."""
DEBIAN = "debian"
"""Folder beside those environments for proxies that the system does not have installed."""
SLOW = frozenset({"litellm"})
"""They get fewer streams, or nothing but their backlog would be measured."""

_PROJECT = Path(__file__).parents[2]
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # loopback only, for this run
    "OTEL_SDK_DISABLED": "true",
    "NO_PROXY": "*",
}
_MOST_STREAMS_PER_SERVER = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a system under test runs: its files, its port and the servers behind it."""

    folder: Path
    port: int
    side_port: int
    servers: tuple[int, ...]

    @property
    def urls(self) -> list[str]:
        """Addresses of the servers."""
        return [f"http://127.0.0.1:{port}" for port in self.servers]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One program to measure; an empty command is none at all: the servers themselves."""

    name: str
    version: str
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class NotThere(Exception):  # noqa: N818 (what is not installed is skipped)
    """The system cannot be measured here; the message says why."""


def make_system(name: str, site: Site, *, peers: Path, checkouts: dict[str, Path]) -> System:
    """Write the configuration of a system and say how it is started.

    Args:
        name: one of NAMES or of `checkouts`.
        site: where it runs.
        peers: folder of the peers' environments.
        checkouts: further checkouts of this project, by the name they are shown under.

    Raises:
        NotThere: it is not installed.
    """
    if name == DIRECT:
        return System(name=name, version="no proxy: the fake servers themselves")
    if name in ("nginx", "haproxy"):
        return _proxy(name, site, peers)
    if name in PEERS:
        return _peer(name, site, peers)
    if name == OURS:
        return _compiled(site, peers)
    if name == INTERPRETED:
        return _gateway(name, site, _PROJECT, Path(sys.executable))
    folder = checkouts[name].resolve()
    return _gateway(name, site, folder, folder / ".venv" / "bin" / "python")


def source_state(project: Path = _PROJECT) -> str:
    """A checksum of all that goes into the wheel, and of the Python that it is for."""
    digest = hashlib.sha256((project / "pyproject.toml").read_bytes())
    digest.update(sys.version.encode())
    for source in sorted((project / "gateway").rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _compiled(site: Site, peers: Path) -> System:
    state = peers / OURS / SOURCE_STATE
    if not state.exists() or state.read_text() != source_state():
        raise NotThere(
            "no wheel of these sources for this Python: python -m benchmarks.overhead set-up"
        )
    found = (peers / OURS).glob("lib/python3*/site-packages")
    system = _gateway(OURS, site, next(found), peers / OURS / "bin" / "python")
    return replace(system, version=f"{_commit(_PROJECT)}, compiled")


def _proxy(name: str, site: Site, peers: Path) -> System:
    unpacked = peers / DEBIAN / "usr"
    places = f"{os.environ['PATH']}:/usr/sbin:{unpacked / 'sbin'}"
    program = shutil.which(name, path=places)
    if program is None:
        raise NotThere(f"{name} is not installed: python -m benchmarks.overhead set-up")
    libraries = ":".join(str(folder) for folder in (unpacked / "lib").glob("*-linux-gnu"))
    environment = {"LD_LIBRARY_PATH": libraries}
    config = site.folder / f"{name}.conf"
    if name == "nginx":
        config.write_text(_nginx(site))
        command = (program, "-c", str(config), "-p", str(site.folder), "-e", "nginx.log")
    else:
        config.write_text(_haproxy(site))
        command = (program, "-f", str(config))
    version = _output([program, "-v"], environment).splitlines()[0]
    return System(name=name, version=version, command=command, environment=environment)


def _peer(name: str, site: Site, peers: Path) -> System:
    programs = peers / name / "bin"
    if not (programs / "python").exists():
        raise NotThere(f"no environment {peers / name}: python -m benchmarks.overhead set-up")
    query = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    version = _output([str(programs / "python"), "-c", query, name]).strip()
    address = ["--host", "127.0.0.1", "--port", str(site.port)]
    if name == "litellm":
        config = site.folder / "litellm.yaml"
        config.write_text(_litellm(site))
        command = [str(programs / name), "--config", str(config), *address]
    else:
        launch = [] if name == "vllm-router" else ["launch"]
        command = [
            *(str(programs / name), *launch, "--worker-urls", *site.urls, *address),
            *("--policy", "round_robin", "--log-level", "warn" if launch else "error"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(site.side_port)),
            *("--max-concurrent-requests", "100000"),
        ]
        if name == "smg":
            command.append("--disable-tokenizer-autoload")
    return System(name=name, version=version, command=tuple(command), environment=_QUIET)


def _gateway(name: str, site: Site, checkout: Path, python: Path) -> System:
    """Ours, as shipped: scheduling, metrics and request log on.

    Only the bounds are wide: no engine is behind the servers, and they are to take every stream.
    """
    config = site.folder / "gateway.yaml"
    config.write_bytes(orjson.dumps(_settings(site)))  # JSON is YAML
    command = (str(python), "-m", "gateway", "serve", "--config", str(config))
    return System(
        name=name,
        version=_commit(checkout),
        command=command,
        environment={"PYTHONPATH": str(checkout)},
    )


def _commit(checkout: Path) -> str:
    return _output(["git", "-C", str(checkout), "describe", "--always", "--dirty"]).strip()


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout or done.stderr


def _settings(site: Site) -> dict[str, object]:
    return {
        "host": "127.0.0.1",
        "port": site.port,
        "admin_port": site.side_port,
        "pools": [
            {
                "name": "bench",
                "servers": site.urls,
                "max_requests_per_backend": _MOST_STREAMS_PER_SERVER,
                "default_objective": {"ttft": "60s", "tpot": "10s"},
            }
        ],
    }


def _nginx(site: Site) -> str:
    servers = "".join(f"server 127.0.0.1:{port}; " for port in site.servers)
    folders = "".join(
        f"{kind}_temp_path {site.folder}/{kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off; worker_processes 1; worker_rlimit_nofile 20000;
pid {site.folder}/nginx.pid; error_log {site.folder}/nginx.log crit;
events {{ worker_connections 19900; }}
http {{
    access_log off; {folders}
    client_max_body_size 64m; client_body_buffer_size 2m; keepalive_requests 1000000000;
    upstream servers {{ {servers} keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{site.port} backlog=4096;
        location / {{
            proxy_pass http://servers; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _haproxy(site: Site) -> str:
    servers = "\n".join(f"    server s{port} 127.0.0.1:{port}" for port in site.servers)
    return f"""
global
    nbthread 1
    maxconn 9900
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    option http-no-delay
frontend clients
    bind 127.0.0.1:{site.port}
    default_backend servers
backend servers
    http-reuse always
{servers}
"""


def _litellm(site: Site) -> str:
    models = "\n".join(
        f"  - model_name: {MODEL}\n    litellm_params: "
        f"{{model: hosted_vllm/{MODEL}, api_base: {url}/v1, api_key: none}}"
        for url in site.urls
    )
    return f"model_list:\n{models}\nlitellm_settings: {{telemetry: false, num_retries: 0}}\n"
