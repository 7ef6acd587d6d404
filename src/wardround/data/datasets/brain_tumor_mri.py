"""Brain Tumor MRI Dataset: slices of brain MRI with a glioma, a meningioma, a pituitary tumour, or none.

M. Nickparvar: Brain Tumor MRI Dataset, Kaggle, 2021, doi:10.34740/kaggle/dsv/2645886, gathered from figshare (J. Cheng,
doi:10.6084/m9.figshare.1512427), SARTAJ and Br35H. No patient is named: neighbouring slices of one are on both sides of the
published split, so its figures are too good.
"""

from __future__ import annotations

import numpy as np

from wardround.data.datasets.collection import Collection, one_of, pictures_in
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.types import SPLITS, Description

_CLASSES = ("notumor", "glioma", "meningioma", "pituitary")
_NAMES = ("no tumour", "glioma", "meningioma", "pituitary tumour")


class BrainTumorMRI(Collection):
    """7,023 slices of four classes, one pool. Equal pictures stay together; of those on both sides, test keeps its own.

    Args:
        size: side in pixels.
        label: `four` classes, or `tumour`: any against none.
        split: `official`, the published folders `Training` and `Testing`; `drawn` leaves it to be drawn.
        fit: `crop`, `stretch` or `pad`; sides differ from file to file.

    Raises:
        ConfigError: an option has another value.
    """

    name, folder = "brain_tumor_mri", "brain_tumor_mri"
    layout = "{Training,Testing}/{glioma,meningioma,notumor,pituitary}/*.jpg"
    page = "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset"

    def __init__(self, size: int = 64, label: str = "four", split: str = "official", fit: Fit = "pad") -> None:
        super().__init__(Look(size=size, channels=1, fit=fit))
        one_of("label", label, ("four", "tumour"))
        one_of("split", split, ("official", "drawn"))
        self.label, self.split = label, split

    def describe(self) -> Description:
        """One pool of grey pictures."""
        return Description(
            name=self.name,
            title="Brain Tumor MRI",
            source=self.page,
            licence="CC0 1.0",
            sites=(self.name,),
            shape=self.look.shape,
            classes=_NAMES if self.label == "four" else ("no tumour", "tumour"),
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`."""
        paths, labels, split = [], [], []
        for part, code in (("Training", SPLITS.index("train")), ("Testing", SPLITS.index("test"))):
            for label, kind in enumerate(_CLASSES):
                own = pictures_in(self.named(f"{part}/{kind}"))
                paths += own
                labels += [label] * len(own)
                split += [code] * len(own)
        codes = np.array(labels, dtype=np.int64)
        return Listing(
            paths=paths,
            labels=codes if self.label == "four" else (codes > 0).astype(np.int64),
            groups=np.arange(len(paths)),
            sites=np.full(len(paths), self.name),
            split=np.array(split, dtype=np.int8) if self.split == "official" else None,
        )
