import gzip
from pathlib import Path

import pytest

from gateway.policy_benchmark.stand_ins import ROWS
from gateway.policy_benchmark.trace_library import TraceLibrary
from gateway.policy_benchmark.traces import SOURCES, MissingTraceError


def test_a_missing_trace_is_replaced_visibly(tmp_path: Path) -> None:
    library = TraceLibrary(tmp_path)
    assert len(library.rows("azure2023_conv")) == ROWS
    assert "azure2023_conv.csv.gz is missing" in library.notices[0]
    assert "stand-in" in library.notices[0]


def test_without_stand_ins_a_missing_trace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingTraceError):
        TraceLibrary(tmp_path, stand_ins=False).rows("azure2023_conv")


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    library = TraceLibrary(tmp_path)
    path = tmp_path / SOURCES["azure2023_conv"].file
    missing = library.fingerprint("azure2023_conv")
    path.write_bytes(gzip.compress(b"a"))
    first = library.fingerprint("azure2023_conv")
    path.write_bytes(gzip.compress(b"b"))
    assert len({missing, first, library.fingerprint("azure2023_conv")}) == 3
