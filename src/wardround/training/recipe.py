"""How rows become a gradient: augmentation, standardised pictures, loss, weights of the classes, and how an epoch is drawn.

A site's objective is f_k(w) = 1 / n_k sum_i c(y_i) l(w; x_i, y_i), with a factor c of each class and l the cross-entropy or the
focal loss. Where c is the same at all sites, FedAvg's mean of the f_k, weighed by rows, is that of all rows pooled. So factors
multiply rows, and are not divided by their sum in a batch, which would be another objective for each batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.config.job import Job, LossSpec
from wardround.errors import ConfigError
from wardround.training import augment
from wardround.training.evaluate import flat
from wardround.training.loss import RowLosses, focal_losses, row_losses
from wardround.training.pictures import Standard
from wardround.types import Round, Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_GAMMA = 2.0
"""The paper's choice (Lin et al. 2017, table 1b)."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an executor does with rows; the default is plain.

    Attributes:
        augment: what happens to a batch before the forward pass, or None.
        standard: how pictures are standardised after that, or None.
        first: stream key of a site -> number of its first training row; only where `standard` is not one for all.
        losses: each row's loss.
        class_weights: factor of each class; `site` balances the classes of each site; None for none.
        classes: number of classes.
        balanced: whether batches are drawn from the classes alike.
        accumulate: parts in which a batch goes through the network.
    """

    augment: augment.Augment | None = None
    standard: Standard | None = None
    first: Mapping[int, int] = field(default_factory=dict)
    losses: RowLosses = row_losses
    class_weights: tuple[float, ...] | Literal["site"] | None = None
    classes: int = 0
    balanced: bool = False
    accumulate: int = 1

    def parts(self, rows: int, *, independent: bool) -> int:
        """Parts of a batch of so many rows: none is empty, nor a single row where rows meet (BatchNorm)."""
        return min(self.accumulate, max(rows if independent else rows // 2, 1))

    def labels(self, data: Rows) -> Ints | None:
        """Labels of the rows of K sites, site after site, where batches are drawn by them."""
        return data.labels[flat(data)[0]].cpu().numpy() if self.balanced else None

    def factors(self, data: Rows, order: NDArray[np.intp]) -> Tensor | None:
        """Factors of the classes at K sites in the given order, [K, C] on the device of the rows; None where all are 1."""
        if self.class_weights is None:
            return None
        if self.class_weights == "site":
            index, owner = flat(data)
            cells = owner * self.classes + data.labels[index].cpu().numpy()
            counts = np.bincount(cells, minlength=len(data.count) * self.classes).reshape(-1, self.classes)
            found = np.stack([balanced(own) for own in counts])
        else:
            found = np.tile(np.array(self.class_weights), (len(data.count), 1))
        return torch.from_numpy(found[order]).to(data.features.device, data.features.dtype)

    def batch(
        self, x: Tensor, y: Tensor, weights: Tensor, factors: Tensor | None, *,
        keys: NDArray[np.uint64], rows: Ints, round: Round, step: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Features [k, b, ...], labels and weights [k, b] as a step takes them.

        Args:
            x, y, weights: as they were gathered.
            factors: of the classes at the k sites, [k, C].
            keys: uint64 [k], the sites' stream keys.
            rows: int64 [k, b], each row's number at its site.
            round, step: which batch.
        """
        if self.augment is not None:
            x = self.augment(x, keys, rows, round, step)
        if self.standard is not None:
            if self.standard.owner is not None:
                rows = np.array([[self.first[key]] for key in keys.tolist()]) + rows
            x = self.standard(x, rows)
        if factors is not None:
            weights = weights * factors.gather(1, y)
        return x, y, weights


PLAIN = Recipe()


def balanced(counts: Sequence[float] | NDArray[Any]) -> Floats:
    """Factors with which all classes weigh the same, float64 [C]: n / (C n_c), over the C classes that have rows.

    Their mean over rows is 1, so a learning rate keeps its meaning. A class without rows has factor 0; no rows, all 0.
    """
    numbers = np.asarray(counts, dtype=np.float64)
    here = numbers > 0
    factors: Floats = np.divide(numbers.sum() / max(here.sum(), 1), numbers, out=np.zeros_like(numbers), where=here)
    return factors


def recipe_of(
    job: Job, shape: tuple[int, ...], classes: int, *, multilabel: bool, class_weights: Sequence[float] | None
) -> Recipe:
    """What the job asks for.

    Args:
        job: the run.
        shape: of a prepared row.
        classes: number of classes, or of labels.
        multilabel: whether a row may have several.
        class_weights: those that the server made of the sites' counts, where it did.

    Raises:
        ConfigError: augmentation of rows that are no images, factors for another number of classes, or classes asked for
            where a row has labels.
    """
    spec, balances = job.training.loss, job.training.sampling == "balanced"
    if multilabel and (balances or spec.class_weights != "none"):
        key, value = ("sampling", "balanced") if balances else ("loss.class_weights", spec.class_weights)
        raise ConfigError(
            f"training.{key} = {value} belongs to rows of one class each, and these have {classes} labels: remove it; "
            "training.loss.name: focal is for rare labels too"
        )
    return Recipe(
        augment=augment.build(job.data.augment, shape),
        losses=partial(focal_losses, gamma=_GAMMA if spec.gamma is None else spec.gamma)
        if spec.name == "focal"
        else row_losses,
        class_weights=_class_weights(spec, classes, class_weights),
        classes=classes,
        balanced=balances,
        accumulate=job.training.accumulate,
    )


def _class_weights(
    spec: LossSpec, classes: int, summed: Sequence[float] | None
) -> tuple[float, ...] | Literal["site"] | None:
    asked = spec.class_weights
    if asked == "none":
        return None
    if asked == "site":
        return "site"
    if asked == "balanced":
        return None if summed is None else tuple(summed)
    if len(asked) != classes:
        raise ConfigError(
            f"training.loss.class_weights = {list(asked)} has {len(asked)} numbers, and there are {classes} classes: give one "
            "a class, in their order"
        )
    return asked
