import gzip
from pathlib import Path

import pytest

from gateway.policy_benchmark.benchmark_error import BenchmarkError
from gateway.policy_benchmark.traces import SOURCES, MissingTraceError, TraceRow, read_trace

CSV = "t_s,input_tokens,output_tokens\n0.0,10,20\n1.5,30,40\n"


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / SOURCES[name].file
    path.write_bytes(gzip.compress(text.encode()))
    return tmp_path


def test_a_csv_trace_gives_offsets_and_lengths(tmp_path: Path) -> None:
    rows = read_trace("azure2023_conv", write(tmp_path, "azure2023_conv", CSV))
    assert rows == [TraceRow(0.0, 10, 20), TraceRow(1.5, 30, 40)]


def test_a_json_trace_gives_prefix_blocks_and_seconds(tmp_path: Path) -> None:
    line = '{"timestamp": 2500, "input_length": 9, "output_length": 5, "hash_ids": [1, 2]}\n'
    rows = read_trace("mooncake_conversation", write(tmp_path, "mooncake_conversation", line))
    assert rows == [TraceRow(2.5, 9, 5, (1, 2))]


def test_a_missing_file_is_named_with_its_public_source(tmp_path: Path) -> None:
    with pytest.raises(MissingTraceError, match=r"azure2023_conv.csv.gz is missing.*b469a113"):
        read_trace("azure2023_conv", tmp_path)


def test_an_unknown_trace_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="unknown trace 'x'; known: azure2023_conv"):
        read_trace("x", tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CSV + "2.0,oops,4\n", ":4: broken line"),
        (CSV + "2.0,5\n", ":4: broken line"),
        (CSV + "1.0,5,5\n", ":4: arrival times must"),
        (CSV + "nan,5,5\n", ":4: arrival times must"),
        (CSV + "2.0,0,5\n", ":4: token counts must be at least 1"),
        ("t_s,tokens\n1,2\n", ":2: no field 'input_tokens'"),
        ("t_s,input_tokens,output_tokens\n", "has no rows"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(BenchmarkError, match=expected):
        read_trace("azure2023_conv", write(tmp_path, "azure2023_conv", text))


def test_a_broken_json_line_is_named_by_its_number(tmp_path: Path) -> None:
    good = '{"timestamp": 0, "input_length": 9, "output_length": 5, "hash_ids": []}\n'
    directory = write(tmp_path, "mooncake_conversation", good + "{not json\n")
    with pytest.raises(BenchmarkError, match=":2: broken line"):
        read_trace("mooncake_conversation", directory)


def test_a_file_that_is_not_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / SOURCES["azure2023_conv"].file).write_text(CSV)
    with pytest.raises(BenchmarkError, match="not a readable gzip file"):
        read_trace("azure2023_conv", tmp_path)
