"""Pictures with the channels of a pixel side by side: other strides, the same logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wardround.models.cnn import CNN
from wardround.training.forward import plain, single
from wardround.training.probe import probe


class Seen(nn.Module):
    """Remembers the strides of what it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.strides: tuple[int, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        self.strides = x.stride()
        return self.inner(x)


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((3, 4, 5), (60, 1, 15, 3)), ((1, 4, 5), (20, 1, 5, 1)), ((2, 3, 4, 5), (120, 1, 40, 10, 2))],
)
def test_channels_lie_side_by_side_also_where_there_is_one(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    module = Seen(nn.Flatten())
    x = torch.randn(2, *shape)
    assert torch.equal(plain(module, channels_last=True)({}, {}, x), x.flatten(1))
    assert module.strides == strides
    assert torch.equal(plain(module)({}, {}, x), x.flatten(1))
    assert module.strides == x.stride()


class Viewing(nn.Module):
    """A usual way to flatten, which only rows in the normal layout allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(2 * 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1))


class InMemoryOrder(nn.Module):
    """Depends on the layout: it reads the memory of a convolution as it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(2 * 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(x.as_strided((len(x), 2 * 64), (2 * 64, 1)))


def volumes() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 64, 1))


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2 * 64, 1))


PICTURE = (1, 8, 8)
FOUND = {
    "cnn": (lambda: CNN(PICTURE), PICTURE, True, True),
    "volumes": (volumes, (1, 4, 4, 4), True, True),
    "dropout": (with_dropout, PICTURE, True, True),
    "view": (Viewing, PICTURE, True, False),
    "memory order": (InMemoryOrder, PICTURE, True, False),
    "no convolution": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), PICTURE, False, False),
    "signals": (lambda: nn.Sequential(nn.Conv1d(1, 2, 8), nn.Flatten(), nn.Linear(2, 1)), (1, 8), False, False),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_probe_tells_who_convolves_and_who_takes_the_layout(case: str) -> None:
    make, shape, convolves, channels_last = FOUND[case]
    found = probe(make(), shape)
    assert (found.convolves, found.channels_last) == (convolves, channels_last)


def test_gradients_keep_the_normal_layout() -> None:
    torch.manual_seed(0)
    module = CNN((3, 8, 8)).double()
    x = torch.randn(1, 6, 3, 8, 8, dtype=torch.float64)
    grads = []
    for channels_last in (False, True):
        params = {n: p.detach().clone().unsqueeze(0).requires_grad_() for n, p in module.named_parameters()}
        buffers = {n: b.clone().unsqueeze(0) for n, b in module.named_buffers()}
        logits = single(module, channels_last=channels_last)(params, buffers, x)
        grads.append(torch.autograd.grad(logits.square().sum(), list(params.values())))
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-10)
