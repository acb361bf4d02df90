"""Installs what is compared with: each peer in an environment of its own, never in ours.

nginx and haproxy, where they are not installed, are unpacked from their Debian packages; that
needs no rights and starts nothing.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.overhead.systems import DEBIAN, PEERS

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
    """Make one environment; return what went wrong."""
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return _ran([*pip, "install", "--quiet", requirement])


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
