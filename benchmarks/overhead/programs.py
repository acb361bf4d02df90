"""The rig's own two programs: C, compiled on the spot."""

import re
import shutil
import subprocess
from pathlib import Path

import orjson

_HERE = Path(__file__).parent
_RECORDED_PAGE = _HERE.parents[1] / "tests" / "recordings" / "vllm-0.32" / "metrics_warm_idle.txt"
_LIVE_VALUES = re.compile(
    r"^(vllm:(?:num_requests_running|prompt_tokens_total|generation_tokens_total)\{[^}]*\}) .*$",
    re.MULTILINE,
)
MODEL = "bench"
"""What the fake servers serve."""


def compile_programs(folder: Path) -> None:
    """Compile `backend` and `load` into `folder`.

    Raises:
        RuntimeError: no C compiler, or it failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("a C compiler is needed (cc, gcc or clang): install one")
    for name in ("backend", "load"):
        done = subprocess.run(
            [compiler, "-O2", "-o", folder / name, _HERE / f"{name}.c"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name}.c does not compile:\n{done.stderr}")


def write_metrics_page(folder: Path) -> Path:
    """Write a real vLLM's /metrics page, with room for the values that `backend` changes."""
    page = folder / "metrics.txt"
    page.write_text(metrics_template(_RECORDED_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return page


def metrics_template(recorded: str) -> str:
    """A recorded page with twelve digits in the place of each value that `backend` overwrites."""
    named = re.sub(r'model_name="[^"]*"', f'model_name="{MODEL}"', recorded)
    # The recorded server had room for a few requests only; nobody shall have to wait for that.
    named = re.sub(r'num_gpu_blocks="\d+"', 'num_gpu_blocks="10000000"', named)
    return _LIVE_VALUES.sub(rf"\1 {0:012d}", named)


def request_body(*, size: int, chunks: int = 10, interval_us: int = 0, streamed: bool) -> bytes:
    """A chat request of about `size` bytes that asks the fake server for `chunks`."""
    fields = {
        "model": MODEL,
        "messages": [{"role": "user", "content": ""}],
        "stream": streamed,
        "max_tokens": chunks,
        "seed": interval_us,
    }
    words = "How many apples are left? "
    room = max(1, size - len(orjson.dumps(fields)))
    fields["messages"] = [{"role": "user", "content": (words * (room // len(words) + 1))[:room]}]
    return orjson.dumps(fields)
