"""FedAdagrad: FedAdam whose second moment is a sum and never forgets (Reddi et al. 2021, algorithm 2).

v = v + d^2, so that steps shorten as rounds go by, and most where they were long. As in the paper's experiments the first
moment is the step itself (beta1 = 0) unless asked otherwise.
"""

from __future__ import annotations

from torch import Tensor

from wardround.algorithms.server_adam import Adam


class Adagrad(Adam):
    """Adagrad over rounds.

    Args:
        learning_rate: above 0.
        beta1: decay of the first moment, in [0, 1).
        epsilon: tau, the degree of adaptivity, above 0.
    """

    name = "adagrad"

    def __init__(self, learning_rate: float = 0.1, beta1: float = 0.0, epsilon: float = 1e-3) -> None:
        super().__init__(learning_rate, beta1, epsilon=epsilon)

    def second(self, square: Tensor, step: Tensor) -> Tensor:
        """V + d^2."""
        return square + step * step
