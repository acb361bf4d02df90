"""The command simulate-server as a process."""

import argparse
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from gateway.simulator.command import add_arguments, run, server_options
from gateway.simulator.engine import SchedulingOrder

_MAIN = """
import argparse, sys
from gateway.simulator.command import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""


def _parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(flags)


def test_a_started_server_says_where_it_is_answers_and_ends_at_sigterm() -> None:
    flags = ["--port", "0", "--adapters", "a,b", "--profile", "llama2-7b-a100-40"]
    with subprocess.Popen(
        [sys.executable, "-c", _MAIN, *flags], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"\((\S+)\) at (http://\S+) serves base, a, b", line)
        assert found is not None, line
        assert found[1] == "llama2-7b-a100-40"
        with urllib.request.urlopen(f"{found[2]}/health") as reply:
            assert reply.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def test_flags_become_options() -> None:
    options = server_options(
        _parse(
            *("--model", "m", "--adapters", " x, y ,", "--max-loras", "3", "--max-queued", "9"),
            *("--scheduling-policy", "priority", "--time-scale", "10", "--max-model-len", "500"),
        )
    )
    assert (options.model, options.adapters, options.max_model_len) == ("m", ("x", "y"), 500)
    assert (options.engine.max_loras, options.engine.max_queued) == (3, 9)
    assert (options.engine.order, options.time_scale) == (SchedulingOrder.PRIORITY, 10.0)


@pytest.mark.parametrize(
    "flags",
    [
        ("--time-scale", "0"),
        ("--time-scale", "nan"),
        ("--max-loras", "-1"),
        ("--lora-rank", "0"),
        ("--max-model-len", "1"),
        ("--max-queued", "0"),
        ("--profile", "h9000"),
        ("--scheduling-policy", "lifo"),
    ],
)
def test_a_value_out_of_range_is_a_usage_error(
    flags: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _parse(*flags)
    assert flags[0] in capsys.readouterr().err


def test_adapters_without_slots_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_parse("--adapters", "a", "--max-loras", "0")) == 2
    assert "--max-loras" in capsys.readouterr().err


def test_a_taken_port_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            run(_parse("--port", port))
