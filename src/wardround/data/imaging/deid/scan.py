"""Look for known identifiers in everything that lies in a folder: names of files, raw bytes, and what is packed in them.

It finds what it is told to look for, as text, in any case of letters, in UTF-8, Latin-1, UTF-16 and UTF-32; dates in the
usual forms and names with any of `^`, blank, comma, dot, dash and underscore between their parts. In pixels it finds areas that
look like text, and cannot read them. It does not find what is encrypted, spelled otherwise, or drawn.
"""

from __future__ import annotations

import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from wardround.data.imaging.deid.identifiers import SHORTEST
from wardround.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

_DATE = re.compile(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})")
_BETWEEN = re.compile(r"[\s^,=._\-]+")
_CODECS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_MOST = 1 << 30
_BLOCK, _OVERLAP = 1 << 26, 1 << 12
_DEEPEST = 4
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An identifier that was found.

    Attributes:
        file: relative to the folder.
        place: `name`, `bytes`, a DICOM path such as `Sequence/PatientName`, `PNG text`, `EXIF`, `member X`, `pixels`,
            `pixels of row 3` of an array.
        identifier: the number of the identifier in the list, from 0; -1 for text-like pixels.
    """

    file: str
    place: str
    identifier: int


def scan(folder: Path, identifiers: Iterable[str], *, pixels: bool = False) -> list[Finding]:
    """All findings in a folder (or one file), in order of files.

    Args:
        folder: looked through with everything below; links are not followed.
        identifiers: each of at least 4 letters or digits.
        pixels: also look for text-like areas in pictures and DICOM files that may have them.

    Raises:
        DataError: there is no such folder, no identifier, or one is too short.
    """
    identifiers = list(dict.fromkeys(text.strip() for text in identifiers if text.strip()))
    if not folder.exists():
        raise DataError(f"{folder}: there is no such folder")
    short = [text for text in identifiers if len(re.sub(r"\W|_", "", text)) < SHORTEST]
    if short or not identifiers:
        which = f"{len(short)} of {len(identifiers)} identifiers have" if short else "the list is empty: each needs"
        raise DataError(
            f"{which} fewer than {SHORTEST} letters or digits: they would be found everywhere; leave them out"
        )
    patterns = [_patterns(text) for text in identifiers]
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if not path.is_symlink())
    found: dict[Finding, None] = {}
    for path in files:
        name = path.name if folder.is_file() else str(path.relative_to(folder))
        for finding in _in_file(path, name, patterns, pixels):
            found[finding] = None
    return list(found)


def _patterns(identifier: str) -> list[_Form]:
    date = _DATE.fullmatch(identifier)
    if date:
        year, month, day = date.groups()
        forms = [sep.join(parts) for sep in ("", "-", "/", ".") for parts in ((year, month, day), (day, month, year))]
        forms += [sep.join((month, day, year)) for sep in ("-", "/", ".")]
    else:
        forms = [identifier]
    return [_form(form, codec) for form in forms for codec in _CODECS if codec == "utf-8" or _differs(form, codec)]


def _differs(form: str, codec: str) -> bool:
    try:
        return form.encode(codec) != form.encode()
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One way to write an identifier: its longest part in small letters, looked for first, and the whole."""

    probe: bytes
    whole: re.Pattern[bytes]


def _form(text: str, codec: str) -> _Form:
    parts = [part for part in _BETWEEN.split(text.strip()) if part]
    probe = max(parts, key=len).lower().encode(codec).lower() if text.isascii() else b""
    return _Form(probe=probe, whole=_pattern(text, codec))


def _pattern(form: str, codec: str) -> re.Pattern[bytes]:
    """Each letter in either case, any separator between parts, and no letter or digit of ASCII beside them."""
    unit = len("a".encode(codec))
    between = b"(?:" + b"|".join(re.escape(c.encode(codec)) for c in " ^,=._-/") + b"){1,3}"
    body = between.join(
        b"".join(_letter(letter, codec) for letter in part) for part in _BETWEEN.split(form.strip()) if part
    )
    if unit > 1:
        return re.compile(body, re.DOTALL)
    return re.compile(b"(?<![0-9A-Za-z])" + body + b"(?![0-9A-Za-z])", re.DOTALL)


def _letter(letter: str, codec: str) -> bytes:
    forms = {form.encode(codec) for form in {letter, letter.lower(), letter.upper()} if _fits(form, codec)}
    return b"(?:" + b"|".join(re.escape(form) for form in sorted(forms)) + b")"


