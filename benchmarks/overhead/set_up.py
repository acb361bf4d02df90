"""Installs what is compared: each peer, and our own wheel, in an environment of its own.

nginx and haproxy, where they are not installed, are unpacked from their Debian packages; that
needs no rights and starts nothing.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.overhead.systems import DEBIAN, OURS, PEERS, SOURCE_STATE, source_state

DEFAULT_FOLDER = Path.home() / ".cache" / "llm-gateway-overhead"
_PROXIES = {
    "nginx": ("nginx",),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
}


def set_up(folder: Path) -> int:
    """Install what is missing below `folder`; return the number of things that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, requirement in PEERS.items():
        failed += _say(name, _environment(folder / name, requirement))
    failed += _say(OURS, _ours(folder / OURS))
    for name, packages in _PROXIES.items():
        if shutil.which(name) is None and not (folder / DEBIAN / "usr" / "sbin" / name).exists():
            failed += _say(name, _unpacked(folder / DEBIAN, packages))
        else:
            _say(name, "")
    return failed


def _say(name: str, trouble: str) -> int:
    print(f"{name}: {trouble or 'is there'}", flush=True)
    return 1 if trouble else 0


def _environment(folder: Path, requirement: str) -> str:
    """Make one environment, of this Python; return what went wrong."""
    python = folder / "bin" / "python"
    if not python.exists() or _version(python) != sys.version:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return _ran([*pip, "install", "--quiet", requirement])


def _version(python: Path) -> str:
    query = "import sys; sys.stdout.write(sys.version)"
    return subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout


def _ours(folder: Path) -> str:
    """Install what the container has: locked requirements, and the wheel with compiled modules."""
    state = folder / SOURCE_STATE
    if state.exists() and state.read_text() == source_state():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    project = Path(__file__).parents[2]
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    lock = str(project / "requirements" / "runtime.lock")
    build = [str(project / "scripts" / "wheel"), "--compiled", str(folder / "wheel")]
    trouble = _ran(["env", f"PYTHON={sys.executable}", *build])
    trouble = trouble or _ran([*pip, "--quiet", "--require-hashes", "--no-deps", "-r", lock])
    wheels = map(str, (folder / "wheel").glob("*.whl"))
    trouble = trouble or _ran([*pip, "--quiet", "--no-deps", "--no-index", *wheels])
    if not trouble:
        state.write_text(source_state())
    return trouble


def _unpacked(folder: Path, packages: tuple[str, ...]) -> str:
    """Download packages and unpack them; return what went wrong."""
    if shutil.which("apt-get") is None:
        return "not installed, and there is no apt-get to get it with"
    downloads = folder / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    trouble = _ran(["apt-get", "-q", "download", *packages], downloads)
    for package in downloads.glob("*.deb"):
        trouble = trouble or _ran(["dpkg-deb", "-x", str(package), str(folder)])
    return trouble


def _ran(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""
