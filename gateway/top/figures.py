"""Figures and words for a terminal, the same as on the live page."""

from typing import Any

_NONE = "-"
_STALE_S = 5.0
_JUDGED_ENOUGH = 20


def seconds(value: float | None) -> str:
    """A duration with its unit."""
    if value is None:
        return _NONE
    if value < 0.0995:
        return f"{value * 1e3:.1f} ms"
    return f"{value * 1e3:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def percent(share: float | None) -> str:
    """A share in whole percent."""
    return _NONE if share is None else f"{share * 100:.0f} %"


def adherence(share: float | None) -> str:
    """A share met; cut off, not rounded, so that it does not look met where it is not."""
    return _NONE if share is None else f"{int(share * 1000) / 10:.1f} %"


def plain(name: str | None) -> str:
    """A name that others chose, without what a terminal would obey."""
    return "".join(each if each.isprintable() else "\ufffd" for each in name or _NONE)


def server_name(backend_id: str | None) -> str:
    """The part of a URL that tells a server from the others."""
    return plain(backend_id).removeprefix("http://").removeprefix("https://")


def objective(service: dict[str, Any]) -> str:
    """The bounds and the share of requests that must keep them."""
    bounds = service["objective"]
    if bounds is None:
        return "none"
    names = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("ntpot_s", "NTPOT"))
    kept = [f"{name} {seconds(bounds[key])}" for key, name in names if bounds[key] is not None]
    return f"{', '.join(kept)} for {percent(service['target'])}"


def misses(service: dict[str, Any]) -> bool:
    """Whether a service misses its objective, judged by enough requests."""
    return (
        service["target"] is not None
        and service["attainment"] is not None
        and service["ended"] >= _JUDGED_ENOUGH
        and service["attainment"] < service["target"]
    )


def is_down(server: dict[str, Any]) -> bool:
    """Whether a server takes nothing although it should."""
    return not server["usable"] and not server["draining"]


def silence(server: dict[str, Any]) -> str:
    """Since when a server is out, and why; empty for one that is not."""
    known = server["silence"]
    if known is None:
        return ""
    whole = max(1, round(known["for_s"]))
    since = f"out for {whole} s" if whole < 100 else f"out for {whole // 60} min"
    return since if known["trouble"] is None else f"{since}: {plain(known['trouble'])}"


def health(server: dict[str, Any]) -> tuple[str, int]:
    """How a server is in a word, and how bad that is: 0 fine, 1 to be seen, 2 in trouble."""
    age_s = server["report_age_s"]
    if is_down(server):
        silence = server["silence"]
        return ("down" if silence is None or silence["was_heard"] else "not heard from"), 2
    if server["ejected"]:
        return "ejected", 2
    if server["draining"]:
        return "draining", 1
    if age_s is not None and age_s > _STALE_S:
        return "stale report", 1
    return ("full", 1) if server["full"] else ("open", 0)


def verdict(state: dict[str, Any]) -> tuple[str, int]:
    """The state in a line, and how bad it is, as in `health`."""
    servers = [server for pool in state["pools"] for server in pool["backends"]]
    services = [service for pool in state["pools"] for service in pool["services"]]
    waiting = sum(pool["queued_requests"] for pool in state["pools"])
    usable = sum(map(_takes, servers))
    out = sum(is_down(server) or server["ejected"] for server in servers)
    unserved = [plain(pool["pool"]) for pool in state["pools"] if not _takes_requests(pool)]
    missing = [plain(service["service"]) for service in services if misses(service)]
    found = []
    if not usable:
        found.append("no server can be used")
    elif unserved:
        found.append(f"no server can be used of pool {', '.join(unserved)}")
    if usable and out:
        found.append(f"{out} of {len(servers)} servers are down or ejected")
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        found.append(f"objective missed by {', '.join(missing[:3])}{more}")
    if waiting:
        found.append(f"{waiting} waiting")
    if not found:
        return f"all is well: {usable} of {len(servers)} servers take requests", 0
    return "; ".join(found), 2 if missing or unserved else 1


def _takes_requests(pool: dict[str, Any]) -> bool:
    return any(map(_takes, pool["backends"]))


def _takes(server: dict[str, Any]) -> bool:
    return bool(server["usable"] and not server["draining"] and not server["ejected"])
