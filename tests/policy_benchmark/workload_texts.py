"""Workload files for tests: small, without traces."""

from pathlib import Path

from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.workload_file import read_workload
from gateway.policy_benchmark.workload_model import Workload
from gateway.policy_benchmark.workload_plan import WorkloadPlan, build_plan

SMALL = """\
name: small
description: short prompts of one length
servers: {profile: llama3.1-8b-h100-64, count: 2}
services:
  - name: chat
    lengths: {input: {fixed: 500}, output: {fixed: 100}}
    objective: {ttft: 1s, tpot: 50ms}
measure: {warmup: 5s, requests: 300}
loads: [0.5]
"""


def workload(tmp_path: Path, text: str = SMALL) -> Workload:
    path = tmp_path / "workload.yaml"
    path.write_text(text)
    return read_workload(path)


def plan(tmp_path: Path, text: str = SMALL) -> WorkloadPlan:
    return build_plan(workload(tmp_path, text), TraceLibrary(tmp_path))
