"""COVID-19 Radiography Database: chest X-rays gathered from many public sources.

M. Chowdhury et al.: Can AI help in screening viral and COVID-19 pneumonia?, IEEE Access 8, 2020; T. Rahman et al., Computers
in Biology and Medicine 132, 2021. Each class comes from sources of its own, so that a network can tell the source instead of
the disease (A. DeGrave et al., Nature Machine Intelligence 3, 2021): a high figure here is no sign of a useful model.
"""

from __future__ import annotations

import numpy as np

from wardround.data.datasets.collection import Collection, one_of, pictures_in
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.types import Description

_FOLDERS = ("Normal", "COVID", "Lung_Opacity", "Viral Pneumonia")
_NAMES = ("normal", "COVID-19", "lung opacity", "viral pneumonia")


class CovidRadiography(Collection):
    """21,165 X-rays of four classes, one pool. No patient is named; equal pictures stay together.

    Args:
        size: side in pixels; the files have 299.
        label: `four` classes, or `covid`: COVID-19 against all others.
        fit: `crop`, `stretch` or `pad`.

    Raises:
        ConfigError: an option has another value.
    """

    name, folder = "covid_radiography", "COVID-19_Radiography_Dataset"
    layout = "{COVID,Lung_Opacity,Normal,Viral Pneumonia}/images/*.png"
    page = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"

    def __init__(self, size: int = 64, label: str = "four", fit: Fit = "crop") -> None:
        super().__init__(Look(size=size, channels=1, fit=fit))
        one_of("label", label, ("four", "covid"))
        self.label = label

    def describe(self) -> Description:
        """One pool of grey pictures."""
        return Description(
            name=self.name,
            title="COVID-19 Radiography Database",
            source=self.page,
            licence="research only, with citation; see its page",
            sites=(self.name,),
            shape=self.look.shape,
            classes=_NAMES if self.label == "four" else ("other", "COVID-19"),
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`."""
        found = [pictures_in(self.named(f"{folder}/images", folder)) for folder in _FOLDERS]
        paths = [path for own in found for path in own]
        labels = np.repeat(np.arange(len(found)), [len(own) for own in found]).astype(np.int64)
        return Listing(
            paths=paths,
            labels=labels if self.label == "four" else (labels == _NAMES.index("COVID-19")).astype(np.int64),
            groups=np.arange(len(paths)),
            sites=np.full(len(paths), self.name),
        )
