from pathlib import Path

import pytest

from wardround.data.root import data_root
from wardround.errors import DataError


def _root() -> Path:
    return data_root("heart", layout="uci_heart/*.data", source="https://example.org")


def test_reads_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        monkeypatch.setenv("WARDROUND_DATA", str(folder))
        assert _root() == folder


@pytest.mark.parametrize("value", [None, "", "absent"])
def test_says_what_to_set_and_what_belongs_there(
    value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if value is None:
        monkeypatch.delenv("WARDROUND_DATA", raising=False)
    else:
        monkeypatch.setenv("WARDROUND_DATA", value and str(tmp_path / value))
    with pytest.raises(DataError) as caught:
        _root()
    for part in ("'heart'", "set WARDROUND_DATA", "uci_heart/*.data", "https://example.org"):
        assert part in str(caught.value)
