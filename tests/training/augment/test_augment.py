"""Augmentation: what each family does, and that its numbers depend on names alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_federation import RAGGED, Federation, difference, make_round, make_rows, names_of
from wardround import streams
from wardround.config.job import AugmentSpec
from wardround.errors import ConfigError
from wardround.models.cnn import CNN
from wardround.training import augment
from wardround.training.augment import places
from wardround.training.augment.draws import Draws
from wardround.training.augment.elastic import KNOTS
from wardround.training.augment.presets import PRESETS
from wardround.training.evaluate import Evaluator
from wardround.training.recipe import Recipe
from wardround.training.workers import Workers

PICTURE, VOLUME = (1, 8, 8), (1, 6, 8, 8)
EVERYTHING = {
    "flip": ("width", "height"), "turns": True, "rotation": 20, "tilt": 10, "zoom": 0.2, "shear": 5, "shift": 0.1,
    "elastic": 0.03, "brightness": 0.3, "contrast": 0.3, "tint": 0.1, "gamma": 0.3, "noise": 0.2, "blur": 1.0,
    "probability": dict.fromkeys(("affine", "elastic", "blur", "gamma", "jitter", "noise"), 0.6),
}  # fmt: skip
ALWAYS = {"probability": dict.fromkeys(("affine", "elastic", "blur", "gamma", "jitter", "noise"), 1.0)}


def made(shape: tuple[int, ...] = PICTURE, **options: Any) -> augment.Augment:
    found = augment.build(AugmentSpec(**options), shape)
    assert found is not None
    return found


def changed(x: Tensor, *, rows: np.ndarray | None = None, step: int = 0, index: int = 0, **options: Any) -> Tensor:
    """The images [n, C, ...] as one site's batch, changed."""
    own = np.arange(len(x))[None] if rows is None else rows
    keys = streams.site_keys(names_of(1))
    return made(tuple(x.shape[1:]), **options)(x[None], keys, own, make_round(index), step)[0]


def images(n: int = 64, shape: tuple[int, ...] = PICTURE) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def cnn(shape: tuple[int, ...] = PICTURE) -> nn.Module:
    torch.manual_seed(0)
    return CNN(shape, width=2).double()


def federation(shape: tuple[int, ...] = PICTURE, *, recipe: Recipe, **options: Any) -> Federation:
    found = Federation(cnn(shape), make_rows(RAGGED, shape), **options)
    found.executor.recipe = recipe
    return found


# ------------------------------------------------------------------------------------------------ the same numbers


@pytest.mark.parametrize("shape", [PICTURE, VOLUME], ids=["2D", "3D"])
def test_stacked_sequential_and_chunks_augment_alike(shape: tuple[int, ...]) -> None:
    recipe = Recipe(augment=made(shape, **EVERYTHING))
    learning = {"epochs": 2, "learning_rate": 0.02}
    expected = federation(shape, recipe=recipe, stacked=True).run(2, **learning)
    plain = federation(shape, recipe=Recipe(), stacked=True).run(2, **learning)
    assert difference(plain.everything(), expected.everything()) > 1e-3
    for options in ({"stacked": False}, {"stacked": True, "chunks": [[5, 0], [3], [1, 4, 2]]}):
        found = federation(shape, recipe=recipe, **options).run(2, **learning)
        assert difference(found.everything(), expected.everything()) <= 1e-12


def test_workers_augment_alike() -> None:
    recipe = Recipe(augment=made(**EVERYTHING), class_weights="site", classes=2, balanced=True)
    expected = federation(recipe=recipe, stacked=False).run(2, epochs=1)
    found = federation(recipe=recipe, stacked=False)
    workers = Workers(found.executor, found.data.features, found.data.labels, 2)
    found.data = replace(found.data, features=workers.features, labels=workers.labels)
    found.executor = workers  # type: ignore[assignment]
    found.run(2, epochs=1)
    workers.close()
    assert difference(found.everything(), expected.everything()) == 0.0


def test_a_row_is_changed_otherwise_at_each_place_step_round_and_site_and_alike_when_asked_again() -> None:
    x = images(1).expand(4, *PICTURE)
    rows = np.zeros((1, 4), dtype=np.int64)
    spec = {"rotation": 20, "noise": 0.2, **ALWAYS}
    first = changed(x, rows=rows, **spec)
    assert torch.equal(first, changed(x, rows=rows, **spec))
    others = [changed(x, rows=rows, step=1, **spec), changed(x, rows=rows, index=1, **spec)]
    keys = streams.site_keys(("elsewhere",))
    others.append(made(**spec)(x[None], keys, rows, make_round(), 0)[0])
    everyone = torch.cat([first, *others]).flatten(1)
    assert (torch.cdist(everyone, everyone) + torch.eye(16) > 1e-3).all()


