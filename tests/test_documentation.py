import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_lead_to_files_that_the_site_has(page: Path) -> None:
    targets = [(page.parent / target).resolve() for target in LINK.findall(page.read_text())]
    assert [str(each) for each in targets if not each.is_relative_to(DOCS)] == []
    assert [str(each) for each in targets if not each.exists()] == []
