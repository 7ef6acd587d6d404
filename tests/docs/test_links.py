"""Links and paths in the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT

_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(kept.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_the_code_exist(page: Path) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml))`", page.read_text(encoding="utf-8"))
    places = (ROOT, ROOT / "src" / "wardround")
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    open_pages = [ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        seen.add(page)
        text = page.read_text(encoding="utf-8")
        linked = {(page.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+\.md)[)#]", text)}
        open_pages += [file for file in linked if file.exists() and file not in seen and file not in open_pages]
    assert set(PAGES) - seen == set()
