"""Recorded workloads: arrival offsets, lengths, clients and prefix blocks of real traffic.

The files are public (see `SOURCES`) and not part of the project; `--traces DIR` says where
they are.
"""

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gateway.policy_benchmark.benchmark_error import BenchmarkError, at_line


class TraceRow(NamedTuple):
    """One request: seconds since the start of the trace, tokens in and out, prefix blocks."""

    at_s: float
    input_tokens: int
    output_tokens: int
    prefix_blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A trace that is known by name: its file and where the public has it.

    `has_times` is False for a table of lengths; `block_tokens` is the size of its prefix blocks.
    """

    file: str
    public_source: str
    has_times: bool = True
    block_tokens: int = 0


SOURCES = {
    "azure2023_conv": TraceSource(
        "azure2023_conv.csv.gz",
        "github.com/Azure/AzurePublicDataset @ b469a113, data/AzureLLMInferenceTrace_conv.csv"
        " (CC-BY 4.0)",
    ),
    "mooncake_conversation": TraceSource(
        "mooncake_conversation.jsonl.gz",
        "github.com/kvcache-ai/Mooncake @ 3b5a5941,"
        " FAST25-release/traces/conversation_trace.jsonl (Apache-2.0)",
        block_tokens=512,
    ),
    "vtc_arena_clients": TraceSource(
        "vtc_arena_clients.csv.gz",
        "github.com/Ying1123/VTC-artifact @ 192c2e20, fair_bench/real_trace.pkl (Apache-2.0)",
    ),
    "arxiv_summarization_lengths": TraceSource(
        "arxiv_summarization_lengths.csv.gz",
        "github.com/microsoft/vidur @ 7d475133, data/processed_traces/"
        "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv (MIT)",
        has_times=False,
    ),
}


class MissingTraceError(BenchmarkError):
    """The file of a known trace is not in the directory of traces."""


def source_of(name: str) -> TraceSource:
    """The trace of this name.

    Raises:
        BenchmarkError: no such trace.
    """
    if name not in SOURCES:
        raise BenchmarkError(f"unknown trace {name!r}; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def read_trace(name: str, directory: Path) -> list[TraceRow]:
    """All rows of a trace, in order of arrival.

    Raises:
        MissingTraceError: the file is not there; the message names it and its public source.
        BenchmarkError: unknown name, or a broken line (named by its number).
    """
    source = source_of(name)
    path = directory / source.file
    if not path.is_file():
        raise MissingTraceError(
            f"trace {name}: {path} is missing; public source: {source.public_source}"
        )
    read = _rows_of_json if source.file.endswith(".jsonl.gz") else _rows_of_csv
    rows = list(read(path))
    if not rows:
        raise BenchmarkError(f"{path}: the trace has no rows")
    return rows


def _checked(
    path: Path, parse: Callable[[Iterator[str]], Iterator[TraceRow]]
) -> Iterator[TraceRow]:
    line = 0

    def counted(lines: Iterator[str]) -> Iterator[str]:
        nonlocal line
        for text in lines:
            line += 1
            yield text

    last_at = 0.0
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in parse(counted(iter(file))):
                if row.input_tokens < 1 or row.output_tokens < 1:
                    raise at_line(path, line, "token counts must be at least 1")
                if not last_at <= row.at_s < float("inf"):
                    raise at_line(path, line, "arrival times must be finite and not decrease")
                last_at = row.at_s
                yield row
    except BenchmarkError:
        raise
    except (OSError, EOFError) as error:
        raise BenchmarkError(f"{path}: not a readable gzip file: {error}") from error
    except KeyError as error:
        raise at_line(path, line, f"no field {error}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise at_line(path, line, f"broken line: {error}") from error


def _rows_of_csv(path: Path) -> Iterator[TraceRow]:
    def parse(lines: Iterator[str]) -> Iterator[TraceRow]:
        for record in csv.DictReader(lines):
            yield TraceRow(
                float(record.get("t_s", 0.0)),
                int(record["input_tokens"]),
                int(record["output_tokens"]),
            )

    return _checked(path, parse)


def _rows_of_json(path: Path) -> Iterator[TraceRow]:
    def parse(lines: Iterator[str]) -> Iterator[TraceRow]:
        for text in lines:
            record = json.loads(text)
            yield TraceRow(
                float(record["timestamp"]) / 1000.0,
                int(record["input_length"]),
                int(record["output_length"]),
                tuple(int(block) for block in record["hash_ids"]),
            )

    return _checked(path, parse)
