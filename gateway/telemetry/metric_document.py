"""Makes docs/metrics.md: `python -m gateway.telemetry.metric_document > docs/metrics.md`."""

import sys

from gateway.telemetry.metric_definitions import SECTIONS
from gateway.telemetry.metric_kinds import MetricDefinition

_HEAD = """# Metrics

The administration listener serves these at `/metrics`, in Prometheus' text format. Times are in
seconds, sizes in bytes, ratios between 0 and 1 (errors may exceed 1).

Label values are bounded: `service` is a configured service, `default` (models without a service of
their own) or `other` (requests that reached no service, such as those for an unknown model; their
`priority` is empty). `pool` and `backend` are configured, `outcome` and `reason` are fixed lists.

This page is generated: `python -m gateway.telemetry.metric_document > docs/metrics.md`.
"""


def metric_document() -> str:
    """The text of docs/metrics.md."""
    parts = [_HEAD]
    for title, definitions in SECTIONS:
        parts.append(f"\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n")
        parts.extend(map(_row, definitions))
    parts.append("\n## Buckets of the histograms\n\n| name | upper bounds |\n|---|---|\n")
    parts.extend(
        f"| `{definition.name}` | {', '.join(f'{bound:g}' for bound in definition.buckets)} |\n"
        for _, definitions in SECTIONS
        for definition in definitions
        if definition.buckets
    )
    return "".join(parts)


def _row(definition: MetricDefinition) -> str:
    labels = ", ".join(f"`{label}`" for label in definition.labels)
    meaning = definition.meaning.replace("|", "\\|")
    return f"| `{definition.name}` | {definition.kind} | {labels} | {meaning} |\n"


if __name__ == "__main__":
    sys.stdout.write(metric_document())
