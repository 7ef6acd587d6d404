"""The reference of the schema: its examples are schemas, and it names every kind and key there is."""

import re

import pytest
import yaml

from docs.pages import ROOT
from wardround.data.tables.schema import FileSpec, Kind, Schema

PAGE = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_examples_are_schemas(block: str) -> None:
    assert Schema.parse(yaml.safe_load(block), "docs/tables.md").label is not None


def test_every_kind_and_key_is_named() -> None:
    kinds = Kind.__args__
    named = set(re.findall(r"`(\w+)`", PAGE))
    keys = {key for kind in kinds for key in kind.model_fields if key != "kind"}
    keys |= {*Schema.model_fields, *FileSpec.model_fields, *(kind.model_fields["kind"].default for kind in kinds)}
    assert keys - named == set()
