import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def welcome() -> Iterator[list[str]]:
    """The paragraphs that a running demo printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--port", "0", "--admin-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as demo:
        try:
            assert demo.stdout is not None
            lines = []
            for line in demo.stdout:
                lines.append(line)
                if line == "SNIPPET\n":
                    break
            yield "".join(lines).split("\n# ")
        finally:
            demo.send_signal(signal.SIGINT)
            assert demo.wait(timeout=10) == 0


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
