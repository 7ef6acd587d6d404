"""ISIC 2019: dermatoscopic pictures of skin lesions in eight classes, at the six centres of Fed-ISIC2019.

N. Codella et al., arXiv:1710.05006; M. Combalia et al.: BCN20000, arXiv:1908.02288; P. Tschandl et al.: HAM10000, 2018.
Centres and folds are those of J. Ogier du Terrail et al.: FLamby, NeurIPS 2022, whose file leaves out the 2,084 pictures
without a lesion, since their centre is not known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wardround.data.datasets.collection import Collection, columns, one_of, whereabouts
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.errors import ConfigError, DataError
from wardround.types import SPLITS, Description

_CODES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
_NAMES = (
    "melanoma",
    "naevus",
    "basal cell carcinoma",
    "actinic keratosis",
    "benign keratosis",
    "dermatofibroma",
    "vascular lesion",
    "squamous cell carcinoma",
)
CENTRES = ("bcn", "vidir_molemax", "vidir_modern", "rosendahl", "msk", "vienna_dias")
"""FLamby's centres 0 to 5: Barcelona, three of Vienna and Queensland, New York, Vienna's slides."""
_POSITIVE, _NEGATIVE = ("MEL", "BCC"), ("NV", "BKL")


class ISIC2019(Collection):
    """25,331 pictures, 23,247 of them at six centres. Rows are split by lesion.

    Args:
        size: side in pixels.
        label: `eight` diagnoses, or `mel_bcc`: melanoma and basal cell carcinoma against naevus and benign keratosis; rows
            of other diagnoses leave.
        centres: `flamby`, or `pool`: all pictures in one place, which needs no file of FLamby's.
        split: `lesions` leaves it to be drawn; `flamby` takes the published folds, which divide pictures: lesions in both
            keep those of the test fold only.
        fit: `crop`, `stretch` or `pad`.
        absent: `error`, or `skip` rows without a picture.

    Raises:
        ConfigError: an option has another value, or `split: flamby` of a pool.
    """

    name, folder = "isic2019", "isic2019"
    layout = "ISIC_2019_Training_{Input/*.jpg,GroundTruth.csv,Metadata.csv}, train_test_split"
    page = "https://challenge.isic-archive.com/data/#2019"

    def __init__(
        self,
        size: int = 64,
        label: str = "eight",
        centres: str = "flamby",
        split: str = "lesions",
        fit: Fit = "crop",
        absent: str = "error",
    ) -> None:
        super().__init__(Look(size=size, fit=fit), absent)
        one_of("label", label, ("eight", "mel_bcc"))
        one_of("centres", centres, ("flamby", "pool"))
        one_of("split", split, ("lesions", "flamby"))
        if split == "flamby" and centres == "pool":
            raise ConfigError(
                "data.options.split = 'flamby' with centres = 'pool': FLamby's folds belong to its centres"
            )
        self.label, self.centres, self.split = label, centres, split

    def describe(self) -> Description:
        """FLamby's centres that have pictures, or one pool; in colour."""
        return Description(
            name=self.name,
            title="ISIC 2019, skin lesions" + (" at the centres of Fed-ISIC2019" if self.centres == "flamby" else ""),
            source=self.page,
            licence="CC BY-NC 4.0",
            sites=tuple(sorted(set(self._listing.sites.tolist()))),
            shape=self.look.shape,
            classes=_NAMES
            if self.label == "eight"
            else ("naevus or benign keratosis", "melanoma or basal cell carcinoma"),
            natural=self.centres == "flamby",
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`. Raises DataError where the tables contradict each other."""
        truth = self.named("ISIC_2019_Training_GroundTruth.csv")
        images, *marks = columns(truth, ("image", *_CODES))
        hot = np.array([[mark in ("1", "1.0") for mark in column] for column in marks]).T
        wrong = np.flatnonzero(hot.sum(axis=1) != 1)
        if len(wrong):
            raise DataError(f"{truth}: {images[wrong[0]]} has {int(hot[wrong[0]].sum())} diagnoses, expected one")
        codes = np.argmax(hot, axis=1).astype(np.int64)
        lesions = dict(
            zip(*columns(self.named("ISIC_2019_Training_Metadata.csv"), ("image", "lesion_id")), strict=True)
        )
        groups = np.array([lesions.get(image) or image for image in images])
        keep, sites, split = self._placed(images)
        if self.label == "mel_bcc":
            positive, negative = (
                np.isin(codes, [_CODES.index(one) for one in ones]) for ones in (_POSITIVE, _NEGATIVE)
            )
            keep &= positive | negative
            codes = positive.astype(np.int64)
        names = [f"{image}.jpg" for image, kept in zip(images, keep, strict=True) if kept]
        return Listing(
            paths=whereabouts([self.named("ISIC_2019_Training_Input")], names),
            labels=codes[keep],
            groups=groups[keep],
            sites=sites[keep],
            split=split[keep] if self.split == "flamby" else None,
        )

    def _placed(self, images: list[str]) -> tuple[NDArray[np.bool_], NDArray[np.str_], NDArray[np.int8]]:
        """Which pictures have a centre, bool [n]; their centres, and folds as index into SPLITS."""
        if self.centres == "pool":
            return np.ones(len(images), np.bool_), np.full(len(images), self.name), np.zeros(len(images), np.int8)
        path = self.named("train_test_split", "train_test_split.csv")
        table = {
            name: (centre, fold) for name, centre, fold in zip(*columns(path, ("image", "center", "fold")), strict=True)
        }
        lost = set(table) - set(images)
        if lost:
            raise DataError(
                f"{path}: the ground truth has no {min(lost)}, nor {len(lost) - 1} others: are both of 2019?"
            )
        for name, (centre, fold) in table.items():
            if centre not in map(str, range(len(CENTRES))) or fold not in ("train", "test"):
                raise DataError(f"{path}, {name}: center {centre!r}, fold {fold!r}: expected 0 to 5, and train or test")
        keep = np.array([image in table for image in images], dtype=np.bool_)
        found = [table.get(image, ("0", "train")) for image in images]
        sites = np.array([CENTRES[int(centre)] for centre, _ in found])
        return (
            keep,
            sites,
            np.array([fold == "test" for _, fold in found], dtype=np.int8) * np.int8(SPLITS.index("test")),
        )
