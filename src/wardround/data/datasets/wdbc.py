"""Breast Cancer Wisconsin (Diagnostic), as scikit-learn bundles it: a small task that needs no download.

W. N. Street, W. H. Wolberg, O. L. Mangasarian: Nuclear feature extraction for breast tumor diagnosis, 1993.
"""

from __future__ import annotations

import numpy as np

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
        # importing scikit-learn takes a second, and the command line names this class before it reads a record
        from sklearn.datasets import load_breast_cancer

        features, benign = load_breast_cancer(return_X_y=True)
        return SiteData(
            features=np.asarray(features, dtype=np.float64),
            labels=1 - np.asarray(benign, dtype=np.int64),
            patients=np.arange(len(benign)),
        )
