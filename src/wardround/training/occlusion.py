"""Which part of a picture a network needs for its decision: a grey patch is moved over it, and the logit watched.

With y the logit of the decision, x_q the picture with patch q in its channels' mean, and Q(p) the patches that cover pixel p:

    L(p) = ReLU(mean over q in Q(p) of y(x) - y(x_q))

Source: Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2, who watch the probability;
it hardly moves where a network is certain, so here it is the logit. Any network will do, and nothing is differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wardround.training.gradcam import decided, logit_of, to_one

_PATCHES = {2: 6, 3: 4}
"""Patches that fit beside each other along a side, by the number of sides. Each begins half a patch after the one before it, so
there are 121 of a picture and 343 of a volume."""
_BLOCK = 2**21
"""Numbers of the pictures that go through the network at once."""


def occlusion(
    module: nn.Module, arrays: Mapping[str, Tensor], x: Tensor, *, labelled: bool = False
) -> tuple[Tensor, Tensor]:
    """What the decision of each row rests on. The decision is that of `grad_cam`.

    Args:
        module: the network; its own values are not used, and its mode is set to evaluation.
        arrays: parameters and buffers by name.
        x: pictures [b, C, H, W] or volumes [b, C, D, H, W].
        labelled: whether each output is a label of its own.

    Returns:
        Maps in [0, 1], float32 [b, *spatial] on the CPU, each divided by its largest value (zeros where no patch lowers the
        logit), and the decision, int64 [b].
    """
    module.eval()
    covers = [_cover(size, _PATCHES[x.dim() - 2]).to(x.device) for size in x.shape[2:]]
    with torch.no_grad():
        logits = functional_call(module, dict(arrays), (x,))
        decision = decided(logits, labelled=labelled)
        whole = logit_of(decision, logits, labelled=labelled)
        maps = []
        for row, own in enumerate(x):
            seen = _occluded(module, arrays, own, covers)
            left = logit_of(decision[row].expand(len(seen)), seen, labelled=labelled)
            drop = (whole[row] - left).float().view([len(cover) for cover in covers])
            maps.append(_spread(drop, covers) / _spread(torch.ones_like(drop), covers))
        found = torch.stack(maps).relu() if maps else x.new_zeros(0, *x.shape[2:]).float()
    return (to_one(found) if maps else found).cpu(), decision.cpu()


def _cover(size: int, patches: int) -> Tensor:
    """Which pixels of a side each place of the patch covers, bool [places, size]; every pixel is covered."""
    patch = max(1, math.ceil(size / patches))
    places = math.ceil((size - patch) / max(1.0, patch / 2)) + 1
    begin = torch.linspace(0, size - patch, places).round().unsqueeze(1)
    pixel = torch.arange(size)
    return (pixel >= begin) & (pixel < begin + patch)


def _occluded(module: nn.Module, arrays: Mapping[str, Tensor], x: Tensor, covers: Sequence[Tensor]) -> Tensor:
    """Logits of x [C, *spatial] with the patch at each place, [places of all sides, outputs]."""
    d = len(covers)
    grey = x.mean(dim=tuple(range(1, d + 1)), keepdim=True)
    place = torch.cartesian_prod(*(torch.arange(len(cover), device=x.device) for cover in covers))
    found = []
    for block in torch.split(place, max(1, _BLOCK // x.numel())):
        hidden = torch.ones(1, dtype=torch.bool, device=x.device)
        for side, cover in enumerate(covers):
            shape = [len(block), 1, *[1] * side, -1, *[1] * (d - 1 - side)]
            hidden = hidden & cover[block[:, side]].view(shape)
        found.append(functional_call(module, dict(arrays), (torch.where(hidden, grey, x),)))
    return torch.cat(found)


def _spread(values: Tensor, covers: Sequence[Tensor]) -> Tensor:
    """Sum over the patches that cover each pixel: [places, ...] -> [*spatial]."""
    for cover in covers:
        values = torch.tensordot(values, cover.float(), dims=([0], [0]))  # the side that is done goes last
    return values
