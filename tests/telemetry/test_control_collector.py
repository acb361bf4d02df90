from prometheus_client import CollectorRegistry

from gateway.telemetry.control_collector import ControlCollector, SourceFigures


def test_servers_sources_and_reloads_are_told() -> None:
    registry = CollectorRegistry()
    registry.register(
        ControlCollector(
            servers=lambda: {("p", "up"): 2, ("p", "leaving"): 0},
            sources=lambda: [
                SourceFigures("p", "dns", 3, 1.5),
                SourceFigures("p", "file", 0, None),
            ],
            reloads=lambda: {"ok": 2, "failed": 1},
        )
    )

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"llm_gateway_{name}", labels)

    assert value("servers", pool="p", state="up") == 2
    assert value("servers", pool="p", state="leaving") == 0
    assert value("discovery_errors_total", pool="p", source="dns") == 3
    assert value("discovery_age_seconds", pool="p", source="dns") == 1.5
    assert value("discovery_age_seconds", pool="p", source="file") is None
    assert value("reloads_total", result="ok") == 2
    assert value("reloads_total", result="failed") == 1