def test_a_family_does_not_disturb_another() -> None:
    x = images()
    noisy = changed(x, noise=0.5, **ALWAYS)
    both = changed(x, noise=0.5, contrast=1e-12, **ALWAYS)
    assert torch.allclose(noisy, both, atol=1e-9)


def test_the_given_rows_are_left_as_they_are() -> None:
    x = images()
    before = x.clone()
    assert not torch.equal(changed(x, **EVERYTHING), before)
    assert torch.equal(x, before)


def test_only_training_rows_are_changed() -> None:
    """Figures, and the loss of the incoming model, come of rows as they are: 1.0 everywhere is seen as such."""
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 1)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                seen.append(x.detach().clone())
            logits: Tensor = self.head(x.flatten(1))
            return logits

    data = make_rows(RAGGED, PICTURE)
    found = Federation(Watching().double(), data, stacked=False)
    found.executor.recipe = Recipe(augment=made(**EVERYTHING))
    found.run(1, epochs=1)
    seen.clear()
    Evaluator(found.module, stackable=False).logits(found.server.model, found.states, data)
    assert torch.equal(torch.cat(seen), data.features)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_family_has_columns_of_its_own_and_those_of_a_channel_do_not_move_others(channels: int) -> None:
    draws = Draws.of(
        streams.site_keys(names_of(2)), np.zeros((2, 3), np.int64), seed=0, round=1, step=2, channels=channels
    )
    families = ("chosen", "turns", "affine", "shift", "blur", "gamma", "noise", "jitter")
    columns = np.concatenate([draws.uniform(family) for family in families], axis=1)
    assert np.array_equal(columns, draws.numbers)
    assert draws.uniform("jitter").shape == (6, 2 + channels)
    assert len(np.unique(columns)) == columns.size
    more = Draws.of(streams.site_keys(names_of(2)), np.zeros((2, 3), np.int64), seed=0, round=1, step=2, channels=9)
    assert np.array_equal(more.numbers[:, : columns.shape[1]], columns)


# ------------------------------------------------------------------------------------------------ what families do


@pytest.mark.parametrize("sizes", [(6, 9), (4, 6, 9)], ids=["2D", "3D"])
def test_a_grid_is_a_linear_map_a_shift_and_a_smooth_bend(sizes: tuple[int, ...]) -> None:
    """Against pixel by pixel arithmetic, and a bend that is one number at every point of its coarse grid."""
    d, draw = len(sizes), np.random.default_rng(0)
    matrix, shift = draw.normal(size=(3, d, d)), draw.normal(size=(3, d))
    bend = draw.normal(size=(1, d))
    knots = np.broadcast_to(bend.reshape(1, *[1] * d, d), (1, *[KNOTS] * d, d))
    x = torch.zeros(3, 1, *sizes, dtype=torch.float64)
    found = places.grid(x, matrix, shift, np.array([1]), knots).numpy()
    side = np.array(sizes)
    for row in range(3):
        for p in np.ndindex(*sizes):
            source = matrix[row] @ (np.array(p) - (side - 1) / 2) + shift[row] * side
            source += bend[0] * side if row == 1 else 0.0
            assert np.allclose(found[row][p], (2.0 * source / side)[::-1], atol=1e-9)


