import asyncio
import socket
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from gateway.__main__ import COMMANDS, Command, _run, main
from gateway.settings.problems import fault

CONFIG = Path(__file__).parents[1] / "config"

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port of the loopback address that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written to standard error, which must be short."""
    text = capsys.readouterr().err
    assert text.count("\n") <= 2
    return text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bakends", "x"], "unknown argument --bakends; did you mean --backends?"),
        (["--port"], "expected one argument"),
        (["serve", "extra"], "unknown argument extra"),
        (["replay"], "the following arguments are required: JOURNAL"),
    ],
)
def test_wrong_flags_are_named(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert expected in refusal(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no servers; expected --backends"),
        (["srve"], "unknown command 'srve'"),
        (["--backends", "gpu-1:8000"], "--backends: backends[0]: 'gpu-1:8000': expected a URL"),
        (["--port", "x"], "--port: 'x': expected a valid integer"),
        (["--config", "absent.yaml"], "absent.yaml: cannot be read: No such file"),
        (["check-config", "absent.yaml"], "absent.yaml: cannot be read: No such file"),
        (["replay", "absent.jsonl"], "absent.jsonl: cannot be read: No such file"),
        (["demo", "--backends", "http://a:1"], "the demo brings its own servers"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert expected in refusal(capsys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot: 1", "prot: unknown key; did you mean port?"),
        (
            "pools: [{name: p, services: [{name: s, targets: [{name: m, weight: -1}]}]}]",
            "pools[0].services[0].targets[0].weight: -1: expected greater than or equal to 0",
        ),
        (
            "pools: [{name: p, services: [{name: s}, {name: s, model: m}]}]",
            "pools[0].services[1].name: 's': already at pools[0].services[0].name",
        ),
        ("backends: ['gpu-1:8000']", "backends[0]: 'gpu-1:8000': expected a URL with scheme"),
    ],
)
def test_check_config_names_file_key_value_and_expectation(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["check-config", str(path)]) == 2
    assert f"llm-gateway: {path}: {expected}" in refusal(capsys)


def test_check_config_accepts_what_is_only_doubtful(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        "pools: [{name: p, servers: ['http://a:1'],"
        " services: [{name: s, targets: [{name: m, weight: 0}]}]}]",
        encoding="utf-8",
    )
    assert main(["check-config", str(path)]) == 0
    assert "every weight is 0" in capsys.readouterr().err


def test_check_config_says_that_a_file_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    path = CONFIG / "gateway.yaml"
    assert main(["check-config", str(path)]) == 0
    assert capsys.readouterr() == (f"{path}: valid\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--backends", "http://127.0.0.1:9", "--host", "127.0.0.1", "--admin-port", "0", "--port"],
        ["demo", "--admin-port", "0", "--port"],
        ["demo", "--port", "0", "--admin-port"],
        ["simulate-server", "--port"],
    ],
    ids=["serve", "demo", "demo, administration", "simulate-server"],
)
def test_a_taken_port_is_said_in_one_line(arguments: list[str], taken_port: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, str(taken_port)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    last = ended.stderr.rstrip().split("\n")[-1]
    assert last.startswith("llm-gateway: ")
    assert str(taken_port) in last
    assert "address already in use: choose another with --port" in last


def test_serve_warns_of_what_is_only_doubtful(tmp_path: Path, taken_port: int) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"port: {taken_port}\nhost: 127.0.0.1\npools:\n"
        "  - {name: p, servers: ['http://127.0.0.1:9'], accept_unregistered_models: false}",
        encoding="utf-8",
    )
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert f"llm-gateway: warning: {path}: pools[0]: no services" in ended.stderr


def ends_with(error: Exception) -> Command:
    def fail(arguments: Namespace) -> int:
        raise error

    return Command("", lambda parser: None, fail)


def test_a_taken_port_is_recognised_inside_a_group_of_errors(
    taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def listen() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.start_server(lambda r, w: None, "127.0.0.1", taken_port))

    def run(arguments: Namespace) -> int:
        uvloop.run(listen())
        return 0

    assert _run(Command("", lambda parser: None, run), Namespace()) == 2
    assert "address already in use" in refusal(capsys)


def test_a_host_without_address_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert _run(ends_with(error), Namespace()) == 2
    assert "Name or service not known: choose another" in refusal(capsys)


def test_a_file_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileNotFoundError(2, "No such file or directory", "/nowhere/journal.jsonl")
    assert _run(ends_with(error), Namespace()) == 2
    assert refusal(capsys) == "llm-gateway: /nowhere/journal.jsonl: No such file or directory\n"


@pytest.mark.parametrize("error", [ConnectionResetError("peer"), ExceptionGroup("", [KeyError()])])
def test_a_fault_of_our_own_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        _run(ends_with(error), Namespace())


def test_several_faults_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(ends_with(fault("f", "a", "wrong\nb: wrong")), Namespace()) == 2
    assert refusal(capsys) == "llm-gateway: f: a: wrong\nllm-gateway: b: wrong\n"


def test_an_interrupt_ends_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    def run(arguments: Namespace) -> int:
        raise KeyboardInterrupt

    assert _run(Command("", lambda parser: None, run), Namespace()) == 130
    assert capsys.readouterr() == ("", "")


def test_the_health_of_a_gateway_that_does_not_answer_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free_port = listener.getsockname()[1]
    assert main(["health", "--port", str(free_port)]) == 1
    assert f"127.0.0.1:{free_port} does not answer" in refusal(capsys)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.summary in shown


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"llm-gateway {name}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("llm-gateway 0.")


def test_flags_without_a_command_are_those_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--port", "1", "--nothing"])
    assert "llm-gateway serve: error" in capsys.readouterr().err


def test_abbreviated_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--backend", "http://a:1", "--port", "x"])
    assert "did you mean --backends?" in capsys.readouterr().err


def test_checking_a_file_does_not_load_the_server() -> None:
    program = (
        "import sys; from gateway.__main__ import main\n"
        f"main(['check-config', {str(CONFIG / 'gateway.yaml')!r}])\n"
        "assert 'aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=30)


def test_a_parser_is_filled_by_every_command() -> None:
    add: Callable[[ArgumentParser], None]
    for add in (command.add_arguments for command in COMMANDS.values()):
        parser = ArgumentParser()
        add(parser)
        assert len(parser.format_help().splitlines()) > 4


def test_serving_does_not_load_what_only_some_pools_need() -> None:
    script = "import gateway.serving, sys; print({'dns', 'opentelemetry', 'rich'} & {*sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert loaded.stdout == "set()\n"
