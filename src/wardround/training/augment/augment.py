"""All families over the batches of k sites at once: what moves pixels, then blur, intensity, noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wardround.config.job import AugmentSpec
from wardround.errors import ConfigError
from wardround.training.augment import affine, elastic, places, turns
from wardround.training.augment.blur import blur
from wardround.training.augment.draws import Draws, Floats, Ints
from wardround.training.augment.intensity import gamma, jitter
from wardround.training.augment.noise import noise
from wardround.training.augment.presets import PRESETS
from wardround.types import Round

Family = Callable[[Tensor, Draws], Tensor]
"""Given images of its own, [n, C, *sizes], and their streams, it gives them changed, in place where it can."""
_AXES = {"depth": -3, "height": -2, "width": -1}
PROBABILITIES = {"affine": 0.7, "elastic": 0.15, "blur": 0.1, "gamma": 0.15, "jitter": 0.3, "noise": 0.1}
"""Of each family at a row; flips and turns have their own. Its order is that of the draws."""


@dataclass(frozen=True)
class Augment:
    """What happens to training rows between gathering and the forward pass; it changes nothing that it is given.

    Attributes:
        spec: complete, with the values of its preset.
    """

    spec: AugmentSpec

    def __call__(self, x: Tensor, keys: NDArray[np.uint64], rows: Ints, round: Round, step: int) -> Tensor:
        """The batches of k sites, augmented.

        Args:
            x: [k, b, C, *sizes], on any device.
            keys: uint64 [k], the sites' stream keys.
            rows: int64 [k, b], each row's number at its site.
            round: seed and index.
            step: which step of the round.

        Returns:
            As x.
        """
        draws = Draws.of(keys, rows, seed=round.seed, round=round.index, step=step, channels=x.shape[2])
        flat = x.reshape(-1, *x.shape[2:])
        met = draws.uniform("chosen") < self._probabilities
        chosen = {name: np.flatnonzero(met[:, number]) for number, name in enumerate(PROBABILITIES)}
        out = self._moved(flat, draws, chosen)
        for name, family in self._families.items():
            if len(chosen[name]):
                index = torch.from_numpy(chosen[name]).to(x.device)
                out.index_copy_(0, index, family(out.index_select(0, index), draws.take(chosen[name])))
        return out.view(x.shape)

    @cached_property
    def _families(self) -> Mapping[str, Family]:
        """What changes values and is asked for, in this order."""
        spec = self.spec
        families: dict[str, tuple[float, Family]] = {
            "blur": (spec.blur, partial(blur, most=spec.blur)),
            "gamma": (spec.gamma, partial(gamma, most=spec.gamma)),
            "jitter": (
                max(spec.brightness, spec.contrast, spec.tint),
                partial(jitter, brightness=spec.brightness, contrast=spec.contrast, tint=spec.tint),
            ),
            "noise": (spec.noise, partial(noise, most=spec.noise)),
        }
        return {name: family for name, (amount, family) in families.items() if amount > 0}

    def _moved(self, x: Tensor, draws: Draws, chosen: Mapping[str, Ints]) -> Tensor:
        """A copy of the rows [n, C, *sizes], flipped, turned, mapped and bent in one resampling."""
        spec, d = self.spec, x.dim() - 2
        matrix = turns.matrices(draws, [d + _AXES[axis] for axis in spec.flip], turns=spec.turns, dimensions=d)
        shift = np.zeros((len(x), d))
        if max(spec.rotation, spec.tilt, spec.zoom, spec.shear, spec.shift) > 0:
            mapped = chosen["affine"]
            own = draws.take(mapped)
            matrix[mapped] = matrix[mapped] @ affine.matrices(
                own, rotation=spec.rotation, tilt=spec.tilt, zoom=spec.zoom, shear=spec.shear, dimensions=d
            )
            shift[mapped] = affine.shifts(own, spec.shift, d)
        bent = chosen["elastic"] if spec.elastic > 0 else chosen["elastic"][:0]
        if not len(bent) and (matrix == np.eye(d)).all() and not shift.any():
            return x.clone(memory_format=torch.contiguous_format)
        knots = elastic.knots(draws.take(bent), spec.elastic, d) if len(bent) else None
        # one call for all rows: to leave out those that stay where they are would take as long as to read them
        return F.grid_sample(
            x,
            places.grid(x, matrix, shift, bent, knots),
            mode="bilinear",
            padding_mode=spec.padding,
            align_corners=False,
        )

    @cached_property
    def _probabilities(self) -> Floats:
        own: Mapping[str, float] = self.spec.probability  # type: ignore[assignment]
        return np.array([own.get(family, usual) for family, usual in PROBABILITIES.items()])


def build(asked: AugmentSpec | str | None, shape: tuple[int, ...]) -> Augment | None:
    """What the job asks for; None where nothing would be changed.

    Args:
        asked: `data.augment`: a preset, options (over those of a preset), or None.
        shape: of a prepared row, [C, height, width] or [C, depth, height, width].

    Raises:
        ConfigError: rows that are no images, a flip along an axis that they do not have, quarter turns of oblongs.
    """
    if asked is None:
        return None
    spec = AugmentSpec.model_validate({"preset": asked}) if isinstance(asked, str) else asked
    if spec.preset is not None:
        own = {name: getattr(spec, name) for name in spec.model_fields_set}
        spec = AugmentSpec.model_validate({**PRESETS[spec.preset], **own})
    if len(shape) not in (3, 4):
        raise ConfigError(
            f"data.augment is for images [C, height, width] and volumes [C, depth, height, width], and a row here has the "
            f"shape {shape}: remove it"
        )
    if "depth" in spec.flip and len(shape) == 3:
        raise ConfigError(
            f"data.augment.flip names depth, and a row has the shape {shape}, [C, height, width]: remove it"
        )
    if spec.turns and shape[-1] != shape[-2]:
        raise ConfigError(
            f"data.augment.turns = true, and images are {shape[-2]} x {shape[-1]}: quarter turns need squares; set turns: false"
        )
    nothing = AugmentSpec(preset=spec.preset, padding=spec.padding, probability=spec.probability)
    return None if spec == nothing else Augment(spec)
