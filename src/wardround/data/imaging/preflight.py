"""What is used of a source, what is not, and why: found before anything of the site's folder is written."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.data.imaging.fit import Fit, fitted
from wardround.data.imaging.labels import Labels, Row
from wardround.data.imaging.limits import Limits
from wardround.data.imaging.looks import looks_like, numbers_of
from wardround.data.imaging.picture import Options, Picture
from wardround.data.imaging.studies import Study
from wardround.errors import DataError, Refused, WardroundError
from wardround.types import Json

REASONS: Mapping[str, str] = {
    "unreadable": "cannot be read",
    "unlabelled": "no usable label",
    "modality": "another modality",
    "secondary": "secondary capture",
    "localiser": "localiser",
    "shape": "does not fit the asked size or window",
    "small": "too small",
    "blank": "blank",
    "looks": "does not look like the modality",
    "refused": "refused by de-identification",
    "duplicate": "duplicate pixels",
    "conflict": "duplicate pixels, other labels",
    "straddles": "patient or lesion in two splits",
    "crashed": "its reader crashed",
}
"""Reason -> in words, in the order in which they are told."""
BINS = 32
_HELD_OUT = {"": 0, "train": 0, "validation": 1, "test": 2}
_LONGEST = 256
_BLANK = 2
"""Grey levels of 255 between the 0.1 and the 99.9 percentile of a picture that shows nothing."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What is asked of each picture.

    Attributes:
        modality: the declared one.
        smallest: pixels of the shortest side in the plane.
        looks: whether a picture that does not look like its modality is left out; it is told of in any case.
        secondary: whether secondary captures are used.
    """

    modality: str
    smallest: int = 16
    looks: bool = True
    secondary: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one study; it holds identifiers and stays at the site.

    Attributes:
        reason: a key of `REASONS`, "" for one that may be used.
        detail: in words.
        modality: one of `MODALITIES`, "" where it could not be told.
        row: where its array stands in the shard, -1 without one.
        digest: of its decoded pixels.
        size: of the picture before it was fitted.
        histogram: rows of `BINS` counts of the stored numbers.
        patient, group, age, sex: of the file's own header.
        warnings: sentences.
        blanked: areas that de-identification blanked.
        cleaned: what else it did, in counts.
    """

    reason: str = ""
    detail: str = ""
    modality: str = ""
    row: int = -1
    digest: str = ""
    size: tuple[int, ...] = ()
    histogram: tuple[int, ...] = ()
    patient: str = ""
    group: str = ""
    age: str = ""
    sex: str = ""
    warnings: tuple[str, ...] = ()
    blanked: int = 0
    cleaned: Mapping[str, int] = field(default_factory=dict)


def examine(
    study: Study, options: Options, checks: Checks, fit: Fit, policy: Any | None
) -> tuple[NDArray[Any] | None, Finding]:  # fmt: skip
    """Read, clean, judge and fit one study; whatever is wrong with it becomes a finding.

    Args:
        study: what to read.
        options: how.
        checks: what is asked of it.
        fit: what it becomes.
        policy: of de-identification (`deid.Policy`); None leaves pixels as they are.

    Returns:
        [C, *size] of `fit.dtype`, also of what is only left out for its looks, and what was found.
    """
    facts: dict[str, Any] = {}
    try:
        picture, reason, detail = _read(study, options, checks, facts)
        if picture is None:
            return None, Finding(reason=reason, detail=detail, **facts)
        facts["digest"] = hashlib.blake2b(
            np.ascontiguousarray(picture.pixels).data, digest_size=16, key=str(picture.pixels.shape).encode()
        ).hexdigest()
        if policy is not None:
            picture, done = _cleaned(picture, policy)
            facts |= done
        looks = looks_like(picture, checks.modality) or ""
        if told := numbers_of(picture, checks.modality):
            facts["warnings"] = (*facts.get("warnings", ()), told)
        array = fitted(picture, fit)
    except Refused as error:
        return None, Finding(reason="refused", detail=_without(str(error), study), **facts)
    except DataError as error:
        reason = "shape" if facts.get("size") else "unreadable"
        return None, Finding(reason=reason, detail=_without(str(error), study), **facts)
    except WardroundError:  # nothing of the study: an extra that is missing, a disk that is full
        raise
    except Exception as error:  # noqa: BLE001 - one study never ends the rest
        return None, Finding(reason="unreadable", detail=f"{type(error).__name__} while it was fitted", **facts)
    low, high = np.percentile(array, [0.1, 99.9])
    if float(high) - float(low) < _BLANK * fit.scale[1] / 255:
        return None, Finding(reason="blank", detail="all its pixels are alike", **facts)
    counts, _ = np.histogram(array, bins=BINS, range=fit.scale)
    facts["histogram"] = tuple(int(n) for n in counts)
    if looks:
        facts["warnings"] = (*facts.get("warnings", ()), looks)
    return array, Finding(reason="looks" if looks and checks.looks else "", detail=looks, **facts)


