"""Alternating least squares of the `implicit` library, on the hardware that it can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    import torch
    from scipy import sparse


class LeastSquares(Protocol):
    """The library's model on the CPU."""

    item_factors: np.ndarray
    """[items, factors]."""

    def recalculate_user(self, userid: np.ndarray, user_items: sparse.csr_matrix) -> np.ndarray:
        """Solve users' vectors anew from a matrix [users, items], [users, factors]."""


def fit_als(
    matrix: sparse.csr_matrix,
    *,
    factors: int,
    regularisation: float,
    confidence: float,
    iterations: int,
    seed: int,
    device: torch.device | None,
) -> LeastSquares:
    """Factorise a matrix of users' events (Hu et al. 2008); return the library's model for the CPU.

    On a GPU only where the library has its CUDA extension and `rmm` beside it (`implicit.gpu.HAS_CUDA`), and
    on the first GPU, as it has no option for another; elsewhere on the CPU, whatever the device. The GPU
    solves by conjugate gradients, as the CPU does, from other starting factors: the results are alike, not
    equal.

    Args:
        matrix: log of the events, [users, items].
        factors: width.
        regularisation: L2 weight.
        confidence: weight of an observed event against an absent one.
        iterations: rounds over users and items.
        seed: of the starting factors.
        device: where it should be done; None is the CPU.

    """
    import implicit.gpu  # imported lazily: a server never fits
    from implicit.als import AlternatingLeastSquares

    first_gpu = device is not None and device.type == "cuda" and not device.index
    use_gpu = first_gpu and bool(implicit.gpu.HAS_CUDA)
    with threadpool_limits(1, "blas"):  # implicit has threads of its own and warns about BLAS's
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularisation,
            alpha=confidence,
            iterations=iterations,
            random_state=seed,
            use_gpu=use_gpu,
        )
        model.fit(matrix, show_progress=False)
    fitted: LeastSquares = model.to_cpu() if use_gpu else model
    return fitted