def _fits(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def _hits(data: bytes, patterns: list[list[_Form]]) -> Iterator[int]:
    low = data.lower()
    for number, forms in enumerate(patterns):
        if any(form.probe in low and form.whole.search(data) for form in forms):
            yield number


def _in_file(path: Path, name: str, patterns: list[list[_Form]], pixels: bool) -> Iterator[Finding]:
    for number in _hits(name.encode("utf-8", "replace"), patterns):
        yield Finding(file=name, place="name", identifier=number)
    if not path.is_file():
        return
    if path.stat().st_size > _MOST:
        yield from (Finding(file=name, place="bytes", identifier=number) for number in _in_large(path, patterns))
        return
    data = path.read_bytes()
    for place, number in _in_bytes(data, patterns, 0):
        yield Finding(file=name, place=place, identifier=number)
    for place in _text_like(data) if pixels else ():
        yield Finding(file=name, place=place, identifier=-1)


def _in_large(path: Path, patterns: list[list[_Form]]) -> set[int]:
    """Hits in a file too large to be read at once, such as an array of pictures: a block at a time, which overlap."""
    found: set[int] = set()
    with path.open("rb") as stream:
        block = stream.read(_BLOCK)
        if next(_unpacked(block[:_BLOCK]), None) is not None:
            raise DataError(f"{path} is packed and larger than 1 GiB: unpack it, and scan its parts")
        while block:
            found.update(_hits(block, patterns))
            more = stream.read(_BLOCK)
            block = block[-_OVERLAP:] + more if more else b""
    return found


def _in_bytes(data: bytes, patterns: list[list[_Form]], depth: int) -> Iterator[tuple[str, int]]:
    for number in _hits(data, patterns):
        yield "bytes", number
    if depth >= _DEEPEST:
        return
    for place, inner in _unpacked(data):
        for deeper, number in (
            _in_bytes(inner, patterns, depth + 1)
            if place.startswith("member")
            else ((place, number) for number in _hits(inner, patterns))
        ):
            yield (place if deeper in ("bytes", place) else f"{place}/{deeper}"), number


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What is packed in a file: its parts with names of their places."""
    if data[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            yield "member gzip", _some(packed)
    elif data[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for one in archive.infolist():
                    with archive.open(one) as packed:
                        yield f"member {one.filename}", one.filename.encode() + b"\n" + _some(packed)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
            return
    elif data[:8] == _PNG:
        yield from _png(data)
    elif data[128:132] == b"DICM":
        yield from _dicom(data)
    if data[:3] == b"\xff\xd8\xff" or data[:4] in (b"II*\0", b"MM\0*") or data[:8] == _PNG:
        yield from _exif(data)


def _some(packed: IO[bytes] | gzip.GzipFile) -> bytes:
    try:
        return packed.read(_MOST)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return b""


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if kind in (b"tEXt", b"eXIf"):
            yield "PNG text" if kind == b"tEXt" else "EXIF", body
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            yield "PNG text", body
            start = body.find(b"x")
            while start != -1:
                try:
                    yield "PNG text", body[:start] + zlib.decompressobj().decompress(body[start:], _MOST)
                    break
                except zlib.error:
                    start = body.find(b"x", start + 1)
        at += 12 + size


def _exif(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                tags = image.getexif()
                values = [*tags.values(), *(v for ifd in (0x8769, 0x8825, 0xA005) for v in tags.get_ifd(ifd).values())]
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return
    for value in values:
        yield "EXIF", value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _dicom(data: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        import pydicom
    except ImportError:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data), force=True)
            yield from _elements(dataset.file_meta, "file meta/")
            yield from _elements(dataset, "")
    except Exception:  # noqa: BLE001  # its raw bytes have been looked at; a broken file raises anything
        return


def _elements(dataset: Dataset, above: str) -> Iterator[tuple[str, bytes]]:
    for element in dataset:
        where = f"{above}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _elements(item, f"{where}/")
        elif element.keyword != "PixelData":
            value = element.value
            yield where, value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _text_like(data: bytes) -> Iterator[str]:
    """Where something looks like text: `pixels` of a picture, `pixels of row 3` of an array [rows, C, H, W] of bytes."""
    from wardround.data.imaging.deid import burned_in

    if data[:6] == b"\x93NUMPY":
        for row, picture in enumerate(_pictures(data)):
            if burned_in.find(burned_in.to_grey(picture)):
                yield f"pixels of row {row}"
    elif any(burned_in.find(burned_in.to_grey(frame)) for frame in burned_in.chosen(_frames(data))):
        yield "pixels"


def _pictures(data: bytes) -> NDArray[Any]:
    """[rows, H, W, C]; none of an array that holds something else."""
    import numpy as np

    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        array = np.empty(0)
    fits = array.ndim == 4 and array.shape[1] in (1, 3) and array.dtype == np.uint8
    return np.moveaxis(array, 1, -1) if fits else np.empty((0, 1, 1, 1))


def _frames(data: bytes) -> NDArray[Any]:
    """[frames, H, W, samples]; none of what is no picture."""
    import numpy as np

    from wardround.data.imaging.deid import pixels
    from wardround.errors import WardroundError

    none = np.empty((0, 1, 1, 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if data[128:132] == b"DICM":
                import pydicom

                return pixels.read(pydicom.dcmread(io.BytesIO(data)))
            from PIL import Image, UnidentifiedImageError

            try:
                with Image.open(io.BytesIO(data)) as image:
                    return np.asarray(image.convert("RGB"))[None]
            except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
                return none
    except (ImportError, AttributeError, WardroundError):
        return none


def read_identifiers(path: Path) -> list[str]:
    """Identifiers from a text file, one a line; blank lines and those that begin with # are left out. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list of identifiers {path} cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
