"""COVID-CT: slices of chest CT cut from figures of preprints, with and without COVID-19.

X. Yang et al.: COVID-CT-Dataset, a CT scan dataset about COVID-19, arXiv:2003.13865. The published split is by patient.
Pictures of a preprint carry its typography and window, which differ between the classes.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from wardround.data.datasets.collection import Collection, lines, one_of, pictures_in
from wardround.data.imaging.gallery import Fit, Listing, Look
from wardround.errors import DataError
from wardround.types import Description

_CLASSES = ("NonCOVID", "COVID")
_PARTS = ("train", "val", "test")


class CovidCT(Collection):
    """746 slices, 349 of them of 216 patients with COVID-19; one pool.

    Args:
        size: side in pixels.
        split: `official`, the published lists; `papers` leaves it to be drawn, and keeps the figures of one preprint
            together, since no patient is named.
        fit: `crop`, `stretch` or `pad`; sides differ from file to file.

    Raises:
        ConfigError: an option has another value.
    """

    name, folder = "covid_ct", "COVID-CT"
    layout = (
        "Images-processed/CT_{COVID,NonCOVID}/*, Data-split/{COVID,NonCOVID}/{train,val,test}CT_{COVID,NonCOVID}.txt"
    )
    page = "https://github.com/UCSD-AI4H/COVID-CT"

    def __init__(self, size: int = 64, split: str = "official", fit: Fit = "stretch") -> None:
        super().__init__(Look(size=size, channels=1, fit=fit))
        one_of("split", split, ("official", "papers"))
        self.split = split

    def describe(self) -> Description:
        """One pool of grey pictures."""
        return Description(
            name=self.name,
            title="COVID-CT, slices from preprints",
            source=self.page,
            licence="not stated; figures of preprints under licences of their own",
            sites=(self.name,),
            shape=self.look.shape,
            classes=("no COVID-19", "COVID-19"),
            scale=(0.0, 255.0),
        )

    def listed(self) -> Listing:
        """See `Collection.listed`. Raises DataError for a list that names no picture, or a picture in several lists."""
        paths, labels, groups = [], [], []
        codes: list[NDArray[np.int8]] = []
        for label, kind in enumerate(_CLASSES):
            own = pictures_in(self.named(f"Images-processed/CT_{kind}", f"CT_{kind}"))
            paths += own
            labels += [label] * len(own)
            groups += [_paper(path.name) if self.split == "papers" else path.name for path in own]
            if self.split == "official":
                codes.append(self._official(kind, [path.name for path in own]))
        return Listing(
            paths=paths,
            labels=np.array(labels, dtype=np.int64),
            groups=np.array(groups),
            sites=np.full(len(paths), self.name),
            split=np.concatenate(codes) if codes else None,
        )

    def _official(self, kind: str, names: list[str]) -> NDArray[np.int8]:
        """The published split of one class, index into SPLITS, int8 [n]."""
        split = np.full(len(names), -1, dtype=np.int8)
        place = {name: i for i, name in enumerate(names)}
        for code, part in enumerate(_PARTS):
            path = self.named(f"Data-split/{kind}/{part}CT_{kind}.txt")
            for name in lines(path):
                if name not in place or split[place[name]] >= 0:
                    what = "no such picture is there" if name not in place else "it is in another list as well"
                    raise DataError(f"{path}: {name}: {what}: fetch both again from {self.page}")
                split[place[name]] = code
        if (split < 0).any():
            raise DataError(
                f"{names[int(np.argmax(split < 0))]} of CT_{kind} is in none of the lists of {self.home / 'Data-split'}: fetch "
                f"it again from {self.page}"
            )
        return split


def _paper(name: str) -> str:
    """The preprint of a figure: `2020.01.24.919183-p27-132.png` is of `2020.01.24.919183`."""
    return re.split(r"-p\d+-|%\d", name)[0]
