"""What a check found: rows of measured against wanted, as a table or as JSON."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson


class Finding(NamedTuple):
    """One row; `ok` says whether what was measured is what is wanted."""

    what: str
    measured: str
    wanted: str
    ok: bool


def table(findings: Sequence[Finding]) -> str:
    """Rows under a heading, columns aligned."""
    rows = [("", "measured", "wanted", "")]
    rows += [(f.what, f.measured, f.wanted, "ok" if f.ok else "FAILED") for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects."""
    return orjson.dumps([f._asdict() for f in findings], option=orjson.OPT_INDENT_2).decode()


def equal(what: str, measured: object, wanted: object) -> Finding:
    """A row that is right if both are equal."""
    return Finding(what, str(measured), str(wanted), measured == wanted)
