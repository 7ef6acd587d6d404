"""Where in a picture a network finds the evidence for its decision: gradient-weighted class activation mapping.

With A^k the k-th channel of the last convolution and y the logit of the decision:

    alpha_k = mean over positions of dy / dA^k
    L       = ReLU(sum_k alpha_k A^k)

Source: Selvaraju et al. 2017, Grad-CAM, equations 1 and 2. A map shows what raised the logit, not that it was a good reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_MODES = {2: "bilinear", 3: "trilinear"}


def convolves(module: nn.Module) -> bool:
    """Whether there is a convolution that a map could come from."""
    return any(isinstance(layer, CONVOLUTIONS) for layer in module.modules())


def grad_cam(
    module: nn.Module, arrays: Mapping[str, Tensor], x: Tensor, *, labelled: bool = False
) -> tuple[Tensor, Tensor]:
    """The evidence for the decision of each row.

    The decision is the most probable class or label; of a single output, class 1 where its logit is above 0, else class 0,
    whose logit is the negative one.

    Args:
        module: the network; its own values are not used, and its mode is set to evaluation.
        arrays: parameters and buffers by name.
        x: pictures [b, C, H, W] or volumes [b, C, D, H, W].
        labelled: whether each output is a label of its own.

    Returns:
        Maps in [0, 1], float32 [b, *spatial] on the CPU, each divided by its largest value (zeros where nothing speaks for
        the decision), and the decision, int64 [b].

    Raises:
        ValueError: no convolution ran.
    """
    held: list[Tensor] = []

    def hold(_layer: nn.Module, _given: Any, output: Tensor) -> Tensor:
        held[:] = [output]
        return output.clone()  # an activation in place would change what is held

    hooks = [layer.register_forward_hook(hold) for layer in module.modules() if isinstance(layer, CONVOLUTIONS)]
    module.eval()
    try:
        with torch.enable_grad():
            logits = functional_call(module, dict(arrays), (x.detach().requires_grad_(),))
    finally:
        for hook in hooks:
            hook.remove()
    if not held:
        raise ValueError("no convolution ran in the forward pass")
    decision = decided(logits, labelled=labelled)
    chosen = logit_of(decision, logits, labelled=labelled)
    (grads,) = torch.autograd.grad(chosen.sum(), held)
    space = tuple(range(2, grads.dim()))
    with torch.no_grad():
        weights = grads.mean(dim=space, keepdim=True)
        coarse = (weights * held[0]).sum(1, keepdim=True).relu()
        maps = F.interpolate(coarse.float(), size=x.shape[2:], mode=_MODES[len(space)], align_corners=False)[:, 0]
    return to_one(maps).cpu(), decision.cpu()


def decided(logits: Tensor, *, labelled: bool) -> Tensor:
    """The decision of each row, int64 [b]: the most probable class or label; of a single output, whether its logit is above 0.

    Args:
        logits: [b, outputs].
        labelled: whether each output is a label of its own.
    """
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 and not labelled else logits.argmax(1)


def logit_of(decision: Tensor, logits: Tensor, *, labelled: bool) -> Tensor:
    """The logit of a decision in each row, [b]; class 0 of a single output has the negative one."""
    if logits.shape[1] == 1 and not labelled:
        return torch.where(decision == 1, logits[:, 0], -logits[:, 0])
    return logits.gather(1, decision.unsqueeze(1))[:, 0]


def to_one(maps: Tensor) -> Tensor:
    """Maps [b, *spatial] of 0 or more, each divided by its largest value; zeros stay zeros."""
    largest = maps.amax(dim=tuple(range(1, maps.dim())), keepdim=True)
    return torch.where(largest > 0, maps / largest.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))
