"""docs/errors.md has every error and its exit code."""

from __future__ import annotations

import re

from docs.pages import ROOT
from wardround import errors


def test_the_table_of_exit_codes_is_that_of_the_classes() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    table = {}
    for code, names in re.findall(r"^\| (\d+) \| (`.*?) \|", page, re.MULTILINE):
        table |= {name: int(code) for name in re.findall(r"`(\w+)`", names)}
    classes = [errors.WardroundError, *errors.WardroundError.__subclasses__()]
    assert table == {kind.__name__: kind.exit_code for kind in classes}
    assert f"| {errors.INTERRUPTED} |" in page
