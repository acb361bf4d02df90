"""Fuzz one target with atheris: `python -m benchmarks.fuzz TARGET [OPTION OF LIBFUZZER...]`.

`scripts/fuzz` does so for all of them. An input that breaks a promise is written to a file.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway", "benchmarks.fuzz"]):
    from benchmarks.fuzz.seeds import SEEDS
    from benchmarks.fuzz.targets import TARGETS


def main(name: str, options: list[str]) -> None:
    """Run until the count that the options set is reached, or a promise is broken."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS[name]):
            Path(folder, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"expected a target, one of {', '.join(TARGETS)}")
    main(sys.argv[1], sys.argv[2:])
