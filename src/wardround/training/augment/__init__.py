"""Augmentation of training rows on the device: a file a family, and the presets of the modalities."""

from wardround.training.augment.augment import Augment, build

__all__ = ["Augment", "build"]
