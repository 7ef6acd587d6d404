"""Pictures with the channels of a pixel side by side: other strides, the same logits."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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


class Pointwise(nn.Module):
    """A convolution of 1 x 1 pixels (voxels) that skips every second one, as the shortcut of a residual block has it."""

    def __init__(self, channels: int, *, stride: int = 2, size: int = 1, functional: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, channels, size, size))
        self.conv = None if functional else nn.Conv2d(channels, 16, size, stride)
        self.stem, self.stride = nn.Conv2d(channels, channels, 3, padding=1), stride

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.conv2d(x, self.weight, stride=self.stride) if self.conv is None else self.conv(x)
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("options", "channels_last"),
    [
        ({"channels": 8}, False),
        ({"channels": 15}, False),
        ({"channels": 8, "functional": True}, False),
        ({"channels": 16}, True),
        ({"channels": 8, "stride": 1}, True),
        ({"channels": 8, "size": 3}, True),
    ],
)
def test_a_convolution_whose_backward_overruns_its_memory_keeps_the_usual_layout(
    options: dict[str, Any], channels_last: bool
) -> None:
    assert probe(Pointwise(**options), (options["channels"], 8, 8)).channels_last is channels_last


CRASH = """
import torch
from torch import nn
from wardround.models.resnet import resnet18
from wardround.training.forward import single
from wardround.training.probe import probe

torch.set_num_threads(1)
torch.manual_seed(0)
module = resnet18((3, 64, 64), 7, width=8, stem="small", norm="{norm}")
forward = single(module, channels_last=probe(module, (3, 64, 64), stack=False).channels_last)
params = {{n: p.detach().unsqueeze(0).requires_grad_() for n, p in module.named_parameters()}}
buffers = {{n: b.unsqueeze(0) for n, b in module.named_buffers()}}
for _ in range(2):
    forward(params, buffers, torch.randn(1, 16, 3, 64, 64)).square().sum().backward()
print("trained")
"""


@pytest.mark.parametrize("norm", [pytest.param("group", marks=pytest.mark.long), "batch"])
def test_a_narrow_residual_network_trains_without_a_crash(norm: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(norm=norm)], capture_output=True, text=True, check=False, timeout=480
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