def _read(study: Study, options: Options, checks: Checks, facts: dict[str, Any]) -> tuple[Picture | None, str, str]:
    """A study's picture, or why it is not used; what is known of it goes into `facts`. Pixels of others are not read."""
    header = header_of(study, options.limits)
    if header is not None:
        facts |= {**header.person, "modality": header.modality}
        reason, detail = _not_asked(header, checks)
        if reason:
            return None, reason, detail
    picture = read_study(study, options)
    facts |= {"modality": picture.modality, "size": tuple(int(side) for side in picture.pixels.shape)}
    reason, detail = _unfit(picture, checks)
    return (None if reason else picture), reason, detail


def read_study(study: Study, options: Options) -> Picture:
    """A study's picture.

    Raises:
        DataError: it cannot be read.
    """
    from wardround.data.imaging.boundary import parsing
    from wardround.data.imaging.decode import read

    files = [Path(file) for file in study.files]
    if study.index is not None:
        return _of_archive(files[0], study.index, options)
    with parsing(files[0], "a picture", quote=False):
        return read(files[0] if len(files) == 1 else files, options=options)


def _of_archive(file: Path, index: int, options: Options) -> Picture:
    pixels = np.load(file, mmap_mode="r", allow_pickle=False)[index]
    pixels = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 and pixels.shape[-1] in (1, 3) else pixels[None]
    return Picture(pixels=np.ascontiguousarray(pixels), modality=options.modality or "OT")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header of a DICOM study says without its pixels.

    Attributes:
        modality: one of `MODALITIES`.
        code: the tag Modality, such as `MR` or `SR`; "" where there is none, or it is no code.
        localiser: whether it is one.
        pixels: whether it says how large its picture is.
        person: patient, group, age and sex as in `Finding`.
    """

    modality: str
    code: str
    localiser: bool
    pixels: bool
    person: Mapping[str, str]


def header_of(study: Study, limits: Limits) -> Header | None:
    """The header of a study's first file; None for what is not DICOM, which has none.

    Raises:
        DataError: it cannot be read.
    """
    from wardround.data.imaging.boundary import parsing
    from wardround.data.imaging.decode import format_of
    from wardround.data.imaging.dicom import is_localiser, modality_of
    from wardround.data.imaging.dicom_file import open_dicom
    from wardround.data.imaging.labels import age_bin, sex_of

    file = Path(study.files[0])
    if study.index is not None or format_of(file, limits) != "dicom":
        return None
    persons = ("PatientID", "StudyInstanceUID", "PatientAge", "PatientSex")
    head = open_dicom(file, limits, pixels=False, tags=(*persons, "Modality", "ImageType", "Rows"))
    with parsing(file, "DICOM", quote=False):
        patient, group, age, sex = (_short(str(head.get(tag) or "").strip()) for tag in persons)
        code = str(head.get("Modality") or "").strip()
        return Header(
            modality=modality_of(head), code=code if code.isalpha() and len(code) <= 16 else "",
            localiser=is_localiser(head), pixels="Rows" in head,
            person={"patient": patient, "group": group, "age": age_bin(age), "sex": sex_of(sex)},
        )  # fmt: skip


def _short(identifier: str) -> str:
    """An identifier as it is, or the hash of one beyond any length that the standard allows (64 letters)."""
    if len(identifier) <= _LONGEST:
        return identifier
    return hashlib.blake2b(identifier.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _not_asked(header: Header, checks: Checks) -> tuple[str, str]:
    if header.code and header.modality != checks.modality:
        return "modality", f"its header says {header.code}, and {checks.modality} is wanted"
    return ("localiser", "its image type says so") if header.localiser else ("", "")


def _unfit(picture: Picture, checks: Checks) -> tuple[str, str]:
    if picture.modality != checks.modality:
        return "modality", f"it is {picture.modality}, and {checks.modality} is wanted"
    kind = str(picture.facts.get("kind", ""))
    if "Secondary Capture" in kind and not checks.secondary:
        return "secondary", f"it is {kind}"
    sides = picture.pixels.shape[-2:]
    if min(sides) < checks.smallest:
        return "small", f"it is {sides[0]} x {sides[1]} pixels, and {checks.smallest} is the least"
    return _empty(picture)


def _empty(picture: Picture) -> tuple[str, str]:
    if not np.isfinite(picture.pixels).all():
        return "unreadable", "some of its pixels are not finite"
    alike = picture.pixels.min() == picture.pixels.max()
    return ("blank", "all its pixels are alike") if alike else ("", "")


def _cleaned(picture: Picture, policy: Any) -> tuple[Picture, dict[str, Any]]:
    from wardround.data.imaging.deid import clean_picture

    head = None
    if "body_part" in picture.facts:
        head = picture.facts["body_part"] in ("HEAD", "BRAIN", "SKULL", "FACE", "ORBIT", "NECK")
    annotated = True if picture.facts.get("burned_in") == "YES" else None
    cleaned, report = clean_picture(picture, policy, head=head, annotated=annotated)
    counts = dict(report.counts())
    return cleaned, {"warnings": tuple(report.warnings), "blanked": counts.pop("blanked", 0), "cleaned": counts}


def _without(message: str, study: Study) -> str:
    """A reason without the path that stands beside it anyway."""
    for file in study.files:
        message = message.replace(file, "it")
    return message.replace(str(Path(study.files[0]).parent), "its folder")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which studies are used.

    Attributes:
        studies: all, in order.
        rows: what the table says of each; None for what it does not name.
        findings: of each.
        used: their numbers.
    """

    studies: tuple[Study, ...]
    rows: tuple[Row | None, ...]
    findings: tuple[Finding, ...]
    used: tuple[int, ...]

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> studies, in the order of `REASONS`."""
        counts = Counter(finding.reason for finding in self.findings)
        return {reason: counts[reason] for reason in REASONS if counts[reason]}

    def patient(self, number: int) -> str:
        """Identifier of a study's patient, of the table or else of its header."""
        row = self.rows[number]
        return (row.patient if row else "") or self.findings[number].patient

    def group(self, number: int) -> str:
        """Identifier of its lesion or study."""
        row = self.rows[number]
        return (row.group if row else "") or self.findings[number].group


