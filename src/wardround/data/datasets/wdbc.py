"""Breast Cancer Wisconsin (Diagnostic), as scikit-learn bundles it: a small task that needs no download.

W. N. Street, W. H. Wolberg, O. L. Mangasarian: Nuclear feature extraction for breast tumor diagnosis, 1993.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.errors import DataError
from wardround.types import Column, Description, SiteData

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
_NAMES = tuple(form.format(measure) for form in ("mean {}", "{} error", "worst {}") for measure in _MEASURES)


class WDBC:
    """569 fine needle aspirates of breast masses, 30 measures of their cell nuclei; one row is one patient.

    Label 1 is malignant (212 rows). Scikit-learn codes it as 0; a diagnostic model's positive class is the disease.
    """

    def describe(self) -> Description:
        """One place, 30 numeric columns without gaps."""
        return Description(
            name="wdbc",
            title="Breast Cancer Wisconsin (Diagnostic)",
            source="https://archive.ics.uci.edu/dataset/17 (bundled with scikit-learn)",
            licence="CC BY 4.0",
            sites=("wdbc",),
            columns=tuple(Column(name=name) for name in _NAMES),
            classes=("benign", "malignant"),
        )

    def load(self, site: str) -> SiteData:
        """All 569 rows: features float64 [569, 30]. Raises DataError for a site other than `wdbc`."""
        if site != "wdbc":
            raise DataError(f"site {site!r}: the dataset 'wdbc' has one site, 'wdbc'")
        features, benign = _bundled()
        return SiteData(features=features, labels=1 - benign, patients=np.arange(len(benign)))


def _bundled() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features [569, 30] and labels as scikit-learn codes them, read from its file: importing it takes two seconds."""
    package = find_spec("sklearn")
    places = package.submodule_search_locations if package else None
    file = Path(places[0]) / "datasets" / "data" / "breast_cancer.csv" if places else None
    if file is None or not file.is_file():
        from sklearn.datasets import load_breast_cancer

        features, benign = load_breast_cancer(return_X_y=True)
        return features, benign.astype(np.int64)
    table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int64)
