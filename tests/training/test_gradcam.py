"""Grad-CAM against its two equations by hand, and where it must look."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wardround.training.gradcam import convolves, grad_cam


class Tiny(nn.Module):
    """One convolution of the identity and its negative, their means as two logits, in place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(x)).mean(dim=(2, 3))


def test_the_map_is_that_of_the_equations() -> None:
    x = torch.tensor([[[[3.0, 0.0], [1.0, -1.0]]]])
    maps, decision = grad_cam(Tiny(), dict(Tiny().named_parameters()), x)
    # A^1 = x; dy_0 / dA^1 = 1/4 where x > 0, so alpha_1 = 2/16; dy_0 / dA^2 = 0; L = ReLU(x / 8), scaled by its largest
    assert decision.tolist() == [0]
    assert maps[0].tolist() == [[1.0, 0.0], [pytest.approx(1 / 3), 0.0]]


def test_it_finds_the_spot_that_a_volume_is_decided_by() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, 1)
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.abs_()
    x = torch.zeros(2, 1, 8, 8, 8)
    x[:, :, 6, 1, 2] = 5.0
    maps, decision = grad_cam(module, dict(module.named_parameters()), x)
    assert maps.shape == (2, 8, 8, 8)
    place = torch.nonzero(maps[0] == maps[0].max())[0]
    assert (place - torch.tensor([6, 1, 2])).abs().max() <= 1
    assert decision.tolist() == [1, 1]
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_model_without_convolutions_has_no_map() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert not convolves(linear)
    with pytest.raises(ValueError, match="no convolution"):
        grad_cam(linear, dict(linear.named_parameters()), torch.zeros(1, 1, 2, 2))