def unlabelled(labels: Labels, study: Study) -> Finding | None:
    """Why a study has no usable label, None where it has one."""
    row = labels.rows.get(study.name)
    if row is None:
        return Finding(reason="unlabelled", detail="no row of the label table names it")
    return Finding(reason="unlabelled", detail=row.problem) if row.problem else None


def judge(studies: Sequence[Study], labels: Labels | None, findings: Sequence[Finding]) -> Verdict:
    """Compare studies with each other: pixels that occur twice, patients in two splits.

    Of equal pictures the most held-out one stays, so that no test picture is trained on; where their labels differ none
    does. Of a patient or lesion in two splits, what is trained on goes.
    """
    found = list(findings)
    rows = tuple(labels.rows.get(study.name) if labels else None for study in studies)
    same: dict[str, list[int]] = defaultdict(list)
    for number, finding in enumerate(found):
        if not finding.reason and finding.digest:
            same[finding.digest].append(number)
    for numbers in same.values():
        if len(numbers) > 1:
            _resolve(numbers, studies, rows, found)
    open_ = [number for number, finding in enumerate(found) if not finding.reason]
    verdict = Verdict(studies=tuple(studies), rows=rows, findings=tuple(found), used=())
    units = units_of([verdict.patient(n) for n in open_], [verdict.group(n) for n in open_])
    most: dict[int, str] = {}
    for unit, number in zip(units, open_, strict=True):
        split = _split(rows[number])
        if unit not in most or _HELD_OUT[split] > _HELD_OUT[most[unit]]:
            most[unit] = split
    for unit, number in zip(units, open_, strict=True):
        split = _split(rows[number])
        if split != most[unit]:
            found[number] = _skipped(
                found[number], "straddles", f"it is in {split or 'no split'}, others in {most[unit]}"
            )
    used = tuple(number for number, finding in enumerate(found) if not finding.reason)
    return Verdict(studies=tuple(studies), rows=rows, findings=tuple(found), used=used)


