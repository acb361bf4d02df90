import math
from pathlib import Path

import pytest

from benchmarks.overhead.report import BEGIN, END, markdown, put_into, shown
from benchmarks.overhead.results import Results


@pytest.mark.parametrize(
    ("value", "text"),
    [(12_345.6, "12,346"), (99.96, "100"), (37.52, "37.5"), (0.4567, "0.457"), (math.nan, "-")],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_tables_replace_what_stood_between_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    put_into(document, "| new |")

    assert document.read_text() == f"before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"


def test_a_document_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("nothing\n")

    with pytest.raises(ValueError, match="has no lines"):
        put_into(document, "| new |")
    assert document.read_text() == "nothing\n"


def test_the_report_names_every_system_and_what_was_left_out() -> None:
    results = Results(versions={"ours": "abc", "nginx": "1.2"}, skipped={"smg": "not installed"})
    results.add("requests", "ours", {"per_s": 5_100.0, "cpu_us": 190.0})
    results.add("requests", "nginx", {"per_s": 44_000.0, "cpu_us": 22.0})

    text = markdown(results)

    assert "| ours | 5,100 | 190 |" in text
    assert "| nginx | 44,000 | 22 |" in text
    assert "- smg was left out: not installed" in text
    assert "| CPU us per request, not streamed | <= 200 | 190 | yes |" in text
    assert "| 9,000 streams: served | >= 9,000 | - | not measured |" in text
