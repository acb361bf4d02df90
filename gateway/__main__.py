"""The command line: one function per command; what a command needs is imported when it runs.

Exit status: 0 done, 1 failed while running, 2 wrong use, wrong configuration or a taken port.
"""

import errno
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from gateway.settings.checks import warnings
from gateway.settings.flags import add_setting_flags, settings_of
from gateway.settings.loading import load_file
from gateway.settings.problems import ConfigurationError, hint
from gateway.settings.schema import Settings

PROGRAM = "llm-gateway"
_FAULTS_OF_USE = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


class Command(NamedTuple):
    """One command: `add_arguments` fills its parser, `run` returns the exit status."""

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; without a command's name, `serve`. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = arguments[0] if arguments else ""
    if first in {"-h", "--help", "help"}:
        print(_overview())
        return 0
    if first == "--version":
        print(f"{PROGRAM} {version('llm-instance-gateway')}")
        return 0
    if first and not first.startswith("-") and first not in COMMANDS:
        return _refused(f"unknown command {first!r}; expected one of {', '.join(COMMANDS)}")
    name = arguments.pop(0) if first in COMMANDS else "serve"
    command = COMMANDS[name]
    parser = ArgumentParser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name} [ARGUMENT...]    (--help lists them)",
        description=command.summary,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        actions = parser._actions  # noqa: SLF001 - argparse has no public list of its options
        options = [option for action in actions for option in action.option_strings]
        parser.error(f"unknown argument {unknown[0]}{hint(unknown[0], options)}")
    return _run(command, known)


def _run(command: Command, arguments: Namespace) -> int:
    """Run a command; what the user can mend is one line per fault, without a traceback."""
    try:
        return command.run(arguments)
    except KeyboardInterrupt:
        return 130
    except (ConfigurationError, OSError, ExceptionGroup) as error:
        reason = _reason(error)
        if reason is None:
            raise
        return _refused(reason)


def _refused(text: str) -> int:
    print("\n".join(f"{PROGRAM}: {line}" for line in text.splitlines()), file=sys.stderr)
    return 2


def _reason(error: Exception) -> str | None:
    """What the user can mend: the configuration, an address or a file; None for other errors."""
    if isinstance(error, ConfigurationError):
        return str(error)
    if isinstance(error, ExceptionGroup):
        return next(filter(None, map(_reason, error.exceptions)), None)
    if isinstance(error, socket.gaierror) or (
        isinstance(error, OSError) and error.errno in _FAULTS_OF_USE
    ):
        return f"{error.strerror}: choose another with --port, --admin-port, --host, --admin-host"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _overview() -> str:
    width = max(map(len, COMMANDS))
    commands = (f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return "\n".join(
        (
            f"usage: {PROGRAM} [COMMAND] [ARGUMENT...]    ({PROGRAM} COMMAND --help tells more)",
            "",
            f"  {PROGRAM} --backends http://a:8000,http://b:8000",
            "",
            "commands:",
            *commands,
        )
    )


def _serve(arguments: Namespace) -> int:
    settings = settings_of(arguments)
    if not any(pool.servers or pool.discovers for pool in settings.effective_pools()):
        return _refused("no servers; expected --backends http://HOST:8000, or --config FILE")
    _warn(settings)
    import uvloop

    from gateway import serving

    uvloop.run(serving.serve(settings, load=lambda: settings_of(arguments)))
    return 0


def _health(arguments: Namespace) -> int:
    from gateway.server.health_probe import ask_health

    settings = settings_of(arguments)
    trouble = ask_health(settings.host, settings.port, tls=settings.tls_certificate is not None)
    if trouble is not None:
        print(f"{PROGRAM}: {trouble}", file=sys.stderr)
    return int(trouble is not None)


def _add_demo(parser: ArgumentParser) -> None:
    from gateway.demo import command

    command.add_arguments(parser)
    add_setting_flags(parser)


def _demo(arguments: Namespace) -> int:
    from gateway.demo import command

    return command.run(arguments, settings_of(arguments))


def _elsewhere(summary: str, module: str) -> Command:
    """A command whose module has `add_arguments` and `run`."""
    return Command(
        summary,
        lambda parser: import_module(module).add_arguments(parser),
        lambda arguments: int(import_module(module).run(arguments)),
    )


def _add_file(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="YAML file to check")


def _warn(settings: Settings) -> None:
    for warning in warnings(settings):
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)


def _check_config(arguments: Namespace) -> int:
    settings = load_file(arguments.file)
    _warn(settings)
    print(f"{arguments.file}: valid")
    return 0


COMMANDS = MappingProxyType(
    {
        "serve": Command("serve clients (the default)", add_setting_flags, _serve),
        "demo": Command("serve a pool of simulated vLLM servers", _add_demo, _demo),
        "health": Command("ask the gateway that runs here", add_setting_flags, _health),
        "check-config": Command("say what is wrong with a file", _add_file, _check_config),
        "make-key": _elsewhere("make an API key for a client", "gateway.settings.key_command"),
        "simulate-server": _elsewhere("run one simulated vLLM server", "gateway.simulator.command"),
        "benchmark": _elsewhere(
            "compare policies in virtual time", "gateway.policy_benchmark.command"
        ),
        "replay": _elsewhere(
            "check that a journal is reproduced", "gateway.policy_benchmark.replay_command"
        ),
        "top": _elsewhere("watch a running gateway in a terminal", "gateway.top.command"),
    }
)

if __name__ == "__main__":
    sys.exit(main())