@pytest.mark.parametrize("sizes", [(9, 5), (5, 9, 5)], ids=["2D", "3D"])
def test_a_bend_passes_through_the_points_of_its_coarse_grid(sizes: tuple[int, ...]) -> None:
    """Sides of 5 and 9 pixels have a pixel at each of the 5 points: each one, and each second."""
    d = len(sizes)
    knots = np.random.default_rng(0).normal(size=(1, *[KNOTS] * d, d))
    x = torch.zeros(1, 1, *sizes, dtype=torch.float64)
    found = places.grid(x, np.zeros((1, d, d)), np.zeros((1, d)), np.array([0]), knots).numpy()
    at = found[(0, *[slice(None, None, (size - 1) // 4) for size in sizes])]
    assert np.allclose(at, 2.0 * knots[0][..., ::-1], atol=1e-9)


def test_flips_are_exact_and_as_often_as_not() -> None:
    x = images(400)
    found = changed(x, flip=("width",))
    flipped = (found - x.flip(-1)).abs().amax((1, 2, 3)) < 1e-9
    same = (found - x).abs().amax((1, 2, 3)) < 1e-9
    assert (flipped ^ same).all()
    assert 150 < flipped.sum() < 250  # 5 standard deviations of Binomial(400, 1/2) about 200


def test_turns_are_the_four_quarter_turns() -> None:
    x = images(200)
    found = changed(x, turns=True)
    kinds = torch.stack([(found - torch.rot90(x, n, (-2, -1))).abs().amax((1, 2, 3)) < 1e-9 for n in range(4)])
    assert (kinds.sum(0) == 1).all()
    assert (kinds.sum(1) > 25).all()


def test_depth_is_flipped_in_volumes() -> None:
    x = images(40, VOLUME)
    found = changed(x, flip=("depth",))
    flipped = (found - x.flip(-3)).abs().amax((1, 2, 3, 4)) < 1e-9
    assert (flipped | ((found - x).abs().amax((1, 2, 3, 4)) < 1e-9)).all()
    assert 0 < flipped.sum() < 40


def test_a_shift_moves_a_ramp_by_no_more_than_it_may() -> None:
    """Along a ramp the value is the column: inside, its change is the shift in pixels."""
    x = torch.arange(20.0, dtype=torch.float64).expand(50, 1, 20, 20).clone()
    moved = (changed(x, shift=0.1, **ALWAYS) - x)[:, 0, 10, 5:15]
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-9)
    assert 1.0 < moved.abs().max() <= 2.0


def test_a_rotation_keeps_pixels_square_where_images_are_oblong() -> None:
    """A disc about the centre is one after any turn: of 12 x 24 pixels, normalised coordinates alone would squash it."""
    down, across = torch.meshgrid(torch.arange(12.0) - 5.5, torch.arange(24.0) - 11.5, indexing="ij")
    disc = torch.sigmoid(2 * (4 - (down**2 + across**2).sqrt())).double().expand(30, 1, 12, 24)
    assert (changed(disc, rotation=90, **ALWAYS) - disc).abs().max() < 0.2


def test_values_keep_their_scale() -> None:
    """Of 1000 x + 50 each family makes 1000 times what it makes of x, and 50: units are the image's own."""
    x = images()
    spec = {"brightness": 0.5, "contrast": 0.5, "gamma": 0.5, "noise": 0.5, "blur": 1.0, **ALWAYS}
    assert torch.allclose(changed(1000 * x + 50, **spec), 1000 * changed(x, **spec) + 50, atol=1e-6)


def test_noise_is_normal_with_the_spread_that_was_asked() -> None:
    x = images(2000, (1, 16, 16))
    added = (changed(x, noise=0.5, **ALWAYS) - x).flatten(1) / x.flatten(1).std(1, unbiased=False, keepdim=True)
    levels = added.std(1)
    assert 0.24 < levels.mean() < 0.26  # uniform in (0, 1/2)
    assert levels.max() < 0.6
    assert abs(added.mean()) < 0.005


def test_blur_keeps_the_sum_of_a_point_and_spreads_it() -> None:
    x = torch.zeros(50, 1, 21, 21, dtype=torch.float64)
    x[:, :, 10, 10] = 1.0
    found = changed(x, blur=2.0, **ALWAYS)
    assert torch.allclose(found.sum((1, 2, 3)), torch.ones(50, dtype=torch.float64))
    offsets = torch.arange(21.0, dtype=torch.float64) - 10
    variance = (found.sum((1, 2)) * offsets**2).sum(1)
    assert 2.5 < variance.max() <= 4.0


@pytest.mark.parametrize("shape", [PICTURE, (3, 16, 16), VOLUME])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_changes_images_and_survives_blank_ones(preset: str, shape: tuple[int, ...]) -> None:
    found = augment.build(preset, shape)
    assert found is not None
    x = torch.cat([images(8, shape), torch.full((8, *shape), 7.0, dtype=torch.float64)]).float()
    out = found(x[None], streams.site_keys(names_of(1)), np.arange(16)[None], make_round(), 0)[0]
    assert out.dtype == torch.float32
    assert not torch.equal(out[:8], x[:8])
    assert torch.allclose(out[8:], x[8:], atol=1e-4)


def test_no_preset_flips_what_has_a_side() -> None:
    flips = {name: set(own.get("flip", ())) for name, own in PRESETS.items()}
    assert flips["xray"] == flips["ct"] == flips["mri"] == set()
    assert flips["ultrasound"] == flips["photo"] == {"width"}
    assert flips["dermoscopy"] == {"width", "height"}
    assert [name for name, own in PRESETS.items() if own.get("turns")] == ["dermoscopy"]


# ------------------------------------------------------------------------------------------------ what is asked


def test_options_stand_over_those_of_the_preset() -> None:
    found = made(preset="xray", rotation=0.0, flip=("width",))
    assert (found.spec.rotation, found.spec.flip, found.spec.shift) == (0.0, ("width",), PRESETS["xray"]["shift"])


@pytest.mark.parametrize("asked", [None, AugmentSpec(), AugmentSpec(padding="reflection")])
def test_nothing_asked_is_nothing_done(asked: AugmentSpec | None) -> None:
    assert augment.build(asked, PICTURE) is None


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"rotation": 5}, (7,), "for images"),
        ({"flip": ("depth",)}, PICTURE, "names depth"),
        ({"turns": True}, (1, 8, 9), "need squares"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        augment.build(AugmentSpec(**options), shape)
