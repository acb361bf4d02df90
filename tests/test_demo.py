import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]


@contextmanager
def running_demo(*flags: str, until: str) -> Iterator[str]:
    """A running demo, ended by Ctrl-C; what it printed up to a line that begins so."""
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--port", "0", "--admin-port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as demo:
        try:
            assert demo.stdout is not None
            lines = []
            for line in demo.stdout:
                lines.append(line)
                if line.startswith(until):
                    break
            yield "".join(lines)
        finally:
            demo.send_signal(signal.SIGINT)
            _, complaints = demo.communicate(timeout=10)
            assert (demo.returncode, complaints) == (0, "")


@pytest.fixture(scope="module")
def welcome() -> Iterator[list[str]]:
    """The paragraphs that a running demo printed."""
    with running_demo(until="SNIPPET\n") as printed:
        yield printed.split("\n# ")


def pasted(paragraph: str) -> str:
    """The output of a paragraph's lines in a shell."""
    return subprocess.run(
        ["sh", "-ec", f"# {paragraph}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    ).stdout


def test_the_url_is_printed(welcome: list[str]) -> None:
    assert "The gateway serves http://127.0.0.1:" in welcome[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_line_works_as_pasted(welcome: list[str]) -> None:
    answer = pasted(welcome[1])
    assert answer.startswith("data: {")
    assert '"model":"adapter-1"' in answer
    assert answer.endswith("data: [DONE]\n\n")


def test_the_snippet_for_the_openai_package_works_as_pasted(welcome: list[str]) -> None:
    assert len(pasted(welcome[2]).split()) > 20


def test_clients_of_every_service_come_where_traffic_is_asked_for() -> None:
    with running_demo("--traffic", "40", "--speed", "20", until="Clients send") as printed:
        assert "Clients send 40 requests per second" in printed
        found = re.search(r"Watch it: (\S+)/ ", printed)
        assert found is not None
        until = time.monotonic() + 20
        services: dict[str, Any] = {}
        while time.monotonic() < until and min(services.values(), default=0) == 0:
            with urlopen(f"{found[1]}/live/state") as answer:
                (pool,) = json.load(answer)["pools"]
            services = {each["service"]: each["judged_total"] for each in pool["services"]}
            services.pop("default")
            time.sleep(0.005)
    assert sorted(services) == ["chat", "code", "search", "summaries", "support"]
    assert all(services.values()), services
