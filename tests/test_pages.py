"""The pages: each is in the index, and what they link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/results/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    listed = set(LINK.findall(index))
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_room_that_is_told_of_exists(page):
    rooms = {path.stem for path in (ROOT / "src/longtake").iterdir() if not path.name.startswith("_")}
    text = page.read_text(encoding="utf-8")
    told = set(re.findall(r"^[├└]── (\w+)", text, re.MULTILINE))
    for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE):
        told |= set(re.findall(r"`(\w+)`", row))
    assert told and not told - rooms
