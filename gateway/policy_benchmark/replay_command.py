"""`llm-gateway replay JOURNAL [--policy NAME]`: the same decisions, or another policy's?

Exit status: 0 nothing differs, 1 something does, 2 a wrong journal or policy.
"""

import sys
from argparse import ArgumentParser, Namespace

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.replay_policy import replay_policy
from gateway.telemetry import replay_command
from gateway.telemetry.journal import JournalError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    replay_command.add_arguments(parser)
    parser.add_argument(
        "--policy",
        metavar="NAME",
        help="say what this policy would have chosen (benchmark policies --list names them)",
    )


def run(args: Namespace) -> int:
    """Check the journal, or tell decision by decision what another policy would have chosen."""
    if args.policy is None:
        return replay_command.run(args)
    different = 0
    try:
        for difference in replay_policy(args.journal, args.policy):
            different += 1
            sys.stdout.write(f"{args.journal}:{difference}\n")
    except (BenchmarkError, JournalError) as error:
        sys.stderr.write(f"llm-gateway: {error}\n")
        return 2
    sys.stdout.write(f"{different:,} decisions of {args.policy} differ from the recorded ones\n")
    return 1 if different else 0
