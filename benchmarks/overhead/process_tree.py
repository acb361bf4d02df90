"""CPU time and memory of a process and its children, from /proc; and how they are ended."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_S = 5.0


def parse_stat(text: str) -> tuple[int, float]:
    """Parent and CPU seconds (user and system) of one /proc/PID/stat; its name may have spaces."""
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS


def tree_of(pid: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            children.setdefault(parse_stat(stat.read_text())[0], []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used."""
    return sum(parse_stat(Path(f"/proc/{pid}/stat").read_text())[1] for pid in pids)


def memory_bytes(pids: list[int]) -> int:
    """Memory of these processes; pages they share are counted once (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send one signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all below it, by their ids."""
    if process.poll() is not None:
        return
    pids = tree_of(process.pid)
    send_signal(pids, signal.SIGCONT)
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    remaining = [pid for pid in pids[1:] if Path(f"/proc/{pid}").exists()]
    if remaining:
        time.sleep(0.2)
        send_signal(remaining, signal.SIGKILL)
