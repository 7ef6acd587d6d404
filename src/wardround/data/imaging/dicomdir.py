"""DICOMDIR: the table of contents of a CD or an export, read without trusting its paths."""

from __future__ import annotations

from pathlib import Path

from wardround.data.imaging.boundary import parsing
from wardround.data.imaging.dicom_file import open_dicom
from wardround.data.imaging.limits import Limits
from wardround.errors import DataError


def listed(path: Path, limits: Limits | None = None) -> tuple[list[Path], dict[str, str]]:
    """The files that a DICOMDIR names.

    Args:
        path: the file DICOMDIR.
        limits: what is refused unread.

    Returns:
        Files that exist inside its folder, in its order and each once; and for every other entry, as it is written
        there, the reason: it leads outside the folder (through `..`, an absolute path or a link), or nothing is there.

    Raises:
        DataError: not a DICOMDIR, or damaged.
    """
    dataset = open_dicom(path, limits or Limits())
    with parsing(path, "a DICOMDIR", quote=False):
        records = dataset.get("DirectoryRecordSequence")
        if records is None:
            raise DataError(f"{path} is not a DICOMDIR: it has no DirectoryRecordSequence")
        entries = [record.get("ReferencedFileID") for record in records]
    root = path.parent.resolve()
    found: dict[Path, None] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        if not entry:
            continue
        parts = [str(part) for part in ([entry] if isinstance(entry, str) else entry)]
        shown = "/".join(parts)
        reason, file = _inside(root, parts)
        if file is None:
            refused[shown] = reason
        else:
            found[path.parent / file] = None
    return list(found), refused


def _inside(root: Path, parts: list[str]) -> tuple[str, Path | None]:
    outside = f"leads outside {root.name}, the folder of the DICOMDIR"
    if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part or ":" in part for part in parts):
        return outside, None
    # media written in capitals are often mounted or copied in small letters
    for spelt in (parts, [part.lower() for part in parts]):
        candidate = root.joinpath(*spelt)
        try:
            real = candidate.resolve()
            if not real.is_relative_to(root):
                return outside, None
            if real.is_file():
                return "", candidate.relative_to(root)
        except OSError:
            continue
    return "is not there", None
