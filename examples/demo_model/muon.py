"""Muon: momentum whose update is made orthogonal (Jordan et al., 2024).

Source: https://kellerjordan.github.io/posts/muon

For the matrices inside the blocks only. Equal shapes are stacked, so one step costs a few large products, not
hundreds of small ones. Keeps fp32 weights and momentum.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """Roughly the nearest orthogonal matrices, by Newton-Schulz steps. `matrices`: [count, rows, columns]."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices  # most CPUs are slow in bf16
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon:
    """Steps a fixed set of matrices. `rate` may be changed between steps."""

    def __init__(
        self, matrices: Iterable[Tensor], rate: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        self.rate = rate
        self._momentum = momentum
        self._decay = decay
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self._groups = [(group, torch.zeros_like(torch.stack(group))) for group in by_shape.values()]

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients, which are then cleared."""
        for group, velocity in self._groups:
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            velocity.lerp_(gradient, 1 - self._momentum)
            update = orthogonal(gradient.lerp_(velocity, self._momentum))
            rows, columns = update.shape[1:]
            scale = self.rate * max(1.0, rows / columns) ** 0.5
            for matrix, change in zip(group, update.unbind(), strict=True):
                matrix.mul_(1 - self.rate * self._decay).add_(change, alpha=-scale)
                matrix.grad = None
