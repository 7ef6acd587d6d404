"""HAM10000: dermatoscopic pictures of pigmented skin lesions, from four collections in Vienna and Queensland.

P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common
pigmented skin lesions, Scientific Data 5:180161, 2018, doi:10.7910/DVN/DBW86T. The class mix differs much between them:
94 % naevi where patients come for control, 35 % in a practice for skin cancer.
"""

from __future__ import annotations

import numpy as np

from wardround.data.datasets.collection import Collection, columns, one_of, whereabouts
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.data.root import data_root
from wardround.errors import DataError
from wardround.types import Description

_CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_NAMES = (
    "actinic keratosis",
    "basal cell carcinoma",
    "benign keratosis",
    "dermatofibroma",
    "melanoma",
    "naevus",
    "vascular lesion",
)
_MALIGNANT = ("akiec", "bcc", "mel")
_BY_SITE = "ham10000_sites"


class HAM10000(Collection):
    """10,015 pictures of 7,470 lesions; a site is a collection of the column `dataset`. Rows are split by lesion.

    Two layouts are read: the official one in `ham10000`, or `ham10000_sites/labels.csv` with columns `site` and `file`
    beside the official ones.

    Args:
        size: side in pixels.
        label: `seven` diagnoses, or `malignant`: melanoma, basal cell carcinoma and actinic keratosis with intraepithelial
            carcinoma, against all others.
        sites: the collections to use; default all.
        fit: how a picture of 600 x 450 becomes a square: `crop`, `stretch` or `pad`.
        absent: `error`, or `skip` rows without a picture.

    Raises:
        ConfigError: an option has another value.
    """

    name, folder = "ham10000", "ham10000"
    layout = "HAM10000_metadata.csv, HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg"
    page = "https://doi.org/10.7910/DVN/DBW86T"

    def __init__(
        self,
        size: int = 64,
        label: str = "seven",
        sites: tuple[str, ...] | list[str] = (),
        fit: Fit = "crop",
        absent: str = "error",
    ) -> None:
        super().__init__(Look(size=size, fit=fit), absent)
        one_of("label", label, ("seven", "malignant"))
        self.label = label
        self.sites = tuple(sites)

    def describe(self) -> Description:
        """The collections that the table names; pictures in colour."""
        return Description(
            name=self.name,
            title="HAM10000, pigmented skin lesions",
            source=self.page,
            licence="CC BY-NC 4.0",
            sites=tuple(sorted(set(self._listing.sites.tolist()))),
            shape=self.look.shape,
            classes=_NAMES if self.label == "seven" else ("benign", "malignant"),
            natural=True,
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`. Raises DataError for an unknown diagnosis or collection."""
        other = data_root(self.name, layout=self.layout, source=self.page) / _BY_SITE
        if not (other.parent / self.folder).is_dir() and (other / "labels.csv").is_file():
            path = other / "labels.csv"
            lesions, diagnoses, sites, files = columns(path, ("lesion_id", "dx", "site", "file"))
            paths = [other / file for file in files]
        else:
            path = self.named("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
            lesions, images, diagnoses, sites = columns(path, ("lesion_id", "image_id", "dx", "dataset"))
            folders = (self.home / name for name in ("HAM10000_images_part_1", "HAM10000_images_part_2", "images"))
            paths = whereabouts(folders, [f"{image}.jpg" for image in images])
        wrong = sorted(set(diagnoses) - set(_CODES))
        if wrong:
            raise DataError(f"{path}: dx = {wrong[0]!r}: expected one of {', '.join(_CODES)}")
        unknown = sorted(set(self.sites) - set(sites))
        if unknown:
            raise DataError(f"data.options.sites: {path} has no {unknown[0]}: it has {', '.join(sorted(set(sites)))}")
        codes = np.array([_CODES.index(one) for one in diagnoses], dtype=np.int64)
        if self.label == "malignant":
            codes = np.isin(codes, [_CODES.index(one) for one in _MALIGNANT]).astype(np.int64)
        keep = np.isin(sites, self.sites) if self.sites else np.ones(len(sites), dtype=np.bool_)
        return Listing(
            paths=[one for one, kept in zip(paths, keep, strict=True) if kept],
            labels=codes[keep],
            groups=np.array(lesions)[keep],
            sites=np.array(sites)[keep],
        )