def units_of(patient: Sequence[str], group: Sequence[str]) -> list[int]:
    """What must not be divided, a number a row: rows that share a patient or a group, over any number of steps."""
    parent = list(range(len(patient)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first: dict[tuple[str, str], int] = {}
    for number, keys in enumerate(zip(patient, group, strict=True)):
        for kind, key in zip(("patient", "group"), keys, strict=True):
            if key:
                a, b = root(first.setdefault((kind, key), number)), root(number)
                parent[max(a, b)] = min(a, b)
    return [root(number) for number in range(len(patient))]


def _resolve(
    numbers: Sequence[int], studies: Sequence[Study], rows: Sequence[Row | None], found: list[Finding]
) -> None:  # fmt: skip
    labels = {rows[number].labels if (_row := rows[number]) else () for number in numbers}  # type: ignore[union-attr]
    if len(labels) > 1:
        for number in numbers:
            other = next(n for n in numbers if n != number)
            found[number] = _skipped(found[number], "conflict", f"the same pixels as {studies[other].name}")
        return
    kept = max(numbers, key=lambda number: (_HELD_OUT[_split(rows[number])], -number))
    for number in numbers:
        if number != kept:
            found[number] = _skipped(found[number], "duplicate", f"the same pixels as {studies[kept].name}")


def _split(row: Row | None) -> str:
    return row.split if row else ""


def _skipped(finding: Finding, reason: str, detail: str) -> Finding:
    return Finding(**{**finding.__dict__, "reason": reason, "detail": detail})


def tree_of(
    verdict: Verdict, labels: Labels | None, fit: Fit, facts: Mapping[str, Json], *, beside: Sequence[str] = (),
    names: int = 200,
) -> dict[str, Json]:  # fmt: skip
    """What the pre-flight says, as JSON. It names files, and therefore stays at the site.

    Args:
        verdict: which studies are used.
        labels: of the source.
        fit: what pictures become.
        facts: the site, the source, the modality and whatever else goes with it.
        beside: reasons of what nobody asked for: it does not count towards the share that is left out.
        names: most files named a reason.
    """
    used = verdict.used
    rows = [verdict.rows[n] for n in used]
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    histograms: dict[str, NDArray[np.int64]] = {}
    for number, row in zip(used, rows, strict=True):
        own = row.labels if row else ()
        for name in own or (("none of them",) if labels and labels.multilabel else ()):
            by_class[name][row.split or "to be drawn" if row else ""] += 1
            added = np.array(verdict.findings[number].histogram, dtype=np.int64)
            histograms[name] = histograms.get(name, np.zeros(BINS, dtype=np.int64)) + added
    everywhere = [verdict.findings[n] for n in used]
    named: dict[str, list[dict[str, str]]] = defaultdict(list)
    for study, finding in zip(verdict.studies, verdict.findings, strict=True):
        if finding.reason and len(named[finding.reason]) < names:
            named[finding.reason].append({"name": study.name, "why": finding.detail})
    classes = list(labels.classes) if labels else []
    asked = len(verdict.studies) - sum(verdict.skipped.get(reason, 0) for reason in beside)
    return {
        **facts,
        "studies": len(verdict.studies),
        "used": len(used),
        "skipped": verdict.skipped,
        "skipped_share": (asked - len(used)) / max(asked, 1),
        "modalities": dict(Counter(found.modality for found in verdict.findings if found.modality).most_common()),
        "named": {reason: named[reason] for reason in REASONS if reason in named},
        "classes": classes,
        "multilabel": bool(labels and labels.multilabel),
        "columns": dict(labels.columns) if labels else {},
        "guessed": list(labels.guessed) if labels else [],
        "labels_without_file": len(labels.without_file) if labels else 0,
        "labels_without_file_examples": list(labels.without_file[:10]) if labels else [],
        "matched_by_name": labels.by_name if labels else 0,
        "by_class": {name: dict(by_class[name]) for name in [*classes, "none of them"] if name in by_class},
        "empty_classes": [name for name in classes if name not in by_class],
        "patients": len({verdict.patient(n) for n in used} - {""}),
        "groups": len({verdict.group(n) for n in used} - {""}),
        "units": len(set(units_of([verdict.patient(n) for n in used], [verdict.group(n) for n in used]))),
        "age": _counted(
            [_first(row.age if row else "", verdict.findings[n].age) for n, row in zip(used, rows, strict=True)]
        ),
        "sex": _counted(
            [_first(row.sex if row else "", verdict.findings[n].sex) for n, row in zip(used, rows, strict=True)]
        ),
        "sizes": dict(Counter(" x ".join(map(str, finding.size)) for finding in everywhere).most_common(12)),
        "shape": list(fit.shape),
        "dtype": fit.dtype,
        "scale": list(fit.scale),
        "histograms": {name: counts.tolist() for name, counts in histograms.items()},
        "warnings": dict(Counter(w for finding in everywhere for w in finding.warnings).most_common(20)),
        "blanked": sum(bool(finding.blanked) for finding in everywhere),
        "cleaned": dict(sum((Counter(dict(finding.cleaned)) for finding in everywhere), Counter())),
    }


def _first(*values: str) -> str:
    return next((value for value in values if value), "")


def _counted(values: Sequence[str]) -> dict[str, int]:
    counts = Counter(values)
    return {name or "not known": counts[name] for name in sorted(counts, key=lambda name: (name == "", name.zfill(8)))}
