"""The proofs of benchmarks/live at a smaller size, the gateway as shipped, all in one process."""

from pathlib import Path

from benchmarks.live.adapters import (
    AdaptersPlan,
    adapter_names,
    check_adapters,
    check_split,
    split_settings,
)
from benchmarks.live.cancellations import CancellationsPlan, check_cancellations
from benchmarks.live.findings import Finding
from benchmarks.live.forecasts import ForecastsPlan, check_forecasts
from benchmarks.live.streams import StreamsPlan, check_streams
from gateway.telemetry.journal import read_journal, replay
from tests.live.in_process_site import site_in_process


def wrong(findings: list[Finding]) -> list[Finding]:
    assert findings
    return [finding for finding in findings if not finding.ok]


def diverging_lines(journal: Path) -> list[int]:
    header, entries = read_journal(journal)
    events = list(entries)
    assert events
    return [divergence.line for divergence in replay(header, events)]


async def test_concurrent_streams_complete_unchanged_and_leave_nothing_behind() -> None:
    async with site_in_process(adapters=("a", "b"), time_scale=1.0) as site:
        plan = StreamsPlan(streams=60, tokens=80, models=("base", "a", "b"))
        findings = wrong(await check_streams(site, plan))
    # On a slow machine servers look slow, and are given fewer at once.
    assert [f for f in findings if f.what != "streams open at the same time"] == []


async def test_no_server_runs_more_adapters_than_it_has_slots_and_a_split_is_kept(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "journal.jsonl"
    plan = AdaptersPlan(
        requests=60, adapters=15, slots=4, tokens=30, split_requests=200, split_at_once=20
    )
    async with site_in_process(
        adapters=adapter_names(15), time_scale=2.0, journal=journal, settings=split_settings()
    ) as site:
        assert wrong(await check_adapters(site, plan)) == []
        assert wrong(await check_split(site, plan)) == []
    assert diverging_lines(journal) == []


async def test_whoever_leaves_whenever_is_forgotten_within_a_second(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    async with site_in_process(
        time_scale=0.5, journal=journal, settings={"max_requests_per_backend": 5}
    ) as site:
        plan = CancellationsPlan(requests=120, at_once=40, longest_delay_s=0.05)
        assert wrong(await check_cancellations(site, plan)) == []
    assert diverging_lines(journal) == []


async def test_forecasts_and_outcomes_of_unequal_servers_can_be_compared(tmp_path: Path) -> None:
    """How far apart they are is the benchmark's business: here the machine may be busy."""
    log = tmp_path / "requests.jsonl"
    names = adapter_names(2)
    async with site_in_process(
        servers=4, adapters=names, time_scale=1.0, settings={"request_log": str(log)}
    ) as site:
        plan = ForecastsPlan(requests=60, rate_rps=60.0, models=names, slow=2, request_log=log)
        findings = await check_forecasts(site, plan)
    assert findings[0].ok
    assert [f.measured for f in findings if f.measured == "inf"] == []
    assert {f.what for f in findings} >= {"TTFT error, half speed", "TPOT error, full speed"}
