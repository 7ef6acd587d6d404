"""Occlusion against its equation by hand, where it must look, and what it may not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wardround.training import occlusion as module_of
from wardround.training.occlusion import occlusion


class Weighted(nn.Module):
    """One logit, the weighted sum of the pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


def arrays(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def test_the_map_is_that_of_the_equation() -> None:
    """A side of 6 pixels has patches of one pixel, a pixel apart: the drop at p is w_p (x_p - mean)."""
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.rand(6, 6, generator=draw), torch.rand(2, 1, 6, 6, generator=draw)
    maps, decision = occlusion(Weighted(weight), {"weight": weight}, x)
    drop = (weight * (x[:, 0] - x.mean(dim=(1, 2, 3))[:, None, None])).relu()
    assert decision.tolist() == [1, 1]
    assert torch.allclose(maps, drop / drop.amax((1, 2), keepdim=True), atol=1e-5)


def test_pixels_have_the_mean_of_the_patches_that_cover_them() -> None:
    """12 pixels have patches of 2 that begin at 0, 1, .. 10: one covers the first pixel, two each but the last."""
    weight = torch.zeros(12, 12)
    weight[5, 5] = 1.0
    x = torch.zeros(1, 1, 12, 12)
    x[..., 5, 5] = 1.0
    maps, _ = occlusion(Weighted(weight), {"weight": weight}, x)
    # four of four patches cover pixel (5, 5), two of four its neighbours beside it, one of four those at its corners
    assert maps[0, 4:7, 4:7].tolist() == [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]
    assert maps.sum() == pytest.approx(4.0)


def test_what_speaks_against_class_0_is_found_where_it_is_decided() -> None:
    weight = -torch.ones(6, 6)
    x = torch.zeros(1, 1, 6, 6)
    x[..., 2, 3] = 1.0
    maps, decision = occlusion(Weighted(weight), {"weight": weight}, x)
    assert decision.tolist() == [0]
    assert torch.nonzero(maps[0] == 1.0).tolist() == [[2, 3]]


def test_a_label_has_its_own_logit_and_so_has_a_class() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0, 0, 0], 3 * x[:, 0, 5, 5]], dim=1)

    x = torch.ones(1, 1, 6, 6)
    x[..., 1:5, :] = 0.0
    for labelled in (False, True):
        maps, decision = occlusion(Two(), {}, x, labelled=labelled)
        assert decision.tolist() == [1]
        assert maps[0, 5, 5] == 1.0
        assert maps.sum() == 1.0


def test_it_finds_the_spot_that_a_volume_is_decided_by_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(3, 1),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    x = torch.zeros(1, 1, 10, 8, 9)
    x[:, :, 6, 1, 2] = 5.0
    before = x.clone()
    maps, decision = occlusion(module.train(), arrays(module), x)
    assert maps.shape == (1, 10, 8, 9)
    assert decision.tolist() == [1]
    # patches are of 3 x 2 x 3 pixels: what lies further from the spot never shares one with it
    assert maps[0, 6, 1, 2] > 0.95
    assert maps[0, :4].max() < 0.05
    assert maps[0, :, 3:].max() < 0.05
    assert torch.equal(x, before)
    monkeypatch.setattr(module_of, "_BLOCK", 1)
    assert torch.allclose(occlusion(module, arrays(module), x)[0], maps, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 40), (224, 7), (5, 64, 9)])
def test_every_pixel_is_covered_and_a_picture_of_one_value_has_no_map(sizes: tuple[int, ...]) -> None:
    covers = [module_of._cover(size, module_of._PATCHES[len(sizes)]) for size in sizes]
    assert all(cover.any(0).all() and cover.any(1).all() for cover in covers)
    assert all(len(cover) <= 2 * module_of._PATCHES[len(sizes)] - 1 for cover in covers)
    weight = torch.ones(sizes)
    maps, _ = occlusion(Weighted(weight), {"weight": weight}, torch.full((1, 1, *sizes), 2.0))
    assert maps.shape == (1, *sizes)
    assert not maps.any()
