"""ChestX-ray14 of the NIH Clinical Center: frontal chest X-rays with 14 findings, of which a picture may have several.

X. Wang et al.: ChestX-ray8, hospital-scale chest X-ray database and benchmarks on weakly-supervised classification and
localization of common thorax diseases, CVPR 2017. The findings were mined from reports: some are wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wardround.data.datasets.collection import Collection, columns, lines, one_of, whereabouts
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.errors import DataError
from wardround.types import SPLITS, Description

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_NONE = "No Finding"


class ChestXray14(Collection):
    """112,120 X-rays of 30,805 patients, labels int64 [n, 14]; one pool. Rows are split by patient.

    Args:
        size: side in pixels.
        split: `official`, the published lists of patients for training with validation, and for test; `patients` leaves it
            to be drawn.
        fit: `crop`, `stretch` or `pad`; pictures are 1024 x 1024.
        absent: `error`, or `skip` rows without a picture (one of the twelve archives will do).

    Raises:
        ConfigError: an option has another value.
    """

    name, folder = "chestxray14", "chestxray14"
    layout = "Data_Entry_2017.csv, train_val_list.txt, test_list.txt, images/*.png or images_001..012/images/*.png"
    page = "https://nihcc.app.box.com/v/ChestXray-NIHCC"

    def __init__(self, size: int = 64, split: str = "official", fit: Fit = "crop", absent: str = "error") -> None:
        super().__init__(Look(size=size, channels=1, fit=fit), absent)
        one_of("split", split, ("official", "patients"))
        self.split = split

    def describe(self) -> Description:
        """One pool of grey pictures, 14 labels."""
        return Description(
            name=self.name,
            title="ChestX-ray14, 14 findings",
            source=self.page,
            licence="free use with attribution to the NIH Clinical Center",
            sites=(self.name,),
            shape=self.look.shape,
            classes=tuple(finding.replace("_", " ").lower() for finding in FINDINGS),
            multilabel=True,
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`. Raises DataError for an unknown finding, or a picture that is in no list or in both."""
        path = self.named("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "sample_labels.csv")
        images, findings, patients = columns(path, ("Image Index", "Finding Labels", "Patient ID"))
        labels = np.zeros((len(images), len(FINDINGS)), dtype=np.int64)
        for row, text in enumerate(findings):
            for finding in text.split("|"):
                if finding in FINDINGS:
                    labels[row, FINDINGS.index(finding)] = 1
                elif finding != _NONE:
                    raise DataError(
                        f"{path}, {images[row]}: finding {finding!r}: expected {', '.join(FINDINGS)} or {_NONE}"
                    )
        folders = [self.home / "images", *(self.home / f"images_{part:03d}" / "images" for part in range(1, 13))]
        return Listing(
            paths=whereabouts(folders, images),
            labels=labels,
            groups=np.array(patients),
            sites=np.full(len(images), self.name),
            split=self._official(images) if self.split == "official" else None,
        )

    def _official(self, images: list[str]) -> NDArray[np.int8]:
        """The published split, index into SPLITS, int8 [n]; validation is carved from train later."""
        train, test = (set(lines(self.named(name))) for name in ("train_val_list.txt", "test_list.txt"))
        wrong = [image for image in images if (image in train) == (image in test)]
        if wrong:
            raise DataError(
                f"{wrong[0]}, one of {len(wrong)}, is in {'both' if wrong[0] in test else 'neither'} of {self.home}/"
                "train_val_list.txt and test_list.txt: fetch both again, or draw the split (split: patients)"
            )
        return np.array([SPLITS.index("test") if image in test else 0 for image in images], dtype=np.int8)
