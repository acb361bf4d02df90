"""Makes a screen of what a gateway told; rich lays it out. Names are shown as they are."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.top import figures
from gateway.top.admin_client import Sight

_STYLES = ("green", "yellow", "bold red")
_ENDED, _REFUSED, _TTFT_95, _TPOT_95 = 0, 1, 3, 5
_LONGEST_ID = 20
_OVERHEAD_LINES = 14
"""Lines that are not rows: headings, rules, the verdict."""


def rows_of_requests(height: int) -> int:
    """Recent requests that a terminal of this height shows."""
    return max(3, (height - _OVERHEAD_LINES) // 3)


def render(sight: Sight, *, height: int | None) -> RenderableType:
    """Everything in as many lines; None for no limit."""
    state, point, requests = sight
    room = None if height is None else max(2, height - _OVERHEAD_LINES - len(requests)) // 2
    return Group(
        _head(state, point),
        _services(state, point, room),
        _servers(state, room),
        _requests(requests),
    )


def _head(state: Mapping[str, Any], point: Mapping[str, Any] | None) -> RenderableType:
    words, level = figures.verdict(dict(state))
    at = datetime.fromtimestamp(state["at"], UTC).astimezone()
    everything = point["all"] if point is not None else [None] * 7
    in_flight = sum(pool["tracked_requests"] - pool["queued_requests"] for pool in state["pools"])
    waiting = sum(pool["queued_requests"] for pool in state["pools"])
    line = (
        f"{in_flight} in flight  {waiting} waiting  {_rate(everything[_ENDED])}/s ended  "
        f"{_rate(everything[_REFUSED])}/s refused  TTFT p95 {figures.seconds(everything[_TTFT_95])}"
        f"  TPOT p95 {figures.seconds(everything[_TPOT_95])}"
    )
    head = Text.assemble(
        (f"llm-gateway {state['version']}  {at:%H:%M:%S}  ", "bold"), (words, _STYLES[level])
    )
    return Group(head, Text(line), Text())


def _services(
    state: Mapping[str, Any], point: Mapping[str, Any] | None, room: int | None
) -> RenderableType:
    figures_of = ("adherence", "waiting", "ended/s", "refused/s", "TTFT p95", "TPOT p95")
    table = _table(("service", "objective"), figures_of)
    numbers = {tuple(name): str(number) for number, name in enumerate(state["series"])}
    found = [(pool, service) for pool in state["pools"] for service in pool["services"]]
    found.sort(key=lambda each: not figures.misses(each[1]))
    for pool, service in found[:room]:
        name = service["service"]
        number = numbers.get((pool["pool"], name))
        values = (point or {"services": {}})["services"].get(number) or [0, 0, *[None] * 5]
        waiting = sum(q["requests"] for q in pool["queues"] if q["service"] == name)
        table.add_row(
            _words(figures.plain(name), "bold"),
            _words(figures.objective(service)),
            Text(figures.adherence(service["attainment"]), _STYLES[2 * figures.misses(service)])
            if service["attainment"] is not None
            else "-",
            Text(str(waiting), "yellow" if waiting else ""),
            _rate(values[_ENDED]),
            _rate(values[_REFUSED]),
            figures.seconds(values[_TTFT_95]),
            figures.seconds(values[_TPOT_95]),
        )
    return _with_rest(table, len(found), room, "services")


def _servers(state: Mapping[str, Any], room: int | None) -> RenderableType:
    figures_of = ("saturation", "running", "KV", "forecast error\nTTFT / TPOT")
    table = _table(("server", "health", "adapters (running there)"), figures_of)
    found = [server for pool in state["pools"] for server in pool["backends"]]
    found.sort(key=lambda server: -figures.health(server)[1])
    out = [server for server in found if figures.silence(server)]
    if room is not None:
        out = out[: max(1, room // 3)]
        room -= len(out)
    for server in found[:room]:
        word, level = figures.health(server)
        active = server["active_adapters"]
        adapters = [f"{name} ({active[name]})" for name in active]
        adapters += [name for name in server["resident_adapters"] if name not in active]
        errors = [server[key]["relative_error"] for key in ("ttft_forecasts", "tpot_forecasts")]
        table.add_row(
            _words(figures.server_name(server["backend_id"]), "bold"),
            _words(word, _STYLES[level]),
            _words(figures.plain(", ".join(adapters))),
            figures.percent(server["saturation"]),
            str(server["sequences"]),
            figures.percent(server["reported_kv_usage"]),
            " / ".join(map(figures.percent, errors)),
        )
    reasons = [
        _words(
            f"{figures.server_name(server['backend_id'])} {figures.silence(server)}",
            _STYLES[figures.health(server)[1]],
        )
        for server in out
    ]
    return Group(*reasons, _with_rest(table, len(found), room, "servers"))


def _requests(requests: list[dict[str, Any]]) -> RenderableType:
    names = ("request", "service", "outcome", "server")
    table = _table(names, ("waited", "TTFT", "TPOT", "total"))
    # An id that is cut leads nowhere; those that clients made up may be of any length.
    table.columns[0].no_wrap, table.columns[0].max_width = True, _LONGEST_ID
    for row in requests:
        record = row["record"]
        table.add_row(
            _words(figures.plain(record["request_id"])),
            _words(figures.plain(record["service"])),
            _words(
                record["reason"] or record["outcome"], "" if record["outcome"] == "ok" else "yellow"
            ),
            _words(figures.server_name(record["backend_id"])),
            figures.seconds(record["queue_s"]) if record["attempts"] else "-",
            figures.seconds(record["ttft_s"]),
            figures.seconds(row["tpot_s"]),
            figures.seconds(record["e2e_s"]),
        )
    return table


def _table(words: Sequence[str], values: Sequence[str]) -> Table:
    """Columns of words, which make room in a narrow terminal, then of figures, which stay whole."""
    table = Table(expand=True, box=None, header_style="dim", pad_edge=False)
    for title in words:
        table.add_column(_words(title))
    for title in values:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _words(text: str, style: str = "") -> Text:
    return Text(text, style, overflow="ellipsis", no_wrap=True)


def _with_rest(table: Table, found: int, room: int | None, what: str) -> RenderableType:
    left_out = 0 if room is None else max(0, found - room)
    note = f"... and {left_out} more {what}, none of them worse" if left_out else ""
    return Group(table, Text(note, "dim"))


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
